"""One decoder layer, taken apart: keys and values here, attention and feed-forward there.

The layers are transformers' own (Llama, Mistral, Qwen2, Qwen3, which share one layout); only the order of the work
is ours, so that keys and values can come from elsewhere and be computed for more tokens than are read. Attention
goes by position, never by slot, so padding may lie anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scaledown.models.ragged import take, visible

Rotary = tuple[Tensor, Tensor]
KeysValues = tuple[Tensor, Tensor]


class Places(NamedTuple):
    """Where texts stand: the rotary angles and positions of their tokens, and the positions of the keys they read.

    Attributes:
        rotary: cosines and sines (N, T, head width).
        positions: (N, T).
        key_positions: (N, S); a padded key's is ``ragged.NEVER``.
    """

    rotary: Rotary
    positions: Tensor
    key_positions: Tensor

    def at(self, slots: Tensor) -> Places:
        """The places of the tokens in ``slots`` (N, M) alone."""
        cos, sin = self.rotary
        return Places((take(cos, slots), take(sin, slots)), self.positions.gather(1, slots), self.key_positions)


def keys_values(attention: nn.Module, normed: Tensor, rotary: Rotary) -> KeysValues:
    """Keys and values (N, key heads, T, head width) of normed states (N, T, D)."""
    keys = _heads(attention, attention.k_proj(normed), getattr(attention, "k_norm", None))
    return _rotate(keys, rotary), _heads(attention, attention.v_proj(normed))


def block(layer: nn.Module, hidden: Tensor, normed: Tensor, places: Places, keys: Tensor, values: Tensor) -> Tensor:
    """Attention over keys and values that are there already, then the feed-forward: (N, T, D) to (N, T, D).

    ``normed`` is ``hidden`` after the layer's input norm, which the caller has at hand from the keys.
    """
    attention = layer.self_attn
    queries = _rotate(_heads(attention, attention.q_proj(normed), getattr(attention, "q_norm", None)), places.rotary)
    # Grouped keys are repeated here: with a mask, CUDA's fast kernels take no grouped heads.
    groups = attention.num_key_value_groups
    read = F.scaled_dot_product_attention(
        queries, keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1),
        attn_mask=visible(places.positions, places.key_positions, _window(attention)),
        dropout_p=attention.attention_dropout if attention.training else 0.0, scale=attention.scaling)
    hidden = hidden + attention.o_proj(read.transpose(1, 2).flatten(2))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _heads(attention: nn.Module, projected: Tensor, norm: nn.Module | None = None) -> Tensor:
    """(N, T, heads * head width) to (N, heads, T, head width); Qwen3 norms each head."""
    heads = projected.unflatten(-1, (-1, attention.head_dim))
    return (heads if norm is None else norm(heads)).transpose(1, 2)


def _rotate(states: Tensor, rotary: Rotary) -> Tensor:
    """Rotary position embedding of (N, heads, T, head width)."""
    cos, sin = (angles[:, None] for angles in rotary)
    first, second = states.chunk(2, dim=-1)
    return (states * cos + torch.cat([-second, first], dim=-1) * sin).to(states.dtype)


def _window(attention: nn.Module) -> int | None:
    """How far back a layer sees: Qwen says it layer by layer, Mistral for all layers at once, Llama not at all."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    return getattr(attention.config, "sliding_window", None)
