"""Compressors: exact against transformers' own layers, of their own weights, blind to padding and neighbours."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tiny
import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.compressors.base import Compressed, Compressor, Embed
from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.compressors.embedded_encoder import embedded_encoder_config
from scaledown.models.compressors.encoder import EncoderCompressor
from scaledown.models.compressors.llm import LLMCompressor
from scaledown.models.compressors.n_layers import NLayersCompressor, resolve_num_layers
from scaledown.models.engine import decoder
from scaledown.models.engine.decoder import token_embeddings
from scaledown.models.engine.fixed_shapes import fill_texts
from scaledown.models.engine.packing import TextLists

QUERIES = [[5, 9, 200, 31, 7], [8], [30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41], [77, 78]]
DOCUMENTS = [[list(range(10, 31)), [44, 45]], [list(range(60, 73))], [], [[], list(range(90, 97)), [3]]]
LAYOUTS = {"llama": {}, "mistral": {"sliding_window": None}, "qwen2": {}, "qwen3": {},
           "mistral, window": {"sliding_window": 6},
           "qwen2, window": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}}


def lists(compressor: Compressor, queries: list[list[int]] = QUERIES,
          documents: list[list[list[int]]] = DOCUMENTS) -> TextLists:
    """What the compressor reads: each query is shared by its documents, but an encoder gets whole pairs."""
    special = [0] * len(compressor.special_rows(None))
    suffixes, prefix = [], []
    for number, each in enumerate(documents):
        suffixes += [[*document, *special] for document in each]
        prefix += [number] * len(each)
    if isinstance(compressor, EncoderCompressor):
        wholes = [[*queries[number], *ids] for number, ids in zip(prefix, suffixes, strict=True)]
        return TextLists(wholes, [], [], [_last(ids, len(special)) for ids in wholes])
    return TextLists(queries, suffixes, prefix, [range(0)] * len(queries) + [_last(ids, len(special))
                                                                              for ids in suffixes])


def _last(ids: list[int], number: int) -> range:
    return range(len(ids) - number, len(ids))


def read(compressor: Compressor, embed: Embed, *given: list, padding: int = 0) -> Compressed:
    """Compress ``given`` queries and documents; with ``padding`` in texts so much longer, among dummy ones."""
    texts = lists(compressor, *given)
    num_documents = sum(map(len, given[1] if given else DOCUMENTS))
    if padding:
        longest = [max(map(len, each), default=0) for each in (texts.prefixes, texts.suffixes)]
        sizes = [len(texts.prefixes) + padding, longest[0] + padding]
        sizes += [len(texts.suffixes) + padding, longest[1] + padding] if texts.suffixes else []
        texts = fill_texts(texts, *sizes, num_reads=max(map(len, texts.reads)))
    found = compressor(texts.packed(), embed)
    return Compressed(found.embeddings[:num_documents], found.scores[:num_documents])


def config(**settings: object) -> ScaleDownConfig:
    return ScaleDownConfig(num_memory_tokens=3, enable_reranking=True, mlp_width=16, **settings)


def n_layers(base: PreTrainedModel, num_layers: int = 3, **settings: object) -> NLayersCompressor:
    torch.manual_seed(1)
    table = token_embeddings(base)
    return NLayersCompressor(config(num_layers=num_layers, **settings), base.base_model, table).eval()


def encoder(base: PreTrainedModel, **settings: object) -> EncoderCompressor:
    torch.manual_seed(1)
    layout = embedded_encoder_config(base.config)
    layout.initializer_range = 0.2  # else texts would be all but alike
    own = AutoModel.from_config(layout)
    return EncoderCompressor(config(compressor_type="modernbert", **settings), own,
                             base.get_input_embeddings().weight).eval()


def windowed(base: PreTrainedModel, **settings: object) -> EncoderCompressor:
    """A ModernBERT most of whose layers see 4 tokens to each side."""
    torch.manual_seed(1)
    own = AutoModel.from_config(tiny.encoder_config(base.config.vocab_size, local_attention=8, initializer_range=0.2))
    return EncoderCompressor(config(compressor_type="modernbert", **settings), own,
                             base.get_input_embeddings().weight).eval()


def llm(base: PreTrainedModel, family: str = "qwen3", num_layers: int = 3, layout: dict | None = None,
        **settings: object) -> LLMCompressor:
    """A compressor made from another causal LM than the generator, with embeddings of its own."""
    torch.manual_seed(1)
    own = tiny.generator(family, num_layers, **(layout or {})).base_model
    nn.init.normal_(own.get_input_embeddings().weight)
    return LLMCompressor(config(compressor_type="llm", **settings), own, base.get_input_embeddings().weight).eval()


COMPRESSORS = {"n_layers": n_layers, "llm": llm, "encoder": encoder, "windowed": windowed}
CAUSAL = {"n_layers": lambda base, family, layout: n_layers(base),
          "llm": lambda base, family, layout: llm(base, family, layout=layout)}


@pytest.fixture(params=COMPRESSORS)
def compressor(request: pytest.FixtureRequest) -> Compressor:
    return COMPRESSORS[request.param](tiny.generator())


@pytest.fixture
def embed() -> nn.Module:
    return tiny.generator().get_input_embeddings()


def naive(compressor: CausalCompressor, base: PreTrainedModel) -> Tensor:
    """[query][document][MEM][RR] read anew for each document, alone, by transformers' own attention."""
    own = isinstance(compressor, LLMCompressor)
    embed = compressor.body.get_input_embeddings() if own else base.get_input_embeddings()
    rows = torch.cat([compressor.memory_rows, compressor.rerank_row])
    compressor.body.set_attn_implementation("eager")
    states = []
    for query, documents in zip(QUERIES, DOCUMENTS, strict=True):
        for document in documents:
            embeddings = torch.cat([embed(torch.tensor(query + document)), rows])[None]
            states.append(compressor.body(inputs_embeds=embeddings, use_cache=False).last_hidden_state[0, -len(rows):])
    decoder.register(compressor.body)
    return torch.stack(states)


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_shared_query_equals_the_naive_computation(layout: str, kind: str) -> None:
    family = layout.split(",")[0]
    base = tiny.generator(family, **LAYOUTS[layout])
    compressor = CAUSAL[kind](base, family, LAYOUTS[layout])
    wanted = naive(compressor, base)
    found = read(compressor, base.get_input_embeddings(), padding=4)
    memory = getattr(compressor, "mlp", nn.Identity())(wanted[:, :3])
    torch.testing.assert_close(found.embeddings, memory, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.scores, compressor.rerank_head(wanted[:, 3]).squeeze(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_shared_query_has_the_naive_gradients(layout: str, kind: str) -> None:
    family = layout.split(",")[0]
    base = tiny.generator(family, **LAYOUTS[layout])
    compressor = CAUSAL[kind](base, family, LAYOUTS[layout])
    weight = torch.randn(6, 3, tiny.WIDTH, generator=torch.Generator().manual_seed(2))
    mlp = getattr(compressor, "mlp", nn.Identity())
    gradients = []
    for embeddings in (mlp(naive(compressor, base)[:, :3]),
                       read(compressor, base.get_input_embeddings()).embeddings):
        compressor.zero_grad()
        (embeddings * weight).sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in compressor.named_parameters()
                          if parameter.grad is not None})
    wanted, found = gradients
    assert wanted.keys() == found.keys()
    for name in wanted:
        scale = wanted[name].abs().max()
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=float(1e-4 * scale))


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_copied_layers_compute_what_the_generators_first_ones_do(layout: str) -> None:
    """Up to where the next layer goes on: no final norm."""
    base = tiny.generator(layout.split(",")[0], **LAYOUTS[layout])
    compressor = n_layers(base)
    compressor.rerank_row = None
    compressor.memory_rows = nn.Parameter(base.get_input_embeddings()(torch.tensor([7, 8, 9])))
    base.base_model.set_attn_implementation("eager")
    wanted = base.base_model(torch.tensor([[*QUERIES[0], *DOCUMENTS[0][0], 7, 8, 9]]), output_hidden_states=True)
    found = compressor(lists(compressor).packed(), base.get_input_embeddings()).embeddings[0]
    torch.testing.assert_close(found, wanted.hidden_states[3][0, -3:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", [encoder, windowed])
def test_encoder_equals_one_unpadded_text_after_the_other(build: Callable[..., EncoderCompressor]) -> None:
    compressor = build(tiny.generator())
    found = read(compressor, lambda ids: ids, padding=4).embeddings
    wanted = []
    for query, documents in zip(QUERIES, DOCUMENTS, strict=True):
        for document in documents:
            tokens = compressor.encoder.get_input_embeddings()(torch.tensor(query + document))
            rows = torch.cat([tokens, compressor.memory_rows, compressor.rerank_row])[None]
            wanted.append(compressor.mlp(compressor.encoder(inputs_embeds=rows).last_hidden_state[0, -4:-1]))
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-4, atol=1e-5)


def test_windows_are_shorter_than_the_texts() -> None:
    wide, narrow = (tiny.generator("mistral", sliding_window=window) for window in (None, 6))
    outputs = [read(n_layers(base), base.get_input_embeddings()).embeddings for base in (wide, narrow)]
    assert (outputs[0] - outputs[1]).abs().max() > 0.01


def test_no_weight_is_shared_with_the_generator() -> None:
    base = tiny.generator()
    theirs = {tensor.untyped_storage().data_ptr() for tensor in base.state_dict().values()}
    for compressor in (n_layers(base), encoder(base), llm(base)):
        ours = [*compressor.parameters(), *compressor.buffers()]
        assert not theirs & {tensor.untyped_storage().data_ptr() for tensor in ours}
        assert all(parameter.requires_grad for parameter in compressor.parameters())


def test_padding_changes_nothing(compressor: Compressor, embed: nn.Module) -> None:
    assert_same(read(compressor, embed, padding=7), read(compressor, embed))


def test_neighbours_change_nothing(compressor: Compressor, embed: nn.Module) -> None:
    together = read(compressor, embed)
    start = 0
    for query, documents in zip(QUERIES, DOCUMENTS, strict=True):
        alone = read(compressor, embed, [query], [documents])
        stop = start + len(documents)
        assert_same(alone, Compressed(together.embeddings[start:stop], together.scores[start:stop]))
        start = stop


def test_the_order_of_documents_only_orders_their_memory(compressor: Compressor, embed: nn.Module) -> None:
    one, other = (read(compressor, embed, QUERIES[:1], [each]) for each in (DOCUMENTS[3], DOCUMENTS[3][::-1]))
    assert_same(one, Compressed(other.embeddings.flip(0), other.scores.flip(0)))


def test_memory_depends_on_query_and_document(compressor: Compressor, embed: nn.Module) -> None:
    document = [[50, 51, 52]]
    found = read(compressor, embed, [[5], [6], [5]], [document, document, [[50, 51, 53]]]).embeddings
    assert (found[0] - found[1]).abs().max() > 1e-3 and (found[0] - found[2]).abs().max() > 1e-3


def test_no_documents_at_all(compressor: Compressor, embed: nn.Module) -> None:
    found = read(compressor, embed, QUERIES[:1], [[]])
    assert found.embeddings.shape == (0, 3, tiny.WIDTH) and found.scores.shape == (0,)


def test_memory_norm_brings_memory_to_the_embeddings_scale(embed: nn.Module) -> None:
    for build in COMPRESSORS.values():
        memory = read(build(tiny.generator(), memory_norm=True), embed).embeddings
        root = embed.weight.pow(2).mean().sqrt()
        torch.testing.assert_close(memory.pow(2).mean(-1).sqrt(), root.expand(memory.shape[:2]), rtol=1e-3, atol=1e-4)


def test_special_rows_start_at_the_embeddings_scale(embed: nn.Module) -> None:
    base = tiny.generator().base_model
    settings = ScaleDownConfig(num_layers=1, num_memory_tokens=200)
    rows = NLayersCompressor(settings, base, token_embeddings(base)).memory_rows
    torch.testing.assert_close(rows.std(0).mean(), embed.weight.std(0).mean(), rtol=0.1, atol=0)


def test_gradient_checkpointing_changes_no_gradient(compressor: Compressor, embed: nn.Module) -> None:
    torch.manual_seed(2)
    gradients, weight = [], torch.randn(6, 3, tiny.WIDTH)
    for _ in range(2):
        compressor.train().zero_grad()
        (read(compressor, embed).embeddings * weight).sum().backward()
        gradients.append([parameter.grad for parameter in compressor.parameters() if parameter.grad is not None])
        compressor.gradient_checkpointing_enable()
    for before, after in zip(*gradients, strict=True):
        torch.testing.assert_close(before, after)


def test_number_of_layers() -> None:
    assert [resolve_num_layers(None, layers) for layers in (2, 12, 23, 24, 32)] == [1, 4, 7, 8, 8]
    assert resolve_num_layers(5, 6) == 5
    with pytest.raises(ValueError, match="--num_layers 7.* 6 layers"):
        resolve_num_layers(7, 6)


def assert_same(one: Compressed, other: Compressed) -> None:
    torch.testing.assert_close(one.embeddings, other.embeddings, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)
