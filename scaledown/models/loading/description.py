"""A model in a few lines, for a Python prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaledown.config import GENERATOR

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel


def describe(model: ScaleDownModel) -> str:
    """Return the parts of a model, its sizes, its place and its number format, in five lines at most."""
    config, base = model.config, model.generator.config

    dtype = str(model.dtype).removeprefix("torch.")
    bits = " (base in 4 bits)" if config.load_in_4bit else " (base in 8 bits)" if config.load_in_8bit else ""
    return (f"ScaleDownModel(\n"
            f"  generator: {config.generator_model} ({base.model_type}, {base.num_hidden_layers} layers, width "
            f"{base.hidden_size}), LoRA of rank {config.lora_rank}\n"
            f"  compressor: {_compressor(model)}\n"
            f"  {dtype}{bits} on {model.device}; {model.num_parameters():,} parameters, "
            f"{model.num_parameters(only_trainable=True):,} trained)")


def _compressor(model: ScaleDownModel) -> str:
    config = model.config
    if config.reads_text:
        return f"none: full text, up to {config.document_tokens} tokens of a document"

    # A copy of the generator's layers has no model of its own.
    if config.reads_with == GENERATOR:
        num_layers, name = len(model.compressor.body.layers), ""
    else:
        num_layers, name = model.compressor.model_config.num_hidden_layers, f" from {config.compressor_model}"
    scores = "; scores documents" if config.enable_reranking else ""
    return (f"{config.compressor_type}{name} ({num_layers} layers), {config.document_tokens} document tokens -> "
            f"{config.num_memory_tokens} memory tokens{scores}")
