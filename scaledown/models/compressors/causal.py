"""Causal compressors: decoders whose prefixes are read once for all that follows (paper, section 3.1).

Query first, the query is the prefix of all its documents. Document first, a document's keys and values can be kept
(:class:`scaledown.models.serving.store.DocumentStore`) and serve any query. Either way it is exact: the same outputs
and gradients as reading every query with every document.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models import decoder
from scaledown.models.compressors.base import Compressor, Embed
from scaledown.models.packing import KeysValues, PackedTexts
from scaledown.models.positions import position_limit


class CausalCompressor(Compressor):
    """Reads with a decoder of its own; subclasses say which, and what token embeddings go in.

    Args:
        config: the model's settings.
        body: a decoder without its head, which nobody else trains.
        table: token embeddings (V, width) of the texts that it reads.
        generator_table: token embeddings (V, D) of the generator that reads the memory.

    Raises:
        ValueError: if the decoder cannot read packed texts.
    """

    def __init__(self, config: ScaleDownConfig, body: PreTrainedModel, table: Tensor, generator_table: Tensor) -> None:
        super().__init__(config, table, generator_table)
        self.body = body.float().requires_grad_(True)
        decoder.register(self.body)
        self.position_limit = position_limit(self.body)

    def gradient_checkpointing_enable(self) -> None:
        """Compute the layers' activations twice in training; the last layer's are few and stay."""
        decoder.checkpoint_activations(self.body)

    def stored_name(self, name: str) -> str:
        """Checkpoints know the decoder's parameters without the name of the decoder."""
        return name.removeprefix("body.")

    @torch.no_grad()
    def read_prefixes(self, texts: PackedTexts, embed: Embed) -> list[KeysValues]:
        """Return the keys and values (R, G, T, W) of prefixes, by layer, for texts that continue them later."""
        keep: dict[int, KeysValues] = {}
        decoder.read(self.body, self._tokens(texts.ids, embed), texts.packing, None, keep)
        return [keep[layer] for layer in range(len(self.body.layers))]

    def _read(self, texts: PackedTexts, embed: Embed, special: Tensor) -> Tensor:
        tokens = self._tokens(texts.ids, embed)                               # (N, width)
        embeddings = tokens.index_copy(0, texts.reads.at, special.to(tokens.dtype))
        return decoder.read(self.body, embeddings, texts.packing, texts.reads)

    def _tokens(self, ids: Tensor, embed: Embed) -> Tensor:
        """Return the embeddings (N, width) of the tokens that the layers read."""
        return embed(ids).to(self.memory_rows.dtype)
