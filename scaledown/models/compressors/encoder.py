"""Encoder compressor: a small bidirectional encoder and an MLP to the generator's width (paper, section 3.1).

In a bidirectional encoder each token's state depends on the whole text, so no prefix can be shared: the query is read
with each document, whichever comes first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.compressors.base import (
    Compressor,
    Embed,
    memory_mlp,
    prepare_training,
    start_mlp_as_identity,
)
from scaledown.models.engine.packing import NEVER, PackedTexts
from scaledown.models.engine.positions import position_limit


class EncoderCompressor(Compressor):
    """Reads each whole input with ``encoder``; Linear-ReLU-Linear brings the memory to width D."""

    def __init__(self, config: ScaleDownConfig, encoder: PreTrainedModel, generator_table: Tensor) -> None:
        table = encoder.get_input_embeddings().weight
        # ELECTRA's and ALBERT's states are wider than their token embeddings.
        width = encoder.config.hidden_size
        super().__init__(config, table, generator_table, state_width=width)
        self.position_limit = position_limit(encoder)

        # A pooler would be trained for nothing.
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None
        self.encoder = encoder
        prepare_training(config, encoder)
        self.mlp = memory_mlp(config, width, generator_table.shape[1])
        self.model_config = encoder.config

    def start_as_identity(self) -> None:
        """Let the MLP pass the encoder's states on nearly unchanged."""
        start_mlp_as_identity(self.mlp)

    def gradient_checkpointing_enable(self) -> None:
        """Compute the encoder's activations twice in training."""
        # Without reentry there is no need for the gradients of the embeddings that transformers asks for.
        self.encoder.activation_checkpointing_enable({"use_reentrant": False})
        self.encoder.disable_input_require_grads()

    def states(self, embeddings: Tensor, is_token: Tensor) -> Tensor:
        """Return the final states (P, T, width) of whole inputs.

        Args:
            embeddings: (P, T, width of embeddings), padded.
            is_token: (P, T), False for padding.
        """
        mask = self._attention_mask(is_token, embeddings.dtype)
        return self.encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state

    def _read(self, texts: PackedTexts, embed: Embed, special: Tensor) -> Tensor:
        tokens = self.encoder.get_input_embeddings()(texts.ids)               # (N, width of embeddings)
        embeddings = tokens.index_copy(0, texts.reads.at, special.to(tokens.dtype))

        # Inputs are prefixes that nothing continues. Rows pad heads (N, H, W): an embedding is one head of full width.
        inputs = texts.packing.prefixes
        padded = inputs.pad(embeddings[:, None])[:, 0]                        # (P, T, width of embeddings)
        states = self.states(padded, inputs.positions != NEVER)               # (P, T, width)
        packed = inputs.pack(states[:, None])[:, 0]                           # (N, width)
        return packed.index_select(0, texts.reads.at)                         # (M, width)

    def _attention_mask(self, is_token: Tensor, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """Return the attention mask: for ModernBERT one explicit mask (P, 1, T, T) for each kind of layer.

        From the short form (P, T) transformers would make the same, but ask the device if it is needed, and a training
        step would wait for the answer.
        """
        if self.encoder.config.model_type != "modernbert":
            return is_token.long()

        place = torch.arange(is_token.shape[1], device=is_token.device)
        distance = (place[:, None] - place).abs()                             # (T, T)
        # Padding sees itself: the softmax over nothing would be NaN.
        seen = is_token[:, None, None, :] | (distance == 0)                   # (P, 1, T, T)
        near = seen & (distance <= self.encoder.config.sliding_window)
        return {"full_attention": _additive(seen, dtype), "sliding_attention": _additive(near, dtype)}

    def _project(self, states: Tensor) -> Tensor:
        return self.mlp(states)


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a bool mask as a mask to add, which all attention backends of transformers read correctly.

    Without autocast, attention on a GPU takes one in the number format of its queries alone.
    """
    return torch.zeros(seen.shape, device=seen.device, dtype=dtype).masked_fill(~seen, -torch.inf)

