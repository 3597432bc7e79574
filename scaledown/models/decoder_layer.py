"""One decoder layer, taken apart: keys and values here, attention and feed-forward there.

The layers are transformers' own (Llama, Mistral, Qwen2, Qwen3, which share one layout); only the order of the work
is ours, so that keys and values can come from elsewhere and be computed for more tokens than are read. Tokens come
packed, without padding (N, D), and every linear map runs on them as they are; attention alone sees padded texts. It
goes by position, never by slot.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scaledown.models.ragged import Grid, visible

Rotary = tuple[Tensor, Tensor]
KeysValues = tuple[Tensor, Tensor]


class Places(NamedTuple):
    """Where packed tokens stand, and what they see.

    Attributes:
        grid: where each of the N tokens is among R padded texts of T slots.
        rotary: cosines and sines (N, head width) of the tokens.
        positions: (R, T), of each slot.
        key_positions: (R, S), of the keys that a text sees; a padded key's is ``ragged.NEVER``.
    """

    grid: Grid
    rotary: Rotary
    positions: Tensor
    key_positions: Tensor


def keys_values(attention: nn.Module, normed: Tensor, places: Places) -> KeysValues:
    """Keys and values (R, key heads, T, head width), padded, of normed packed states (N, D)."""
    keys = _heads(attention, attention.k_proj(normed), getattr(attention, "k_norm", None))
    values = _heads(attention, attention.v_proj(normed))
    return places.grid.pad(_rotate(keys, places.rotary)), places.grid.pad(values)


def block(layer: nn.Module, hidden: Tensor, normed: Tensor, places: Places, keys: Tensor, values: Tensor) -> Tensor:
    """Attention over keys and values that are there already, then the feed-forward: (N, D) to (N, D).

    ``normed`` is ``hidden`` after the layer's input norm, which the caller has at hand from the keys.
    """
    attention = layer.self_attn
    queries = _heads(attention, attention.q_proj(normed), getattr(attention, "q_norm", None))
    # Grouped keys are repeated here: with a mask, CUDA's fast kernels take no grouped heads.
    groups = attention.num_key_value_groups
    read = F.scaled_dot_product_attention(
        places.grid.pad(_rotate(queries, places.rotary)), keys.repeat_interleave(groups, dim=1),
        values.repeat_interleave(groups, dim=1),
        attn_mask=visible(places.positions, places.key_positions, _window(attention)),
        dropout_p=attention.attention_dropout if attention.training else 0.0, scale=attention.scaling)
    hidden = hidden + attention.o_proj(places.grid.pack(read))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _heads(attention: nn.Module, projected: Tensor, norm: nn.Module | None = None) -> Tensor:
    """(N, heads * head width) to (N, heads, head width); Qwen3 norms each head."""
    heads = projected.unflatten(-1, (-1, attention.head_dim))
    return heads if norm is None else norm(heads)


def _rotate(states: Tensor, rotary: Rotary) -> Tensor:
    """Rotary position embedding of (N, heads, head width)."""
    cos, sin = (angles[:, None] for angles in rotary)
    first, second = states.chunk(2, dim=-1)
    return (states * cos + torch.cat([-second, first], dim=-1) * sin).to(states.dtype)


def _window(attention: nn.Module) -> int | None:
    """How far back a layer sees: Qwen says it layer by layer, Mistral for all layers at once, Llama not at all."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    return getattr(attention.config, "sliding_window", None)
