"""Causal compressors: what comes first is read once for all that follows it, and every text is packed.

In a causal compressor what is read first cannot see what follows, so its keys and values are the same whatever
follows. With the query first they are computed once for all K documents; with the document first they can be kept, and
serve any query (:mod:`scaledown.models.document_store`). Positions go on from the first text's own length. And in the
last layer only the memory and rerank positions need queries and feed-forward: the other tokens give keys and values
alone. All of it is exact: same outputs, same gradients as reading the whole input for each document. Texts of
different lengths are packed, so that no linear map ever runs on padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scaledown.config import ScaleDownConfig
from scaledown.models.arithmetic import rms_norm
from scaledown.models.compressor import Compressed, Compressor, CompressorInput, Embed
from scaledown.models.decoder_layer import KeysValues, Places, Rotary, block, keys_values
from scaledown.models.ragged import NEVER, Grid, slots


class CausalCompressor(Compressor):
    """Reads with decoder layers of its own; subclasses say whose they are and what token embeddings go in.

    Args:
        config: the model's settings.
        layers: decoder layers of the Llama, Mistral or Qwen layout, which nobody else trains.
        rotary: their rotary embedding, as transformers' own.
        table: token embeddings (V, width) of the texts that the layers read.
        generator_table: token embeddings (V, D) of the generator that reads the memory.
    """

    def __init__(self, config: ScaleDownConfig, layers: Iterable[nn.Module], rotary: nn.Module, table: Tensor,
                 generator_table: Tensor) -> None:
        super().__init__(config, table, generator_table)
        self.layers = nn.ModuleList(layers).float().requires_grad_(True)
        self.rotary = rotary
        self.gradient_checkpointing = False

    def gradient_checkpointing_enable(self) -> None:
        """Compute the layers' activations twice in training; the last layer's are few and stay."""
        self.gradient_checkpointing = True

    def num_tokens(self, texts: CompressorInput, num_memory: int | None = None) -> tuple[int, Tensor]:
        """None of its tokens is padding."""
        special = len(texts.second_ids) * len(self._special_rows(num_memory))
        number = len(texts.first_slots) + len(texts.second_slots) + special
        return number, torch.tensor(number, device=texts.first_ids.device)

    def read_first(self, texts: CompressorInput, embed: Embed) -> list[KeysValues]:
        """The keys and values (R, key heads, T, head width) of the first texts, layer by layer: see :meth:`follow`."""
        first = self._packed(texts.first_ids, texts.first_slots, embed)
        places, found = self._first_places(texts, first), []
        for layer in self.layers[:-1]:
            normed = rms_norm(layer.input_layernorm, first)
            found.append(keys_values(layer.self_attn, normed, places))
            first = block(layer, first, normed, places, *found[-1])
        last = self.layers[-1]
        return [*found, keys_values(last.self_attn, rms_norm(last.input_layernorm, first), places)]

    def follow(self, texts: CompressorInput, read: Sequence[KeysValues], embed: Embed,
               num_memory: int | None = None) -> Compressed:
        """As :meth:`forward`, where :meth:`read_first` has read the first texts: only what follows is computed."""
        rows = self._special_rows(num_memory)
        reader, second = self._reader(texts, embed, rows)
        for layer, of_first in zip(self.layers[:-1], read[:-1], strict=True):
            second = reader.layer(layer, second, of_first)
        return self._finish(self._last(reader.last_layer(self.layers[-1], second, read[-1])), num_memory)

    def _read(self, texts: CompressorInput, embed: Embed, rows: Tensor) -> Tensor:
        first = self._packed(texts.first_ids, texts.first_slots, embed)
        places = self._first_places(texts, first)
        reader, second = self._reader(texts, embed, rows)

        def both(layer: nn.Module, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
            normed = rms_norm(layer.input_layernorm, first)
            of_first = keys_values(layer.self_attn, normed, places)
            return block(layer, first, normed, places, *of_first), reader.layer(layer, second, of_first)

        for layer in self.layers[:-1]:
            if self.gradient_checkpointing and self.training:
                first, second = checkpoint(both, layer, first, second, use_reentrant=False)
            else:
                first, second = both(layer, first, second)
        last = self.layers[-1]
        of_first = keys_values(last.self_attn, rms_norm(last.input_layernorm, first), places)
        return self._last(reader.last_layer(last, second, of_first))

    def _tokens(self, embed: Embed) -> Embed:
        """What embeds the tokens that the layers read: the generator's ``embed``, or embeddings of their own."""
        return embed

    def _last(self, states: Tensor) -> Tensor:
        """What becomes of the last layer's states."""
        return states

    def _packed(self, ids: Tensor, at: Tensor, embed: Embed) -> Tensor:
        """Embeddings (N, width) of the tokens that stand in the slots ``at`` (N,) of padded ids."""
        return self._tokens(embed)(ids.flatten().index_select(0, at)).to(self.memory_rows.dtype)

    def _first_places(self, texts: CompressorInput, like: Tensor) -> Places:
        """Where the first texts stand: from position 0 on, each seeing itself alone."""
        positions, _ = slots(texts.first_lengths, texts.first_ids.shape[1])
        return Places(Grid.of(texts.first_slots, *texts.first_ids.shape),
                      self._rotary(like, positions, texts.first_slots), positions, None)

    def _rotary(self, like: Tensor, positions: Tensor, at: Tensor) -> Rotary:
        cos, sin = self.rotary(like, positions.flatten().index_select(0, at)[None])
        return cos[0], sin[0]

    def _reader(self, texts: CompressorInput, embed: Embed, rows: Tensor) -> tuple[_Reader, Tensor]:
        """Where second texts and the ``rows`` behind them stand, and all their embeddings, packed.

        A second text goes on from its first text's own length, padding not counted, and its special rows follow
        directly; where padding is among the tokens, it comes behind them. Nothing is sorted: not every device can.
        """
        num_second, text_size = texts.second_ids.shape
        num_special, size = len(rows), text_size + len(rows)
        first_positions, is_token = slots(texts.first_lengths, texts.first_ids.shape[1])
        first_keys = first_positions.masked_fill(~is_token, NEVER)
        index, _ = slots(texts.second_lengths, size)
        positions = index + texts.first_lengths[texts.pair_first][:, None]
        keys = torch.cat([first_keys[texts.pair_first], positions], dim=1)

        packing = _Packing.of(texts, num_special)
        packed_slots, special = packing.apply(torch.cat([packing.text, packing.special])), packing.special
        tokens = self._packed(texts.second_ids, texts.second_slots, embed)
        packed = packing.apply(torch.cat([tokens, rows.repeat(num_second, 1)]))
        of_second = Places(Grid.of(packed_slots, num_second, size), self._rotary(packed, positions, packed_slots),
                           positions, keys)
        of_special = Places(Grid(None, num_second, num_special), self._rotary(packed, positions, special),
                            positions.flatten()[special].unflatten(0, (num_second, num_special)), keys)
        return _Reader(of_second, of_special, packing.special_at, texts.pair_first), packed


