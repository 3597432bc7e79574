"""The cost of one question by each way to answer it: from flags that describe models, or from a run's own model."""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from scaledown.config import CUT, SPLIT, ScaleDownConfig
from scaledown.evaluation.cost.flops import (
    Flops,
    TokenCounts,
    causal_flops,
    full_flops,
    measured_flops,
    naive_flops,
    paper_flops,
)
from scaledown.evaluation.cost.known_shapes import config_of
from scaledown.evaluation.cost.shapes import (
    Compressor,
    DecoderShape,
    compressor_shape,
    compressor_without_values,
    decoder_shape,
    encoder_shape,
    generator_without_values,
    llm_shape,
)
from scaledown.evaluation.evaluator import SystemResult
from scaledown.evaluation.figures.text_tables import console_table
from scaledown.evaluation.systems import SCALEDOWN
from scaledown.models.compressors.n_layers import resolve_num_layers

MEBI = 2**20
UNITS = {"T": 1e12, "G": 1e9, "M": 1e6}
BYTES_PER_VALUE = 2


@dataclass(frozen=True)
class Cost:
    """One way to answer, in both conventions; ``measured`` is PyTorch's count, or None."""

    name: str
    flops: Flops
    paper_convention: Flops
    prompt_tokens: float
    key_value_bytes: float
    measured: Flops | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the cost as the JSON file has it."""
        values = {"flops": self.flops.to_dict(), "flops_paper_convention": self.paper_convention.to_dict(),
                  "prompt_tokens": self.prompt_tokens, "key_value_bytes": self.key_value_bytes}
        if self.measured:
            values["flops_measured"] = self.measured.to_dict()
        return values


def token_counts(args: argparse.Namespace) -> tuple[TokenCounts, TokenCounts]:
    """Return the token counts of an answer from memory, and of one from full text."""
    # The two differ only in how many positions of the prompt a document takes.
    around = args.system_tokens + args.query_tokens
    memory = TokenCounts(
        query_tokens=args.query_tokens, document_tokens=args.document_tokens, num_documents=args.num_documents,
        memory_tokens=args.num_memory_tokens, prompt_tokens=around + args.num_documents * args.num_memory_tokens,
        new_tokens=args.answer_tokens)
    text = dataclasses.replace(memory, prompt_tokens=around + args.num_documents * args.document_tokens)
    return memory, text


def generator_of_flags(args: argparse.Namespace) -> DecoderShape:
    """Return the shape of ``--generator_model``."""
    return decoder_shape(generator_without_values(config_of(args.generator_model)))


def compressor_of_flags(args: argparse.Namespace, generator: DecoderShape) -> Compressor:
    """Return the shape of the compressor: of the generator's first layers, or of another model."""
    if args.compressor_type == "n_layers":
        return dataclasses.replace(generator, num_layers=resolve_num_layers(args.num_layers, generator.num_layers))
    if args.num_layers is not None:
        raise ValueError(f"--num_layers belongs to --compressor_type n_layers, not {args.compressor_type}")

    # Both kinds end in an MLP to the generator's width.
    model = compressor_without_values(args.compressor_type, args.compressor_model)
    if args.compressor_type == "llm":
        return llm_shape(model, ScaleDownConfig.mlp_width, generator.hidden_size)
    return encoder_shape(model, ScaleDownConfig.mlp_width, generator.hidden_size)


