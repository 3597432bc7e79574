"""LLM compressor: a separate small causal LM and an MLP to the generator's width (paper, section 3.1: OSCAR-llama).

It reads as the N-Layers compressor does, a shared prefix once, but with another model's layers, token embeddings and
vocabulary, up to that model's final norm. Pretrain it (``--pretrain_steps``): the generator has never read embeddings
like those that it makes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.compressors.base import Embed, memory_mlp, start_mlp_as_identity
from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.engine import decoder


class LLMCompressor(CausalCompressor):
    """Reads with all of ``body`` (a decoder without its head), which is trained, by LoRA if the config says so.

    With ``soft_tokens`` there is no MLP: ``body`` is the generator's own model, and the memory at each memory token is
    the mean of all token embeddings (V, D), weighed by the probabilities that the output head gives them.

    Raises:
        ValueError: if ``body`` cannot read packed texts, or has no such head.
    """

    def __init__(self, config: ScaleDownConfig, body: PreTrainedModel, generator_table: Tensor) -> None:
        if fault := decoder.packing_fault(body):
            raise ValueError(f"--compressor_model: a {body.config.model_type} model cannot be an llm compressor: "
                             f"{fault}; choose a decoder with plain attention, or an encoder "
                             "(--compressor_type modernbert)")

        # As the layers get them: some families scale the embeddings of their table.
        table = decoder.token_embeddings(body)
        super().__init__(config, body, table, generator_table)
        self.model_config = body.config

        self.has_own_head = config.soft_tokens
        if self.has_own_head and not decoder.head_is_table(body):
            raise ValueError("--soft_tokens needs a generator whose output head is its token embeddings, without a "
                             f"scale or a bound of its own; this {body.config.model_type} model has another one")
        # Mixtures of the generator's tokens have its width, and need no map.
        self.mlp = None if self.has_own_head else memory_mlp(config, table.shape[1], generator_table.shape[1])

    def start_as_identity(self) -> None:
        """Let the MLP, if there is one, pass the layers' states on nearly unchanged."""
        if self.mlp is not None:
            start_mlp_as_identity(self.mlp)

    def stored_name(self, name: str) -> str:
        """Return the name in checkpoints, which is ``tokens.weight`` for the token embeddings of any family."""
        is_table = self.get_parameter(name) is self.body.get_input_embeddings().weight
        return "tokens.weight" if is_table else super().stored_name(name)

    def _tokens(self, ids: Tensor, embed: Embed) -> Tensor:
        return self.body.get_input_embeddings()(ids)

    def _project(self, states: Tensor) -> Tensor:
        if self.mlp is not None:
            return self.mlp(states)

        # The expected embedding of the token that the model would say at each memory token: the generator can read it
        # without having been trained to, and it passes gradients on, unlike the likeliest token alone.
        table = self.body.get_input_embeddings().weight                       # (V, D)
        # In float32 in any arithmetic, as among 50,000 probabilities most are tiny.
        # Products of two matrices: with a batch of them torch may copy the table for each of the P passages.
        logits = F.linear(states.flatten(0, 1), table)                        # (P * L, V)
        probabilities = logits.softmax(-1, torch.float32)                     # (P * L, V)
        mixtures = probabilities.to(table.dtype) @ table                      # (P * L, D)
        return mixtures.unflatten(0, states.shape[:2])                        # (P, L, D)
