"""Attention over packed texts: a dense mask's values and gradients, without ever making one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM
from transformers.integrations.eager_paged import repeat_kv

from scaledown.config import ScaleDownConfig
from scaledown.models.engine.attention import HaveKeysValues, attention, prepare
from scaledown.models.engine.fixed_shapes import fill_texts
from scaledown.models.engine.packing import TextLists
from scaledown.models.model import ScaleDownModel

LENGTHS = [7, 2, 12], [(9, 0), (4, 0), (15, 2), (1, 2), (6, 1), (3, 0)]
WIDTH = 8
LAYER = SimpleNamespace(layer_idx=0, num_key_value_groups=2, is_causal=True)
SINKS = torch.tensor([0.3, -1.0, 2.0, 0.0])
SETTINGS = {"plain": {}, "scaled": {"scaling": 0.7}, "window": {"sliding_window": 3}, "softcap": {"softcap": 1.5},
            "sinks": {"s_aux": SINKS}, "all": {"scaling": 0.7, "sliding_window": 5, "softcap": 1.5, "s_aux": SINKS}}
READS = {"all": None, "last": [range(-1, 0), range(0), range(-3, 0)] + [range(-1, 0)] * 6,
         "not the last": [range(1, 3), range(0), range(0, 12, 5)] + [range(1)] * 6}


def lists(reads: list[range] | None = None) -> TextLists:
    """Texts of the lengths above; of ``reads`` negative places are counted from the end."""
    prefix_lengths, suffixes = LENGTHS
    lengths = [*prefix_lengths, *(length for length, _ in suffixes)]
    reads = reads or [range(0)] * len(lengths)
    wanted = []
    for places, length in zip(reads, lengths, strict=True):
        wanted.append([place % length for place in places])
    return TextLists([[1] * length for length in prefix_lengths], [[2] * length for length, _ in suffixes],
                     [prefix for _, prefix in suffixes], wanted)


def visible(texts: TextLists, window: int | None = None) -> Tensor:
    """(N, N): whether a token (row) sees another (column), from the definition."""
    rows = []
    owners = [(number, None, 0, len(ids)) for number, ids in enumerate(texts.prefixes)]
    owners += [(len(texts.prefixes) + number, prefix, len(texts.prefixes[prefix]), len(ids))
               for number, (prefix, ids) in enumerate(zip(texts.prefix, texts.suffixes, strict=True))]
    tokens = []
    for text, before, start, length in owners:
        tokens += [(text, before, start + place) for place in range(length)]
    for text, before, position in tokens:
        rows.append([other in (text, before) and 0 <= position - place < (window or 10**6)
                     for other, _, place in tokens])
    return torch.tensor(rows)


def reference(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scaling: float | None = None,
              softcap: float | None = None, s_aux: Tensor | None = None, **_: Any) -> Tensor:
    """The textbook's attention (1, N, H, W) with a mask of all tokens by all."""
    groups = query.shape[1] // key.shape[1]
    key, value = (repeat_kv(each, groups) for each in (key, value))
    scores = query @ key.transpose(-1, -2) * (WIDTH ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, -torch.inf)
    if s_aux is not None:
        sinks = s_aux.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        return (torch.cat([scores, sinks], -1).softmax(-1)[..., :-1] @ value).transpose(1, 2)
    return (scores.softmax(-1) @ value).transpose(1, 2)


