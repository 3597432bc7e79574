"""What answering costs, worked out from shapes: python -m scaledown.evaluation.cost

Prints FLOPs by phase, parameters and the generator's key-value cache for one question: full text, ScaleDown, the naive
compressor that reads the query again with each document, and a compressor that reads the document first, with and
without the documents' readings stored from before. No weights are needed, so any size can be asked for.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scaledown import cli
from scaledown.config import COMPRESSOR_TYPES, DEFAULT_ENCODER, DEFAULT_LLM, ScaleDownConfig, positive, require
from scaledown.evaluation.cost.flops import Flops, TokenCounts, causal_flops, full_flops, naive_flops, paper_flops
from scaledown.evaluation.cost.known_shapes import KNOWN_NAMES, config_of
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
from scaledown.files import write_json
from scaledown.models.compressors.n_layers import resolve_num_layers
from scaledown.training import run_folder

MEBI = 2**20
UNITS = {"T": 1e12, "G": 1e9, "M": 1e6}
PAPER_GENERATOR = "mistralai/Mistral-7B-Instruct-v0.2"
BYTES_PER_VALUE = 2


@dataclass(frozen=True)
class Cost:
    """One way to answer, in both conventions; ``measured`` is what PyTorch counted, or None."""

    name: str
    flops: Flops
    paper_convention: Flops
    prompt_tokens: float
    key_value_bytes: float
    measured: Flops | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        row = {"flops": self.flops.to_dict(), "flops_paper_convention": self.paper_convention.to_dict(),
               "prompt_tokens": self.prompt_tokens, "key_value_bytes": self.key_value_bytes}
        return row | ({"flops_measured": self.measured.to_dict()} if self.measured else {})


def build_parser() -> argparse.ArgumentParser:
    """The command's flags; the paper's setting (table 1) is the default."""
    parser = argparse.ArgumentParser(prog="python -m scaledown.evaluation.cost", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator_model", default=PAPER_GENERATOR, metavar="NAME_OR_CONFIG",
                        help=f"a model's name, folder or config.json [{PAPER_GENERATOR}]; without a network: "
                        f"embedded, {', '.join(KNOWN_NAMES)}")
    parser.add_argument("--compressor_type", default="n_layers", choices=COMPRESSOR_TYPES, help="[n_layers]")
    parser.add_argument("--num_layers", type=cli.positive, help="layers of the n_layers compressor "
                        "[8, or a third of a generator that has fewer than 24]")
    parser.add_argument("--compressor_model", metavar="NAME_OR_CONFIG", help="the model of a modernbert "
                        f"[{DEFAULT_ENCODER}] or llm [{DEFAULT_LLM}] compressor")
    for name, default, text in (
            ("num_documents", 10, "documents of the question"), ("query_tokens", 128, "tokens of the query"),
            ("document_tokens", 128, "tokens of each document"), ("answer_tokens", 32, "tokens of the answer"),
            ("num_memory_tokens", 8, "embeddings that stand for one document"),
            ("system_tokens", 0, "tokens of the prompt beside query and documents; the paper counts none")):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} [{default}]")
    parser.add_argument("--lora_rank", type=int, default=0,
                        help="rank of a LoRA adapter that is not merged into the generator; 0 is merged [0]")
    parser.add_argument("--measure_flops", action="store_true",
                        help="also run the real code on shapes alone, and let PyTorch count")
    parser.add_argument("--output_file", help="write the figures there as JSON")
    return parser


def token_counts(args: argparse.Namespace) -> tuple[TokenCounts, TokenCounts]:
    """Token counts of an answer from memory, and of one from full text.

    Raises:
        ValueError: for a count below 0, or no memory or answer token.
    """
    names = ("num_documents", "query_tokens", "document_tokens", "system_tokens", "lora_rank")
    faults = [f"--{name} must be at least 0, got {getattr(args, name)}" for name in names if getattr(args, name) < 0]
    require(faults + positive(args, "num_memory_tokens", "answer_tokens"))
    outside = args.system_tokens + args.query_tokens
    memory = TokenCounts(args.query_tokens, args.document_tokens, args.num_documents, args.num_memory_tokens,
                         outside + args.num_documents * args.num_memory_tokens, args.answer_tokens)
    text = dataclasses.replace(memory, prompt_tokens=outside + args.num_documents * args.document_tokens)
    return memory, text


def generator_shape(args: argparse.Namespace) -> DecoderShape:
    """Return the shape of ``--generator_model``."""
    return decoder_shape(generator_without_values(config_of(args.generator_model)))


def compressor_shape(args: argparse.Namespace, generator: DecoderShape) -> Compressor:
    """Return the compressor's shape, of the generator's first layers or of a model of its own."""
    if args.compressor_type == "n_layers":
        return dataclasses.replace(generator, num_layers=resolve_num_layers(args.num_layers, generator.num_layers))
    if args.num_layers is not None:
        raise ValueError(f"--num_layers belongs to --compressor_type n_layers, not {args.compressor_type}")
    model = compressor_without_values(args.compressor_type, args.compressor_model)
    if args.compressor_type == "llm":
        return llm_shape(model, ScaleDownConfig.mlp_width, generator.hidden_size)
    return encoder_shape(model, ScaleDownConfig.mlp_width, generator.hidden_size)


def costs(args: argparse.Namespace) -> list[Cost]:
    """Full text, ScaleDown and, for a causal compressor, other ways to run it."""
    generator = generator_shape(args)
    compressor = compressor_shape(args, generator)
    memory, text = token_counts(args)

    def cost(name: str, tokens: TokenCounts, reads: Compressor) -> Cost:
        rank = args.lora_rank if reads else 0
        measured = measured_flops(args, tokens, reads is not None) if args.measure_flops else None
        return Cost(name, full_flops(generator, reads, tokens, rank), paper_flops(generator, reads, tokens),
                    tokens.prompt_tokens,
                    generator.key_value_bytes(tokens.prompt_tokens + tokens.new_tokens, BYTES_PER_VALUE), measured)

    found = [cost("full_text", text, None), cost("scaledown", memory, compressor)]
    if isinstance(compressor, DecoderShape):
        other_ways = {"naive_compressor": naive_flops(compressor, memory),
                      "document_first": causal_flops(compressor, memory, "document_first"),
                      "stored_documents": causal_flops(compressor, memory, "document_first", is_stored=True)}
        found += [dataclasses.replace(found[1], name=name, measured=None,
                                      flops=dataclasses.replace(found[1].flops, compress=compress))
                  for name, compress in other_ways.items()]
    return found


def table(found: Sequence[Cost]) -> str:
    """Both conventions side by side, with the saving against full text."""
    text = found[0]
    letter, unit = _unit(text.flops.total)
    lines = [f"{letter + '-FLOPs':<18}{'compress':>11}{'prefill':>11}{'decode':>11}{'total':>11}{'saving':>8}"
             f"  | paper's count: {'compress':>11}{'total':>11}{'saving':>8}  | KV cache"]
    for each in found:
        true, paper = each.flops, each.paper_convention
        lines.append(
            f"{each.name:<18}" + "".join(f"{value / unit:>11.3f}" for value in
                                         (true.compress, true.prefill, true.decode, true.total))
            + f"{text.flops.total / true.total:>7.2f}x  | {'':<14} {paper.compress / unit:>11.3f}"
            f"{paper.total / unit:>11.3f}{text.paper_convention.total / paper.total:>7.2f}x"
            f"  | {each.key_value_bytes / MEBI:,.1f} MiB")
        if each.measured is not None:
            lines.append(f"{'  as PyTorch counts':<18}" + "".join(
                f"{value / unit:>11.3f}" for value in (each.measured.compress, each.measured.prefill,
                                                      each.measured.decode, each.measured.total)))
    return "\n".join(lines)


def _unit(value: float) -> tuple[str, float]:
    """The unit in which ``value`` has few digits before the point."""
    return next(((letter, unit) for letter, unit in UNITS.items() if value >= unit), ("M", UNITS["M"]))


def _short(count: float) -> str:
    letter, unit = _unit(count)
    return f"{count / unit:.2f} {letter}"


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Print the costs."""
    args = build_parser().parse_args(argv)
    found = costs(args)
    output_file = run_folder.output_file(args.output_file)
    generator = generator_shape(args)
    compressor = compressor_shape(args, generator)
    print(f"{args.generator_model}: {generator.num_layers} layers of width {generator.hidden_size}, "
          f"{_short(generator.body_weights)} weights in its linear maps; {args.compressor_type} compressor of "
          f"{compressor.num_layers} layers, {_short(compressor.body_weights)}\n"
          f"query {args.query_tokens}, {args.num_documents} documents of {args.document_tokens} tokens as "
          f"{args.num_memory_tokens} embeddings each, answer {args.answer_tokens}; one question, keys and values in "
          f"{BYTES_PER_VALUE} bytes\n\n{table(found)}")
    if output_file:
        report = {"settings": vars(args), "generator_weights": round(generator.body_weights),
                  "compressor_weights": round(compressor.body_weights), **{each.name: each.to_dict() for each in found}}
        write_json(output_file, report)
        print(f"\nwritten: {output_file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
