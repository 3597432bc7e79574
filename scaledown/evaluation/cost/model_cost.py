"""The cost of a run's questions: shapes read from the model, mean token counts from the evaluation."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from scaledown.config import ScaleDownConfig
from scaledown.evaluation.cost.flops import TokenCounts, full_flops, paper_flops
from scaledown.evaluation.cost.shapes import Compressor, decoder_shape, encoder_shape, llm_shape
from scaledown.evaluation.evaluator import SystemResult
from scaledown.evaluation.systems import SCALEDOWN


def num_parameters(module: torch.nn.Module, trainable: bool = False) -> int:
    """Return the number of a module's parameters, or of those that are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trainable)


def compressor_shape(model: Any) -> Compressor:
    """Return the shape of a ScaleDownModel's compressor."""
    config, width = model.config, model.generator.config.hidden_size  # width of the memory embeddings
    if config.compressor_type == "n_layers":
        return decoder_shape(model.compressor.body)
    if config.compressor_type == "llm":
        return llm_shape(model.compressor.body, config.mlp_width, width)
    return encoder_shape(model.compressor.encoder, config.mlp_width, width)


def mean_text_tokens(records: Sequence[Any], count_tokens: Callable[[str], int],
                     config: ScaleDownConfig) -> dict[str, float]:
    """Return mean tokens of queries and documents as the compressor reads them (cut at its limits), and mean documents.

    Args:
        records: the evaluated records.
        count_tokens: returns the number of tokens of a text, by the generator's tokenizer.
        config: the model's, for its limits.
    """
    queries = [min(count_tokens(record.query), config.query_tokens) for record in records]
    documents = []
    for record in records:
        documents += [min(count_tokens(document), config.document_tokens) for document in record.documents]

    return {"query_tokens": statistics.fmean(queries), "num_documents": len(documents) / len(records),
            "document_tokens": statistics.fmean(documents) if documents else 0.0}


def _system_tokens(result: SystemResult, text_tokens: Mapping[str, float], config: ScaleDownConfig) -> TokenCounts:
    return TokenCounts(**text_tokens, memory_tokens=config.num_memory_tokens,
                       rerank_tokens=float(config.enable_reranking), prompt_tokens=result.mean_prompt_tokens,
                       new_tokens=result.mean_new_tokens)


def model_cost(model: Any, results: Sequence[SystemResult], text_tokens: Mapping[str, float]) -> dict[str, Any]:
    """Return the ``cost`` of ``metrics_report.json``.

    Args:
        model: a ScaleDownModel.
        results: of each system; the one named ``scaledown`` compresses.
        text_tokens: from :func:`mean_text_tokens`.

    Returns:
        For each system: ``flops`` (full count) and ``flops_paper_convention`` by phase, and ``key_value_bytes`` of the
        generator's cache at the end of an answer; the token counts behind them; the parameters of each part.
    """
    config, generator = model.config, decoder_shape(model.generator.base)
    # The largest parameter is one of the base's: LoRA and the special embeddings may be kept in another type.
    bytes_per_value = max(model.generator.parameters(), key=torch.numel).element_size()

    systems = {}
    for result in results:
        # The others read text, with the adapter off.
        compresses = result.system == SCALEDOWN.name
        compressor = compressor_shape(model) if compresses else None
        tokens = _system_tokens(result, text_tokens, config)
        lora_rank = config.lora_rank if compresses else 0
        flops = full_flops(generator, compressor, tokens, lora_rank, config.input_order)
        systems[result.system] = {
            "flops": flops.to_dict(),
            "flops_paper_convention": paper_flops(generator, compressor, tokens).to_dict(),
            "key_value_bytes": generator.key_value_bytes(tokens.prompt_tokens + tokens.new_tokens, bytes_per_value),
            "prompt_tokens": tokens.prompt_tokens, "new_tokens": tokens.new_tokens}

    parameters = {"generator": num_parameters(model.generator), "compressor": num_parameters(model.compressor),
                  "trained": num_parameters(model, trainable=True)}
    return {**systems, "mean_text_tokens": dict(text_tokens), "num_memory_tokens": config.num_memory_tokens,
            "parameters": parameters}
