"""One decoder layer, taken apart: keys and values here, attention and feed-forward there.

The layers are transformers' own (Llama, Mistral, Qwen2, Qwen3, which share one layout); only the order of the work
is ours, so that keys and values can come from elsewhere and be computed for more tokens than are read. Tokens come
packed, without padding (N, D), and every linear map runs on them as they are; attention alone sees padded texts. It
goes by position, never by slot.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scaledown.models.arithmetic import gated, rms_norm, rotated
from scaledown.models.ragged import Grid, visible

Rotary = tuple[Tensor, Tensor]
KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Places:
    """Where packed tokens stand, and what they see.

    Attributes:
        grid: where each of the N tokens is among R padded texts of T slots.
        rotary: cosines and sines (N, head width) of the tokens.
        positions: (R, T) of each slot, or (1, T) where all texts have the same.
        key_positions: (R, S) of the keys that a text sees, a padded key's being ``ragged.NEVER``; None for texts that
            start at position 0 and see themselves alone: there padding on the right is never seen, and the fastest
            attention applies.
    """

    grid: Grid
    rotary: Rotary
    positions: Tensor
    key_positions: Tensor | None
    _masks: dict[tuple[int | None, torch.dtype, int], Tensor] = field(default_factory=dict)

    def only(self, at: Tensor) -> Places:
        """The same texts, for some of their tokens: ``at`` (A,) numbers packed tokens."""
        cos, sin = self.rotary
        return replace(self, grid=self.grid.only(at), rotary=(cos.index_select(0, at), sin.index_select(0, at)))

    def mask(self, window: int | None, dtype: torch.dtype, groups: int) -> Tensor | None:
        """0 where a query sees a key, else very low, ``groups`` times over (R, 1, groups * T, S); None: plainly causal.

        Made once for all layers of a kind.
        """
        size = self.positions.shape[1]
        if self.key_positions is None and (window is None or size <= window):
            return None
        kind = (window, dtype, groups)
        if kind not in self._masks:
            keys = self.positions if self.key_positions is None else self.key_positions
            seen = visible(self.positions, keys, window)
            hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            hidden.masked_fill_(~seen, torch.finfo(dtype).min)
            self._masks[kind] = hidden.repeat(1, 1, groups, 1)
        return self._masks[kind]


def keys_values(attention: nn.Module, normed: Tensor, places: Places) -> KeysValues:
    """Keys and values (R, key heads, T, head width), padded, of normed packed states (N, D)."""
    keys = _heads(attention, attention.k_proj(normed), getattr(attention, "k_norm", None))
    values = _heads(attention, attention.v_proj(normed))
    return places.grid.pad(rotated(keys, *places.rotary)), places.grid.pad(values)


def block(layer: nn.Module, hidden: Tensor, normed: Tensor, places: Places, keys: Tensor, values: Tensor) -> Tensor:
    """Attention over keys and values that are there already, then the feed-forward: (N, D) to (N, D).

    ``normed`` is ``hidden`` after the layer's input norm, which the caller has at hand from the keys.
    """
    attention, mlp = layer.self_attn, layer.mlp
    queries = _heads(attention, attention.q_proj(normed), getattr(attention, "q_norm", None))
    read = _attend(attention, places.grid.pad(rotated(queries, *places.rotary)), keys, values, places)
    hidden = hidden + attention.o_proj(places.grid.pack(read))
    normed = rms_norm(layer.post_attention_layernorm, hidden)
    return hidden + mlp.down_proj(gated(mlp.act_fn, mlp.gate_proj(normed), mlp.up_proj(normed)))


def _attend(attention: nn.Module, queries: Tensor, keys: Tensor, values: Tensor, places: Places) -> Tensor:
    """Queries (R, H, T, W) over keys and values (R, key heads, S, W): (R, H, T, W).

    Behind a mask the heads of a group stand in line as one long text (R, key heads, groups * T, W), so that no key is
    ever repeated.
    """
    groups = attention.num_key_value_groups
    mask = places.mask(_window(attention), queries.dtype, groups)
    settings = {"scale": attention.scaling, "dropout_p": attention.attention_dropout if attention.training else 0.0}
    if mask is None:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=groups > 1, **settings)
    in_line = queries.reshape(len(queries), -1, groups * queries.shape[2], queries.shape[3])
    read = F.scaled_dot_product_attention(in_line, keys, values, attn_mask=mask, **settings)
    return read.reshape(queries.shape)


def _heads(attention: nn.Module, projected: Tensor, norm: nn.Module | None = None) -> Tensor:
    """(N, heads * head width) to (N, heads, head width); Qwen3 norms each head."""
    heads = projected.unflatten(-1, (-1, attention.head_dim))
    return heads if norm is None else rms_norm(norm, heads)


def _window(attention: nn.Module) -> int | None:
    """How far back a layer sees: Qwen says it layer by layer, Mistral for all layers at once, Llama not at all."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    return getattr(attention.config, "sliding_window", None)
