"""Causal compressors: the query is read once for all its documents, and every text is packed.

In a causal compressor the query comes first, so its keys and values are the same for all K documents. They are
computed once here and every document attends to them; positions go on from the query's own length. And in the
last layer only the memory and rerank positions need queries and feed-forward: the other tokens give keys and
values alone. Both are exact: same outputs, same gradients as reading ``[query][document][MEM]`` K times over. Texts of
different lengths are packed, so that no linear map ever runs on padding.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scaledown.config import ScaleDownConfig
from scaledown.models.compressor import Compressor, CompressorInput, Embed
from scaledown.models.decoder_layer import KeysValues, Places, block, keys_values
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
        documents = embed(texts.document_ids.flatten().index_select(0, texts.document_slots)).to(rows.dtype)
        documents = torch.cat([documents, rows.repeat(len(texts.document_ids), 1)])
        reader = _Reader(*self._places(texts, queries, documents, len(rows)), texts.pair_query)
        for layer in self.layers[:-1]:
            if self.gradient_checkpointing and self.training:
                queries, documents = checkpoint(reader.layer, layer, queries, documents, use_reentrant=False)
            else:
                queries, documents = reader.layer(layer, queries, documents)
        return reader.last_layer(self.layers[-1], queries, documents, len(rows))

    def _places(self, texts: CompressorInput, queries: Tensor, documents: Tensor,
                num_special: int) -> tuple[Places, Places]:
        """Queries start at position 0; a document goes on from its query's own length, padding not counted.

        Packed documents are all the documents' tokens first, then each document's special rows.
        """
        query_positions, is_token = slots(texts.query_lengths, texts.query_ids.shape[1])
        query_keys = query_positions.masked_fill(~is_token, NEVER)
        num_documents, text_size = texts.document_ids.shape
        size = text_size + num_special
        index, _ = slots(texts.document_lengths, size)
        positions = index + texts.query_lengths[texts.pair_query][:, None]
        keys = torch.cat([query_keys[texts.pair_query], positions], dim=1)
        first = torch.arange(num_documents, device=index.device) * size
        special = (first + texts.document_lengths)[:, None] + torch.arange(num_special, device=index.device)
        text = texts.document_slots + texts.document_slots.div(text_size, rounding_mode="floor") * num_special
        return (self._place(Grid(texts.query_slots, *texts.query_ids.shape), queries, query_positions, query_keys),
                self._place(Grid(torch.cat([text, special.flatten()]), num_documents, size), documents, positions,
                            keys))

    def _place(self, grid: Grid, states: Tensor, positions: Tensor, key_positions: Tensor) -> Places:
        cos, sin = self.rotary(states, positions.flatten().index_select(0, grid.slots)[None])
        return Places(grid, (cos[0], sin[0]), positions, key_positions)


class _Reader:
    """Runs layers over packed queries (Nq, D) and documents (Nd, D), each document attending to its query."""

    def __init__(self, query_places: Places, document_places: Places, pair_query: Tensor) -> None:
        self._query_places, self._document_places = query_places, document_places
        self._pair_query = pair_query

    def layer(self, layer: nn.Module, queries: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
        """A whole layer."""
        normed_queries, normed_documents = layer.input_layernorm(queries), layer.input_layernorm(documents)
        of_queries, of_documents = self._keys_values(layer, normed_queries, normed_documents)
        return (block(layer, queries, normed_queries, self._query_places, *of_queries),
                block(layer, documents, normed_documents, self._document_places, *of_documents))

    def last_layer(self, layer: nn.Module, queries: Tensor, documents: Tensor, num_special: int) -> Tensor:
        """The last layer, at each document's ``num_special`` rows M alone: (P, M, D)."""
        normed = layer.input_layernorm(documents)
        _, of_documents = self._keys_values(layer, layer.input_layernorm(queries), normed)
        places, num_rows = self._document_places, self._document_places.grid.num_rows
        special = slice(len(documents) - num_rows * num_special, len(documents))
        at = places.grid.slots[special]
        grid = Grid(torch.arange(len(at), device=at.device), num_rows, num_special)
        cos, sin = places.rotary
        special_places = Places(grid, (cos[special], sin[special]),
                                places.positions.flatten().index_select(0, at).view(num_rows, num_special),
                                places.key_positions)
        states = block(layer, documents[special], normed[special], special_places, *of_documents)
        return states.unflatten(0, (num_rows, num_special))

    def _keys_values(self, layer: nn.Module, queries: Tensor, documents: Tensor) -> tuple[KeysValues, KeysValues]:
        """What queries attend to (themselves), and what documents attend to (their query, then themselves)."""
        of_queries = keys_values(layer.self_attn, queries, self._query_places)
        own = keys_values(layer.self_attn, documents, self._document_places)
        keys, values = (torch.cat([shared[self._pair_query], apart], dim=2)
                        for shared, apart in zip(of_queries, own, strict=True))
        return of_queries, (keys, values)
