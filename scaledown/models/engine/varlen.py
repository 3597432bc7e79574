"""Packed attention on CUDA: one call for texts of all lengths, without mask and without padding.

PyTorch's ``varlen_attn`` (flash attention) takes cumulative lengths. A text's queries are its own tokens; its keys are
those of its prefix, then its own. Causality is aligned to the last key, so a suffix sees all of its prefix.
"""

from __future__ import annotations

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from scaledown.models.engine.packing import NEVER, Packing, Padding, Reads

DTYPES = (torch.float16, torch.bfloat16)
"""The types that flash attention computes in."""
WIDEST_HEAD, HEAD_STEP = 256, 8
"""Widths of heads that flash attention has kernels for: multiples of 8 up to 256."""
FIRST_CAPABILITY = (8, 0)
"""GPUs before Ampere have no flash attention."""
IS_NEW_ENOUGH = inspect.signature(varlen_attn).parameters.keys() >= {"scale", "window_size", "enable_gqa"}
"""In torch 2.11 ``varlen_attn`` lacks settings that are needed here; attention is padded there."""


def suits(query: Tensor, value: Tensor, packing: Packing, reads: Reads | None, scaling: float | None, dropout: float,
          softcap: float | None, sinks: Tensor | None) -> bool:
    """Return whether ``varlen_attn`` can compute this attention: on CUDA, in half precision, without extras."""
    if not IS_NEW_ENOUGH or query.device.type != "cuda":
        return False
    if torch.cuda.get_device_capability(query.device) < FIRST_CAPABILITY:
        return False

    width, dtype = query.shape[-1], _computed_in(query)
    has_kernel = width <= WIDEST_HEAD and width % HEAD_STEP == 0 and value.shape[-1] == width and dtype in DTYPES
    is_plain = not dropout and softcap is None and sinks is None

    # Its causality is aligned to the last key: queries before the last tokens would see what follows them.
    ends_align = not packing.has_filler and (reads is None or reads.are_last)
    return has_kernel and is_plain and ends_align


def attend(query: Tensor, key: Tensor, value: Tensor, packing: Packing, reads: Reads | None, layer: int,
           scaling: float | None, window: int | None) -> Tensor:
    """Attend: (N, H, W) queries, (N, G, W) keys and values to (N, H, W); queries of ``reads`` are (M, H, W)."""
    prefixes, suffixes = (packing.prefixes, packing.suffixes) if reads is None else (reads.prefixes, reads.suffixes)
    prefix_keys, suffix_keys = _lengths(packing.prefixes), _lengths(packing.suffixes)      # (R,), (P,)
    suffix_keys = suffix_keys + prefix_keys.index_select(0, packing.prefix)
    keys_at = packing.keys_at

    if packing.stored is None:
        query_lengths = torch.cat([_lengths(prefixes), _lengths(suffixes)])                # (R + P,)
        key_lengths = torch.cat([prefix_keys, suffix_keys])
    else:
        # Only suffixes are read; the stored keys of the prefixes come before theirs.
        query_lengths, key_lengths = _lengths(suffixes), suffix_keys
        keys_at = keys_at[packing.prefixes.num_tokens:]
        stored_key, stored_value = packing.stored_of(layer, key, value)                    # (R, G, T1, W)
        key = torch.cat([packing.prefixes.pack(stored_key), key])
        value = torch.cat([packing.prefixes.pack(stored_value), value])

    # Upper bounds suffice, and are known without waiting for the device.
    longest_query = max(prefixes.positions.shape[1], suffixes.positions.shape[1])
    longest_key = packing.prefixes.positions.shape[1] + packing.suffixes.positions.shape[1]

    dtype, window_size = _computed_in(query), (-1 if window is None else window - 1, 0)
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    return varlen_attn(query, key.index_select(0, keys_at), value.index_select(0, keys_at), _starts(query_lengths),
                       _starts(key_lengths), longest_query, longest_key, scale=scaling, window_size=window_size,
                       enable_gqa=query.shape[1] > key.shape[1])


def _computed_in(query: Tensor) -> torch.dtype:
    """Return the number format that attention computes in.

    A compressor's states are in float32, and so are its queries and keys after their rotary positions. Autocast rounds
    them for torch's own attention, but does not know ``varlen_attn``.
    """
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


def _lengths(texts: Padding) -> Tensor:
    return (texts.positions != NEVER).sum(1)


def _starts(lengths: Tensor) -> Tensor:
    """Return where each text starts, and the end: lengths (S,) to (S + 1,)."""
    return F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
