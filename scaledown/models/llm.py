"""LLM compressor: a small causal LM of its own and an MLP to the generator's width (paper, section 3.1: OSCAR-llama).

It reads as the N-Layers compressor does, what comes first once for all that follows; but with another model's layers,
token embeddings and vocabulary, up to that model's final norm. Pretrain it first: what it gives the generator has never
read (``--pretrain_steps``).
"""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.causal import CausalCompressor
from scaledown.models.compressor import Embed, memory_mlp, start_mlp_as_identity
from scaledown.models.positions import position_limit


class LLMCompressor(CausalCompressor):
    """Reads with the whole of ``body`` (a Llama, Mistral or Qwen decoder without its head), fully trained."""

    def __init__(self, config: ScaleDownConfig, body: PreTrainedModel, generator_table: Tensor) -> None:
        tokens = body.get_input_embeddings()
        super().__init__(config, body.layers, body.rotary_emb, tokens.weight, generator_table)
        self.position_limit = position_limit(body)
        self.tokens = tokens.float().requires_grad_(True)
        self.norm = body.norm.float().requires_grad_(True)
        self.mlp = memory_mlp(config, tokens.embedding_dim, generator_table.shape[1])
        self.model_config = body.config

    def start_as_identity(self) -> None:
        """The MLP hands the layers' states on as they are."""
        start_mlp_as_identity(self.mlp)

    def _tokens(self, embed: Embed) -> Embed:
        return self.tokens

    def _last(self, states: Tensor) -> Tensor:
        return self.norm(states)

    def _project(self, states: Tensor) -> Tensor:
        return self.mlp(states)
