"""Packed attention by one call for texts of all lengths: what it is asked is what the padded way computes.

The kernel itself runs on CUDA alone. Here a loop over the texts stands in its place, after the kernel's documentation.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from test_attention import LAYER, LENGTHS, READS, inputs, lists
from torch import Tensor

from scaledown.models.engine import varlen
from scaledown.models.engine.attention import attention
from scaledown.models.engine.fixed_shapes import fill_texts
from scaledown.models.engine.packing import TextLists

PLAIN = {"scaling": None, "dropout": 0.0, "softcap": None, "sinks": None}


def one_text_after_the_other(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int,
                             max_k: int, *, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
                             enable_gqa: bool = False) -> Tensor:
    """What ``varlen_attn`` does: (T_q, H_q, D), (T_k, H_kv, D); causality is aligned to the last key."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and len(cu_seq_q) == len(cu_seq_k)
    assert cu_seq_q[-1] == len(query) and cu_seq_k[-1] == len(key) == len(value)
    assert enable_gqa == (query.shape[1] > key.shape[1]) and window_size[1] == 0
    read = []
    for text in range(len(cu_seq_q) - 1):
        queries, keys = (slice(ends[text], ends[text + 1]) for ends in (cu_seq_q.tolist(), cu_seq_k.tolist()))
        own, seen_keys, seen_values = (each.transpose(0, 1) for each in (query[queries], key[keys], value[keys]))
        num_queries, num_keys = own.shape[1], seen_keys.shape[1]
        assert num_queries <= max_q and num_keys <= max_k
        distance = torch.arange(num_keys - num_queries, num_keys)[:, None] - torch.arange(num_keys)
        seen = (distance >= 0) & (distance <= window_size[0] if window_size[0] >= 0 else distance >= 0)
        read.append(torch.nn.functional.scaled_dot_product_attention(
            own, seen_keys, seen_values, attn_mask=seen, scale=scale, enable_gqa=enable_gqa).transpose(0, 1))
    return torch.cat(read)


@pytest.fixture
def by_varlen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let packed attention take this way; grows with every call."""
    calls = []

    def counted(*given, **settings):
        calls.append(1)
        return one_text_after_the_other(*given, **settings)

    monkeypatch.setattr(varlen, "varlen_attn", counted)
    return calls


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 1, 3, 50])
@pytest.mark.parametrize("which", ["all", "last"])
def test_it_is_asked_what_the_padded_way_computes(which: str, window: int | None, key_heads: int, by_varlen: list[int],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    packed = lists(READS[which]).packed()
    query, key, value = inputs(len(packed.ids), key_heads)
    settings = {"packing": packed.packing, "sliding_window": window, "scaling": 0.4}
    if which == "last":
        query = query[:, :, packed.reads.at]
        settings |= {"reads": packed.reads, "keys_values": (key, value)}

    found = []
    for suits in (False, True):
        monkeypatch.setattr(varlen, "suits", lambda *given, suits=suits, **others: suits)
        read, _ = attention(LAYER, query, key, value, None, **settings)
        weight = torch.randn(read.shape, generator=torch.Generator().manual_seed(4))
        found.append([read, *torch.autograd.grad((read * weight).sum(), (query, key, value))])
    assert len(by_varlen) == 1
    for padded, other in zip(*found, strict=True):
        torch.testing.assert_close(other, padded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
@torch.no_grad()
def test_stored_prefixes_are_seen_and_not_read_again(window: int | None, by_varlen: list[int],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    texts = lists([range(0)] * 3 + [range(-2, 0)] * 3 + [range(-1, 0)] * 3)
    packed, number, found = texts.packed(), sum(LENGTHS[0]), []
    query, key, value = inputs(len(packed.ids))
    alone, kept = TextLists(texts.prefixes, [], [], [[]] * 3).packed(), {}
    for suits in (False, True):
        monkeypatch.setattr(varlen, "suits", lambda *given, suits=suits, **others: suits)
        before = [each[:, :, :number] for each in (query, key, value)]
        attention(LAYER, *before, None, packing=alone.packing, keep=kept, sliding_window=window)
        behind = packed.behind([kept[0]])
        own = [each[:, :, number:] for each in (query, key, value)]
        whole, _ = attention(LAYER, *own, None, packing=behind.packing, sliding_window=window)
        some, _ = attention(LAYER, own[0][:, :, behind.reads.at], *own[1:], None, packing=behind.packing,
                            reads=behind.reads, keys_values=tuple(own[1:]), sliding_window=window)
        found.append([*kept[0], whole, some])
    assert len(by_varlen) == 3
    for padded, other in zip(*found, strict=True):
        torch.testing.assert_close(other, padded, rtol=1e-5, atol=1e-5)


def on_cuda(dtype: torch.dtype = torch.bfloat16, width: int = 64) -> SimpleNamespace:
    """What is asked of heads that lie on a CUDA device."""
    return SimpleNamespace(device=torch.device("cuda:0"), dtype=dtype, shape=(20, 4, width))


def test_it_takes_what_the_kernel_can_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    texts = lists(READS["last"])
    packing, last, other = texts.packed().packing, texts.packed().reads, lists(READS["not the last"]).packed().reads

    def suits(query=None, value=None, packing=packing, reads=last, **settings):
        query = on_cuda() if query is None else query
        return varlen.suits(query, query if value is None else value, packing, reads, **PLAIN | settings)

    assert suits() and suits(reads=None) and suits(scaling=0.3) and suits(on_cuda(torch.float16, 256))
    assert not suits(on_cuda(torch.float32)), "flash attention computes in half precision alone"
    assert not suits(inputs(20)[0][0]), "and not on a CPU"
    assert not suits(dropout=0.1) and not suits(softcap=30.0) and not suits(sinks=torch.zeros(4))
    assert not suits(reads=other), "tokens before the last would see those behind them"
    assert not suits(packing=fill_texts(texts, 4, 20, 8, 20).packed().packing), "filler of prefixes would be seen"
    assert not suits(on_cuda(width=264)) and not suits(on_cuda(width=20)), "heads of other widths"
    assert not suits(value=on_cuda(width=32)), "values of another width than the keys"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not suits(), "a GPU before Ampere"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert suits()
    monkeypatch.setattr(varlen, "IS_NEW_ENOUGH", False)
    assert not suits(), "torch 2.11, whose kernel takes no window"
