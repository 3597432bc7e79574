"""LLM compressor: a separate small causal LM and an MLP to the generator's width (paper, section 3.1: OSCAR-llama).

It reads as the N-Layers compressor does, a shared prefix once, but with another model's layers, token embeddings and
vocabulary, up to that model's final norm. Pretrain it (``--pretrain_steps``): the generator has never read embeddings
like those that it makes.
"""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.compressors.base import Embed, memory_mlp, start_mlp_as_identity
from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.engine import decoder


class LLMCompressor(CausalCompressor):
    """Reads with all of ``body`` (a decoder without its head), which is trained, by LoRA if the config says so.

    If ``body`` is the generator's own model, soft tokens need no MLP: its final states are what the output head reads.

    Raises:
        ValueError: if ``body`` cannot read packed texts.
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

        has_its_states = config.soft_tokens and config.reads_as_generator
        self.mlp = None if has_its_states else memory_mlp(config, table.shape[1], generator_table.shape[1])

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
        return states if self.mlp is None else self.mlp(states)
