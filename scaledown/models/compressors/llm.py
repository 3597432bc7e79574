"""LLM compressor: a small causal LM of its own and an MLP to the generator's width (paper, section 3.1: OSCAR-llama).

It reads as the N-Layers compressor does, what comes first once for all that follows; but with another model's layers,
token embeddings and vocabulary, up to that model's final norm. Pretrain it first: what it gives the generator has never
read (``--pretrain_steps``).
"""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models import decoder
from scaledown.models.compressors.base import Embed, memory_mlp, start_mlp_as_identity
from scaledown.models.compressors.causal import CausalCompressor


class LLMCompressor(CausalCompressor):
    """Reads with the whole of ``body`` (a decoder without its head), fully trained.

    Raises:
        ValueError: if it cannot read packed texts.
    """

    def __init__(self, config: ScaleDownConfig, body: PreTrainedModel, generator_table: Tensor) -> None:
        if fault := decoder.packing_fault(body):
            raise ValueError(f"--compressor_model: a {body.config.model_type} model cannot be an llm compressor: "
                             f"{fault}; choose a decoder with plain attention, or an encoder "
                             "(--compressor_type modernbert)")
        table = decoder.token_embeddings(body)
        super().__init__(config, body, table, generator_table)
        self.mlp = memory_mlp(config, table.shape[1], generator_table.shape[1])
        self.model_config = body.config

    def start_as_identity(self) -> None:
        """Let the MLP hand the layers' states on as they are."""
        start_mlp_as_identity(self.mlp)

    def stored_name(self, name: str) -> str:
        """Checkpoints call the token embeddings ``tokens``."""
        is_table = self.get_parameter(name) is self.body.get_input_embeddings().weight
        return "tokens.weight" if is_table else super().stored_name(name)

    def _tokens(self, ids: Tensor, embed: Embed) -> Tensor:
        return self.body.get_input_embeddings()(ids)

    def _project(self, states: Tensor) -> Tensor:
        return self.mlp(states)