@dataclass(frozen=True)
class _Packing:
    """How second texts (N tokens) and the special rows behind each (P * M) become one packed sequence.

    Attributes:
        text: (N,), the slot of each token among P rows that have room for the special ones too.
        special: (P * M,), the slots of the special rows.
        text_at: (N,), the place of each token in the packed sequence.
        special_at: (P * M,), the places of the special rows.
    """

    text: Tensor
    special: Tensor
    text_at: Tensor
    special_at: Tensor

    @classmethod
    def of(cls, texts: CompressorInput, num_special: int) -> _Packing:
        """Everything in ascending order of its slot."""
        (num_second, text_size), device = texts.second_ids.shape, texts.second_ids.device
        lengths, number = texts.second_lengths, torch.arange(num_second, device=device)
        pair = texts.second_slots.div(text_size, rounding_mode="floor")
        is_padding = texts.second_slots - pair * text_size >= lengths[pair]
        room = (pair + is_padding) * num_special
        special = (lengths + number * (text_size + num_special))[:, None] + torch.arange(num_special, device=device)
        counts = torch.zeros_like(lengths).index_add(0, pair, torch.ones_like(pair))
        special_at = special + (counts.cumsum(0) - counts - number * text_size)[:, None]
        return cls(texts.second_slots + room, special.flatten(), torch.arange(len(room), device=device) + room,
                   special_at.flatten())

    def apply(self, rows: Tensor) -> Tensor:
        """Rows (N + P * M, ...), those of texts before the special ones, as they are packed."""
        return torch.empty_like(rows).index_copy(0, torch.cat([self.text_at, self.special_at]), rows)


@dataclass(frozen=True)
class _Reader:
    """Runs layers over packed second texts (N, D), each of which attends to its first text and to itself.

    Attributes:
        second: the texts with their special rows.
        special: the memory (and rerank) rows alone, M to a text.
        special_at: (P * M,), which of the N packed tokens these are.
        pair_first: (P,), the first text of each.
    """

    second: Places
    special: Places
    special_at: Tensor
    pair_first: Tensor

    def layer(self, layer: nn.Module, second: Tensor, of_first: KeysValues) -> Tensor:
        """A whole layer."""
        normed = rms_norm(layer.input_layernorm, second)
        return block(layer, second, normed, self.second, *self._seen(layer, normed, of_first))

    def last_layer(self, layer: nn.Module, second: Tensor, of_first: KeysValues) -> Tensor:
        """The last layer, at each text's special rows alone: (P, M, D)."""
        normed = rms_norm(layer.input_layernorm, second)
        seen = self._seen(layer, normed, of_first)
        states = block(layer, second.index_select(0, self.special_at), normed.index_select(0, self.special_at),
                       self.special, *seen)
        return states.unflatten(0, (self.special.grid.num_rows, self.special.grid.size))

    def _seen(self, layer: nn.Module, normed: Tensor, of_first: KeysValues) -> KeysValues:
        """The keys and values that second texts attend to: those of their first text, then their own."""
        own = keys_values(layer.self_attn, normed, self.second)
        keys, values = (torch.cat([shared[self.pair_first], apart], dim=2)
                        for shared, apart in zip(of_first, own, strict=True))
        return keys, values
