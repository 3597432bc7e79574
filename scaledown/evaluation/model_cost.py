"""The cost of a run's own questions: shapes read from the model, mean token counts from what was evaluated."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.evaluation.evaluator import SystemResult
from scaledown.evaluation.flops import Compressor, DecoderShape, EncoderShape, TokenCounts, full_flops, paper_flops
from scaledown.evaluation.systems import SCALEDOWN


def num_parameters(module: torch.nn.Module, trainable: bool = False) -> int:
    """Parameters of a module, or only those that are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trainable)


def linear_weights(module: torch.nn.Module) -> int:
    """Weights of a module's linear maps."""
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, torch.nn.Linear))


def compressor_shape(model: Any) -> Compressor:
    """Read the compressor's shape from its linear maps, or from its own model's config."""
    if model.config.compressor_type == "llm":
        return llm_shape(model.compressor.model_config, model.config.mlp_width, model.generator.config.hidden_size)
    if model.config.compressor_type == "n_layers":
        generator = DecoderShape.from_config(model.generator.config)
        num_layers = linear_weights(model.compressor) // generator.layer_weights
        return DecoderShape.from_config(model.generator.config, num_layers)
    encoder = next(part for part in model.compressor.modules() if isinstance(part, PreTrainedModel))
    return encoder_shape(encoder, model.config.mlp_width, model.generator.config.hidden_size)


def llm_shape(config: PretrainedConfig, mlp_width: int, generator_size: int) -> DecoderShape:
    """The shape of an llm compressor that is made from a causal LM with this Hugging Face ``config``."""
    shape = DecoderShape.from_config(config)
    return dataclasses.replace(shape, map_weights=mlp_width * (shape.hidden_size + generator_size))


def encoder_shape(encoder: PreTrainedModel, mlp_width: int, generator_size: int) -> EncoderShape:
    """The shape of an encoder compressor; the encoder may be one without values (meta)."""
    return EncoderShape(linear_weights(encoder), encoder.config.num_hidden_layers, encoder.config.hidden_size,
                        mlp_width, generator_size)


def mean_text_tokens(records: Sequence[Any], count_tokens: Callable[[str], int],
                     config: ScaleDownConfig) -> dict[str, float]:
    """Mean tokens of queries and documents as the compressor reads them (cut at its limits), and mean documents.

    Args:
        records: what was evaluated.
        count_tokens: tokens of a text, by the generator's tokenizer.
        config: the model's, for its limits.
    """
    queries = [min(count_tokens(record.query), config.query_tokens) for record in records]
    documents = [min(count_tokens(document), config.document_tokens)
                 for record in records for document in record.documents]
    return {"query_tokens": statistics.fmean(queries), "num_documents": len(documents) / len(records),
            "document_tokens": statistics.fmean(documents) if documents else 0.0}


def _system_tokens(result: SystemResult, text_tokens: Mapping[str, float], config: ScaleDownConfig) -> TokenCounts:
    return TokenCounts(**text_tokens, memory_tokens=config.num_memory_tokens,
                       rerank_tokens=float(config.enable_reranking), prompt_tokens=result.mean_prompt_tokens,
                       new_tokens=result.mean_new_tokens)


def model_cost(model: Any, results: Sequence[SystemResult], text_tokens: Mapping[str, float]) -> dict[str, Any]:
    """The ``cost`` of ``metrics_report.json``.

    Args:
        model: a ScaleDownModel.
        results: what each system reached; the one named ``scaledown`` compresses.
        text_tokens: from :func:`mean_text_tokens`.

    Returns:
        For each system: ``flops`` (full count) and ``flops_paper_convention`` by phase, and ``key_value_bytes`` of the
        generator's cache at the end of an answer; the token counts behind them; the parameters of each part.
    """
    config, generator = model.config, DecoderShape.from_config(model.generator.config)
    # The largest parameter is one of the base's: LoRA and the special rows may be kept in another type than it.
    bytes_per_value = max(model.generator.parameters(), key=torch.numel).element_size()
    systems = {}
    for result in results:
        compresses = result.system == SCALEDOWN.name
        compressor = compressor_shape(model) if compresses else None
        tokens = _system_tokens(result, text_tokens, config)
        counted = full_flops(generator, compressor, tokens, config.lora_rank if compresses else 0, config.input_order)
        systems[result.system] = {
            "flops": counted.to_dict(),
            "flops_paper_convention": paper_flops(generator, compressor, tokens).to_dict(),
            "key_value_bytes": generator.key_value_bytes(tokens.prompt_tokens + tokens.new_tokens, bytes_per_value),
            "prompt_tokens": tokens.prompt_tokens, "new_tokens": tokens.new_tokens}
    parameters = {"generator": num_parameters(model.generator), "compressor": num_parameters(model.compressor),
                  "trained": num_parameters(model, trainable=True)}
    return {**systems, "mean_text_tokens": dict(text_tokens), "num_memory_tokens": config.num_memory_tokens,
            "parameters": parameters}
