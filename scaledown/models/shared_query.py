"""Causal compressors: the query is read once for all its documents, and every text is packed.

In a causal compressor the query comes first, so its keys and values are the same for all K documents. They are
computed once here and every document attends to them; positions go on from the query's own length. And in the
last layer only the memory and rerank positions need queries and feed-forward: the other tokens give keys and
values alone. Both are exact: same outputs, same gradients as reading ``[query][document][MEM]`` K times over. Texts of
different lengths are packed, so that no linear map ever runs on padding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scaledown.config import ScaleDownConfig
from scaledown.models.arithmetic import rms_norm
from scaledown.models.compressor import Compressor, CompressorInput, Embed
from scaledown.models.decoder_layer import KeysValues, Places, Rotary, block, keys_values
from scaledown.models.ragged import NEVER, Grid, slots


class SharedQueryCompressor(Compressor):
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
        special = len(texts.document_ids) * len(self._special_rows(num_memory))
        number = len(texts.query_slots) + len(texts.document_slots) + special
        return number, torch.tensor(number, device=texts.query_ids.device)

    def _read(self, texts: CompressorInput, embed: Embed, rows: Tensor) -> Tensor:
        queries = embed(texts.query_ids.flatten().index_select(0, texts.query_slots)).to(rows.dtype)
        tokens = embed(texts.document_ids.flatten().index_select(0, texts.document_slots)).to(rows.dtype)
        reader, at = self._reader(texts, queries, len(rows))
        documents = _placed(torch.cat([tokens, rows.repeat(len(texts.document_ids), 1)]), at)
        for layer in self.layers[:-1]:
            if self.gradient_checkpointing and self.training:
                queries, documents = checkpoint(reader.layer, layer, queries, documents, use_reentrant=False)
            else:
                queries, documents = reader.layer(layer, queries, documents)
        return reader.last_layer(self.layers[-1], queries, documents)

    def _reader(self, texts: CompressorInput, like: Tensor, num_special: int) -> tuple[_Reader, Tensor]:
        """Where all texts stand, and where packing puts documents: first all their tokens, then all special rows.

        Queries start at position 0. A document goes on from its query's own length, padding not counted, and its
        special rows follow directly; where padding is among the tokens, it comes behind them. Nothing is sorted: not
        every device can.
        """
        num_documents, text_size = texts.document_ids.shape
        size = text_size + num_special
        query_positions, is_token = slots(texts.query_lengths, texts.query_ids.shape[1])
        query_keys = query_positions.masked_fill(~is_token, NEVER)
        index, _ = slots(texts.document_lengths, size)
        positions = index + texts.query_lengths[texts.pair_query][:, None]
        keys = torch.cat([query_keys[texts.pair_query], positions], dim=1)

        pair = texts.document_slots.div(text_size, rounding_mode="floor")
        is_padding = texts.document_slots - pair * text_size >= texts.document_lengths[pair]
        text = texts.document_slots + (pair + is_padding) * num_special
        special = (texts.document_lengths[:, None] + index[:, :num_special]
                   + torch.arange(num_documents, device=index.device)[:, None] * size)
        counts = torch.zeros_like(texts.document_lengths).index_add(0, pair, torch.ones_like(pair))
        special_at = (special + (counts.cumsum(0) - counts
                                 - torch.arange(num_documents, device=index.device) * text_size)[:, None]).flatten()
        text_at = torch.arange(len(text), device=index.device) + text - texts.document_slots
        at = torch.cat([text_at, special_at])
        packed_slots = _placed(torch.cat([text, special.flatten()]), at)

        def rotary(places: Tensor, at: Tensor) -> Rotary:
            cos, sin = self.rotary(like, places.flatten().index_select(0, at)[None])
            return cos[0], sin[0]

        of_queries = Places(Grid.of(texts.query_slots, *texts.query_ids.shape),
                            rotary(query_positions, texts.query_slots), query_positions, None)
        of_documents = Places(Grid.of(packed_slots, num_documents, size),
                              rotary(positions, packed_slots), positions, keys)
        of_special = Places(Grid(None, num_documents, num_special),
                            rotary(positions, special.flatten()), positions.flatten()[special], keys)
        return _Reader(of_queries, of_documents, of_special, special_at, texts.pair_query), at


def _placed(rows: Tensor, at: Tensor) -> Tensor:
    """Rows (N, ...) in another order: each at its place in ``at`` (N,)."""
    return torch.empty_like(rows).index_copy(0, at, rows)


@dataclass(frozen=True)
class _Reader:
    """Runs layers over packed queries (Nq, D) and documents (Nd, D), each document attending to its query.

    Attributes:
        special: the memory (and rerank) rows alone, M to a document.
        special_at: (P * M,), which of the Nd packed tokens these are.
        pair_query: (P,), the query of each document.
    """

    queries: Places
    documents: Places
    special: Places
    special_at: Tensor
    pair_query: Tensor

    def layer(self, layer: nn.Module, queries: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
        """A whole layer."""
        normed_queries, normed_documents = (rms_norm(layer.input_layernorm, each) for each in (queries, documents))
        of_queries, of_documents = self._keys_values(layer, normed_queries, normed_documents)
        return (block(layer, queries, normed_queries, self.queries, *of_queries),
                block(layer, documents, normed_documents, self.documents, *of_documents))

    def last_layer(self, layer: nn.Module, queries: Tensor, documents: Tensor) -> Tensor:
        """The last layer, at each document's special rows alone: (P, M, D)."""
        normed = rms_norm(layer.input_layernorm, documents)
        _, of_documents = self._keys_values(layer, rms_norm(layer.input_layernorm, queries), normed)
        states = block(layer, documents.index_select(0, self.special_at), normed.index_select(0, self.special_at),
                       self.special, *of_documents)
        return states.unflatten(0, (self.special.grid.num_rows, self.special.grid.size))

    def _keys_values(self, layer: nn.Module, queries: Tensor, documents: Tensor) -> tuple[KeysValues, KeysValues]:
        """What queries attend to (themselves), and what documents attend to (their query, then themselves)."""
        of_queries = keys_values(layer.self_attn, queries, self.queries)
        own = keys_values(layer.self_attn, documents, self.documents)
        keys, values = (torch.cat([shared[self.pair_query], apart], dim=2)
                        for shared, apart in zip(of_queries, own, strict=True))
        return of_queries, (keys, values)