def heads(number: int, size: int, seed: int) -> Tensor:
    return torch.randn(1, number, size, WIDTH, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def inputs(num_tokens: int, key_heads: int = 2) -> list[Tensor]:
    return [heads(4, num_tokens, 1), heads(key_heads, num_tokens, 2), heads(key_heads, num_tokens, 3)]


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("which", READS)
@pytest.mark.parametrize("name", SETTINGS)
def test_packed_attention_is_the_dense_one(name: str, which: str, key_heads: int) -> None:
    settings, texts = SETTINGS[name], lists(READS[which])
    packed = texts.packed()
    query, key, value = inputs(len(packed.ids), key_heads)
    wanted = reference(query, key, value, visible(texts, settings.get("sliding_window")), **settings)
    if READS[which] is None:
        found, _ = attention(LAYER, query, key, value, None, packing=packed.packing, **settings)
    else:
        at = packed.reads.at
        wanted = wanted[:, at]
        # Of the keys and values of the wanted tokens alone nothing is used.
        found, _ = attention(LAYER, query[:, :, at], key[:, :, at] * 99, value[:, :, at] * 99, None,
                             packing=packed.packing, reads=packed.reads, keys_values=(key, value), **settings)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)

    weight = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(4))
    for one, other in zip(torch.autograd.grad((found * weight).sum(), (query, key, value)),
                          torch.autograd.grad((wanted * weight).sum(), (query, key, value)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", READS)
@pytest.mark.parametrize("name", ["plain", "window", "softcap", "sinks"])
def test_half_precision_trains_in_float32_on_a_cpu(name: str, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # SDPA's backward pass is slow in half precision there; forward alone it is fast.
    used, sdpa = set(), F.scaled_dot_product_attention

    def watched(query: Tensor, *parts: Any, **more: Any) -> Tensor:
        used.add(query.dtype)
        return sdpa(query, *parts, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    settings, texts = SETTINGS[name], lists(READS[which])
    packed = texts.packed()
    rounded = [each.detach().bfloat16().requires_grad_() for each in inputs(len(packed.ids))]
    exact = [each.detach().float().requires_grad_() for each in rounded]

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if READS[which] is None:
            return attention(LAYER, query, key, value, None, packing=packed.packing, **settings)[0]
        at = packed.reads.at
        return attention(LAYER, query[:, :, at], key[:, :, at], value[:, :, at], None, packing=packed.packing,
                         reads=packed.reads, keys_values=(key, value), **settings)[0]

    found, wanted = attend(*rounded), attend(*exact)
    assert found.dtype == torch.bfloat16 and used <= {torch.float32}
    torch.testing.assert_close(found, wanted.bfloat16())

    weight = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(4)).bfloat16()
    for one, other in zip(torch.autograd.grad((found * weight).sum(), rounded),
                          torch.autograd.grad((wanted * weight).sum(), exact), strict=True):
        torch.testing.assert_close(one, other.bfloat16())

    used.clear()
    with torch.no_grad():
        attend(*rounded)
    assert used <= {torch.bfloat16}


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_stored_prefixes_serve_as_if_they_were_read_now(name: str) -> None:
    settings, texts = SETTINGS[name], lists([range(0)] * 3 + [range(-2, 0)] * 3 + [range(-1, 0)] * 3)
    packed, number = texts.packed(), sum(LENGTHS[0])
    query, key, value = inputs(len(packed.ids))
    whole, _ = attention(LAYER, query, key, value, None, packing=packed.packing, **settings)

    alone, kept = TextLists(texts.prefixes, [], [], [[]] * 3).packed(), {}
    before = [each[:, :, :number] for each in (query, key, value)]
    attention(LAYER, *before, None, packing=alone.packing, keep=kept, **settings)
    assert kept[0][0].shape == (3, 2, 12, WIDTH) and kept[0][0][1, :, :2].equal(key[0, :, 7:9])

    behind = packed.behind([kept[0]])
    own = [each[:, :, number:] for each in (query, key, value)]
    found, _ = attention(LAYER, *own, None, packing=behind.packing, **settings)
    torch.testing.assert_close(found, whole[:, number:])
    at = behind.reads.at
    found, _ = attention(LAYER, own[0][:, :, at], None, None, None, packing=behind.packing, reads=behind.reads,
                         keys_values=(own[1], own[2]), **settings)
    torch.testing.assert_close(found, whole[:, number + at])


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_filler_and_dummies_change_nothing(name: str) -> None:
    settings, texts = SETTINGS[name], lists()
    grown = fill_texts(texts, 5, 14, 8, 17)
    sizes = [*map(len, grown.prefixes), *map(len, grown.suffixes)]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    real = [*range(3), *range(5, 5 + 6)]
    lengths = [*LENGTHS[0], *(length for length, _ in LENGTHS[1])]
    places: list[int] = []
    for text, length in zip(real, lengths, strict=True):
        places += range(starts[text], starts[text] + length)
    at = torch.tensor(places)
    plain = inputs(len(at))
    wide = [torch.full((1, each.shape[1], sum(sizes), WIDTH), 9.0).index_copy(2, at, each) for each in plain]
    found, _ = attention(LAYER, *wide, None, packing=grown.packed().packing, **settings)
    wanted, _ = attention(LAYER, *plain, None, packing=texts.packed().packing, **settings)
    torch.testing.assert_close(found[:, at], wanted)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", ["plain", "window", "softcap", "sinks"])
@torch.no_grad()
def test_dropout_drops_weights_and_keeps_the_mean(name: str) -> None:
    packed = lists().packed()
    query, key, value = inputs(len(packed.ids))

    def attend(seed: int, dropout: float = 0.4) -> Tensor:
        torch.manual_seed(seed)
        return attention(LAYER, query, key, value, None, packing=packed.packing, dropout=dropout, **SETTINGS[name])[0]

    wanted, draws = attend(0, 0.0), torch.stack([attend(seed) for seed in range(400)])
    assert draws.shape == (400, *wanted.shape) and draws[0].equal(attend(0)) and not draws[0].equal(draws[1])
    if name != "sinks":
        # A first token sees itself alone: its value comes with the share of the dropped ones, or not at all.
        alone = draws[:, 0, 0]
        is_dropped = alone.eq(0).all(-1)
        assert 0.35 < is_dropped.float().mean() < 0.45
        torch.testing.assert_close(alone, (wanted[0, 0] / 0.6).expand_as(alone) * ~is_dropped[..., None])
    error = (draws.mean(0) - wanted).abs() / (draws.std(0) / 20).clamp(min=1e-6)
    assert error.mean() < 1.2 and error.max() < 6


@pytest.mark.parametrize("name", ["plain", "scaled", "softcap", "sinks"])
@torch.no_grad()
def test_a_batch_without_packing_is_attended_as_transformers_does(name: str) -> None:
    """Padded on the left, as generate has it: whole prompts, and one more token behind keys that are cached."""
    settings = SETTINGS[name]
    query, key, value = (torch.cat([each, each.flip(2)]) for each in inputs(9))
    seen = torch.ones(9, 9, dtype=torch.bool).tril().expand(2, 1, 9, 9).clone()
    seen[1, :, :, :4] = False
    for queries in (slice(0, 9), slice(8, 9)):
        found, _ = attention(LAYER, query[:, :, queries], key, value, seen[:, :, queries], **settings)
        wanted = reference(query[:, :, queries], key, value, seen[:, :, queries], **settings)
        assert found.is_contiguous()
        torch.testing.assert_close(found[:, 4:], wanted[:, 4:], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-5)
    # Without a mask a prompt is causal, and one token behind a cache sees all of it.
    found, _ = attention(LAYER, query, key, value, None, **settings)
    torch.testing.assert_close(found, reference(query, key, value, torch.ones(9, 9, dtype=torch.bool).tril(),
                                                **settings), rtol=1e-5, atol=1e-5)
    found, _ = attention(LAYER, query[:, :, 8:], key, value, None, **settings)
    torch.testing.assert_close(found, reference(query[:, :, 8:], key, value, torch.ones(1, 9, dtype=torch.bool),
                                                **settings), rtol=1e-5, atol=1e-5)


def test_a_layer_can_stop_at_its_keys() -> None:
    packed = lists().packed()
    query, key, value = inputs(len(packed.ids))
    with pytest.raises(HaveKeysValues) as found:
        attention(LAYER, query, key, value, None, packing=packed.packing, stop_at_keys=True)
    assert found.value.args == (key, value)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that anything made."""

    def __init__(self) -> None:
        super().__init__()
        self.num_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(each, Tensor):
                self.num_elements = max(self.num_elements, each.numel())
        return made


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_there_never_is_a_tensor_of_all_tokens_by_all(family: str, tmp_path: Any) -> None:
    """Twice the texts take twice the memory, in reading, in learning and in answering."""
    folder = tiny.generator_folder(tmp_path, family, **{"sliding_window": 6} if family == "mistral" else {})
    model = ScaleDownModel(ScaleDownConfig(generator_model=folder, num_memory_tokens=2, enable_reranking=True)).train()
    sizes = []
    for number in (8, 16):
        records = [SimpleNamespace(query="Who is it" + "?" * (row % 3), documents=["Ada was there."] * 24, answer="Ada",
                                   reranking_scores=None) for row in range(number)]
        batch = model.processor.collate(records)
        with Largest() as largest:
            tiny.total(model(batch)).backward()
            model.answer([each.query for each in records], [each.documents for each in records], max_new_tokens=2,
                         batch_size=number)
        assert largest.num_elements < len(batch["documents"].ids) ** 2 / 8
        sizes.append(largest.num_elements)
    assert sizes[1] <= 2 * sizes[0]


def test_a_saved_base_knows_nothing_of_it(tmp_path: Any) -> None:
    """The name of this attention is never written down: others could not load the model."""
    model = ScaleDownModel(ScaleDownConfig(generator_model=tiny.generator_folder(tmp_path / "generator"),
                                           num_memory_tokens=2))
    model.save_pretrained(tmp_path / "saved")
    model.generator.base.base_model.config.save_pretrained(tmp_path / "base")
    for folder in ("saved", "base"):
        assert not any("\"scaledown\"" in path.read_text() for path in (tmp_path / folder).rglob("config.json"))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "generator").config._attn_implementation == "sdpa"


def test_cudnn_is_ruled_out_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = []
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", allowed.append)
    prepare(torch.device("cpu"))
    assert not allowed
    prepare(torch.device("cuda", 1))
    assert allowed == [False]