def costs(args: argparse.Namespace) -> list[Cost]:
    """Return the costs of full text, of ScaleDown and, for a causal compressor, of other ways to run it."""
    generator = generator_of_flags(args)
    compressor = compressor_of_flags(args, generator)
    memory, text = token_counts(args)

    def cost(name: str, tokens: TokenCounts, reader: Compressor) -> Cost:
        rank = args.lora_rank if reader else 0  # full text is read by the generator without its adapter
        cache_tokens = tokens.prompt_tokens + tokens.new_tokens  # at the answer's end
        measured = measured_flops(args, tokens, reader is not None) if args.measure_flops else None
        return Cost(name, full_flops(generator, reader, tokens, rank), paper_flops(generator, reader, tokens),
                    tokens.prompt_tokens, generator.key_value_bytes(cache_tokens, BYTES_PER_VALUE), measured)

    scaledown = cost("scaledown", memory, compressor)
    ways = [cost("full_text", text, None), scaledown]
    if isinstance(compressor, DecoderShape):
        # These differ in the compressor's work alone; the generator reads the same memory.
        compress_flops = {"naive_compressor": naive_flops(compressor, memory),
                          "document_first": causal_flops(compressor, memory, "document_first"),
                          "stored_documents": causal_flops(compressor, memory, "document_first", is_stored=True)}
        for name, compress in compress_flops.items():
            flops = dataclasses.replace(scaledown.flops, compress=compress)
            ways.append(dataclasses.replace(scaledown, name=name, flops=flops, measured=None))

    return ways


def table(ways: Sequence[Cost]) -> str:
    """Return the full count and the paper's, one below the other, with the saving against full text."""
    text = ways[0]
    letter, unit = _unit(text.flops.total)

    counted, papers = [], []
    for way in ways:
        saving = f"{text.flops.total / way.flops.total:.2f}x"
        counted.append([way.name, *_phase_cells(way.flops, unit), saving, f"{way.key_value_bytes / MEBI:,.1f}"])
        # PyTorch's count stands below, in the same columns.
        if way.measured is not None:
            counted.append(["as PyTorch counts", *_phase_cells(way.measured, unit), "", ""])

    # The others cost the same as ScaleDown by the paper's count, which leaves out the query that a compressor reads.
    for way in ways[:2]:
        saving = f"{text.paper_convention.total / way.paper_convention.total:.2f}x"
        papers.append([way.name, *_phase_cells(way.paper_convention, unit), saving])

    phases = ["compress", "prefill", "decode", "total", "saving"]
    return (console_table([f"{letter}-FLOPs", *phases, "KV cache, MiB"], counted) + "\n\n"
            + console_table([f"paper's count, {letter}-FLOPs", *phases], papers))


def _phase_cells(flops: Flops, unit: float) -> list[str]:
    return [f"{value / unit:.3f}" for value in (flops.compress, flops.prefill, flops.decode, flops.total)]


def _unit(value: float) -> tuple[str, float]:
    """Return the largest unit of which ``value`` has at least one; millions for all below."""
    for letter, unit in UNITS.items():
        if value >= unit:
            return letter, unit
    return "M", UNITS["M"]


def short(count: float) -> str:
    """Return a count in the largest unit that fits, such as "7.11 G"."""
    letter, unit = _unit(count)
    return f"{count / unit:.2f} {letter}"


def num_parameters(module: torch.nn.Module, trainable: bool = False) -> int:
    """Return the number of a module's parameters, or of those that are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trainable)


def mean_text_tokens(records: Sequence[Any], count_tokens: Callable[[str], int], config: ScaleDownConfig,
                     long_documents: str = SPLIT) -> dict[str, float]:
    """Return mean tokens of queries and documents as the compressor reads them, and how many documents on average.

    Passages of long documents count one by one, as many as are needed at least.

    Args:
        records: the evaluated records.
        count_tokens: returns the number of tokens of a text, by the generator's tokenizer.
        config: the model's, for its limits.
        long_documents: "split" or "cut".
    """
    # Each text as far as it is read, which may be less than all of it.
    queries = [min(count_tokens(record.query), config.query_tokens) for record in records]
    documents = []
    for record in records:
        for document in record.documents:
            num_tokens = count_tokens(document)
            if long_documents == CUT:
                documents.append(min(num_tokens, config.document_tokens))
                continue
            num_passages = max(1, math.ceil(num_tokens / config.document_tokens))
            documents += [num_tokens / num_passages] * num_passages

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
        generator's cache at the end of an answer; the token counts behind them; the parameters and layers of each part.
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
    layers = {"generator": generator.num_layers, "compressor": compressor_shape(model).num_layers}
    return {**systems, "mean_text_tokens": dict(text_tokens), "num_memory_tokens": config.num_memory_tokens,
            "parameters": parameters, "layers": layers}
