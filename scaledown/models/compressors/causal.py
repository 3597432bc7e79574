"""Causal compressors: decoders, which read a shared prefix once for all texts that continue it (paper, section 3.1).

If the query comes first, it is the prefix of all its documents. If the document comes first, its keys and values can be
stored (:class:`scaledown.models.serving.store.DocumentStore`) and serve any query. Both are exact: the outputs and
gradients are the same as if every query were read with every document.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.compressors.base import Compressor, Embed, prepare_training
from scaledown.models.engine import decoder
from scaledown.models.engine.packing import KeysValues, PackedTexts
from scaledown.models.engine.positions import position_limit


class CausalCompressor(Compressor):
    """Reads with a decoder; subclasses choose it, and the token embeddings that it reads.

    Args:
        config: the model's settings.
        body: a decoder without its head; the compressor trains it, or adds LoRA to it.
        table: token embeddings (V, width) of the texts that it reads.
        generator_table: token embeddings (V, D) of the generator that reads the memory.

    Raises:
        ValueError: if the decoder cannot read packed texts.
    """

    def __init__(self, config: ScaleDownConfig, body: PreTrainedModel, table: Tensor, generator_table: Tensor) -> None:
        super().__init__(config, table, generator_table)
        self.body = body
        prepare_training(config, body)
        decoder.register(body)

        self.position_limit = position_limit(body)

    def gradient_checkpointing_enable(self) -> None:
        """Compute the layers' activations twice in training, except the last layer's, which are few."""
        decoder.checkpoint_activations(self.body)

    def stored_name(self, name: str) -> str:
        """Return the name in checkpoints, which leave out that of the decoder."""
        return name.removeprefix("body.")

    @torch.no_grad()
    def read_prefixes(self, texts: PackedTexts, embed: Embed) -> list[KeysValues]:
        """Return the keys and values (R, G, T, W) of prefixes, by layer, for texts that continue them later.

        R prefixes, padded to T tokens; G key heads of width W.
        """
        keys_values: dict[int, KeysValues] = {}
        # No final states are wanted (None): of the last layer only keys and values are computed.
        decoder.read(self.body, self._tokens(texts.ids, embed), texts.packing, None, keys_values)
        return [keys_values[layer] for layer in range(len(self.body.layers))]

    def _read(self, texts: PackedTexts, embed: Embed, special: Tensor) -> Tensor:
        tokens = self._tokens(texts.ids, embed)                               # (N, width)
        # The wanted tokens' ids are placeholders: their embeddings are replaced.
        embeddings = tokens.index_copy(0, texts.reads.at, special.to(tokens.dtype))
        return decoder.read(self.body, embeddings, texts.packing, texts.reads)  # (M, width)

    def _tokens(self, ids: Tensor, embed: Embed) -> Tensor:
        """Return the embeddings (N, width) of the tokens that the layers read."""
        return embed(ids).to(self.memory_rows.dtype)
