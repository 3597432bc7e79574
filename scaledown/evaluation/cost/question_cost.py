"""The cost of one question by each way to answer it, from the shapes of the models, and the table of all ways."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scaledown.config import ScaleDownConfig
from scaledown.evaluation.cost.flops import Flops, TokenCounts, causal_flops, full_flops, naive_flops, paper_flops
from scaledown.evaluation.cost.known_shapes import config_of
from scaledown.evaluation.cost.measured_flops import measured_flops
from scaledown.evaluation.cost.shapes import (
    Compressor,
    DecoderShape,
    compressor_without_values,
    decoder_shape,
    encoder_shape,
    generator_without_values,
    llm_shape,
)
from scaledown.models.compressors.n_layers import resolve_num_layers
from scaledown.settings import positive, require

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
    """Return the token counts of an answer from memory, and of one from full text.

    Raises:
        ValueError: if a count is below 0, or there is no memory or answer token.
    """
    names = ("num_documents", "query_tokens", "document_tokens", "system_tokens", "lora_rank")
    faults = [f"--{name} must be at least 0, got {getattr(args, name)}" for name in names if getattr(args, name) < 0]
    require(faults + positive(args, "num_memory_tokens", "answer_tokens"))

    # The two differ only in how many positions of the prompt a document takes.
    around = args.system_tokens + args.query_tokens
    memory = TokenCounts(
        query_tokens=args.query_tokens, document_tokens=args.document_tokens, num_documents=args.num_documents,
        memory_tokens=args.num_memory_tokens, prompt_tokens=around + args.num_documents * args.num_memory_tokens,
        new_tokens=args.answer_tokens)
    text = dataclasses.replace(memory, prompt_tokens=around + args.num_documents * args.document_tokens)
    return memory, text


def generator_shape(args: argparse.Namespace) -> DecoderShape:
    """Return the shape of ``--generator_model``."""
    return decoder_shape(generator_without_values(config_of(args.generator_model)))


def compressor_shape(args: argparse.Namespace, generator: DecoderShape) -> Compressor:
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
    generator = generator_shape(args)
    compressor = compressor_shape(args, generator)
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
    """Return both conventions side by side, with the saving against full text."""
    text = ways[0]
    letter, unit = _unit(text.flops.total)
    lines = [f"{letter + '-FLOPs':<18}{'compress':>11}{'prefill':>11}{'decode':>11}{'total':>11}{'saving':>8}"
             f"  | paper's count: {'compress':>11}{'total':>11}{'saving':>8}  | KV cache"]
    for way in ways:
        full, paper = way.flops, way.paper_convention
        lines.append(
            f"{way.name:<18}{_phase_cells(full, unit)}"
            f"{text.flops.total / full.total:>7.2f}x  | {'':<14} {paper.compress / unit:>11.3f}"
            f"{paper.total / unit:>11.3f}{text.paper_convention.total / paper.total:>7.2f}x"
            f"  | {way.key_value_bytes / MEBI:,.1f} MiB")
        # PyTorch's count stands below, in the same columns.
        if way.measured is not None:
            lines.append(f"{'  as PyTorch counts':<18}{_phase_cells(way.measured, unit)}")

    return "\n".join(lines)


def _phase_cells(flops: Flops, unit: float) -> str:
    values = flops.compress, flops.prefill, flops.decode, flops.total
    return "".join(f"{value / unit:>11.3f}" for value in values)


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
