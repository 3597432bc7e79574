"""Packed attention on CUDA: one call for texts of all lengths, without mask and without padding.

``varlen_attn`` of PyTorch (flash attention) takes cumulative lengths. A text's queries are its own tokens; its keys are
those of its prefix, then its own. Causality is aligned to the last key, so a suffix sees all of its prefix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from scaledown.models.packing import NEVER, Packing, Reads, Rows

DTYPES = (torch.float16, torch.bfloat16)
"""What flash attention computes in."""
WIDEST_HEAD, HEAD_STEP = 256, 8
"""It knows heads of up to so many numbers, in such steps."""
FIRST_CAPABILITY = (8, 0)
"""GPUs before Ampere have no flash attention."""


def suits(query: Tensor, value: Tensor, packing: Packing, reads: Reads | None, scaling: float | None, dropout: float,
          softcap: float | None, sinks: Tensor | None) -> bool:
    """Whether ``varlen_attn`` can attend so: on CUDA in half precision, without what it does not know."""
    if query.device.type != "cuda" or torch.cuda.get_device_capability(query.device) < FIRST_CAPABILITY:
        return False
    width = query.shape[-1]
    has_known_heads = width <= WIDEST_HEAD and width % HEAD_STEP == 0 and value.shape[-1] == width
    return (query.dtype in DTYPES and has_known_heads and not dropout and softcap is None and sinks is None
            and not packing.has_filler and (reads is None or reads.are_last))


def attend(query: Tensor, key: Tensor, value: Tensor, packing: Packing, reads: Reads | None, layer: int,
           scaling: float | None, window: int | None) -> Tensor:
    """Attend: (N, H, W) queries, (N, G, W) keys and values to (N, H, W); queries of ``reads`` are (M, H, W)."""
    prefixes, suffixes = (packing.prefixes, packing.suffixes) if reads is None else (reads.prefixes, reads.suffixes)
    prefix_keys, suffix_keys = _lengths(packing.prefixes), _lengths(packing.suffixes)
    suffix_keys = suffix_keys + prefix_keys.index_select(0, packing.prefix)
    keys_at = packing.keys_at

    if packing.stored is None:
        query_lengths = torch.cat([_lengths(prefixes), _lengths(suffixes)])
        key_lengths = torch.cat([prefix_keys, suffix_keys])
    else:
        # The prefixes are not read again, but what they left behind is seen.
        query_lengths, key_lengths = _lengths(suffixes), suffix_keys
        keys_at = keys_at[packing.prefixes.num_tokens:]
        key, value = (torch.cat([packing.prefixes.pack(before), own])
                      for before, own in zip(packing.stored[layer], (key, value), strict=True))

    # Upper bounds suffice, and are known without asking the device.
    longest_query = max(prefixes.positions.shape[1], suffixes.positions.shape[1])
    longest_key = packing.prefixes.positions.shape[1] + packing.suffixes.positions.shape[1]
    return varlen_attn(query, key.index_select(0, keys_at), value.index_select(0, keys_at), _cumulative(query_lengths),
                       _cumulative(key_lengths), longest_query, longest_key, scale=scaling,
                       window_size=(-1 if window is None else window - 1, 0), enable_gqa=query.shape[1] > key.shape[1])


def _lengths(rows: Rows) -> Tensor:
    return (rows.positions != NEVER).sum(1)


def _cumulative(lengths: Tensor) -> Tensor:
    """Lengths (S,) to where each text starts, and the end: (S + 1,)."""
    return F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
