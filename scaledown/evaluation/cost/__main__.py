"""Compute the cost of an answer from shapes.

Prints FLOPs by phase, parameters and the generator's key-value cache for one question: full text, ScaleDown, the naive
compressor that reads the query again with each document, and a compressor that reads the document first, with and
without stored readings of the documents. No weights are needed, so a model of any size can be given.

    python -m scaledown.evaluation.cost
    python -m scaledown.evaluation.cost --generator_model embedded --num_documents 5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scaledown import cli, files
from scaledown.config import COMPRESSOR_TYPES, DEFAULT_ENCODER, DEFAULT_LLM
from scaledown.evaluation.cost.known_shapes import KNOWN_NAMES
from scaledown.settings import positive, require

PAPER_GENERATOR = "mistralai/Mistral-7B-Instruct-v0.2"
USAGE = "[--generator_model NAME] [--num_layers N] [--num_documents N] [--output_file FILE] [--FLAG VALUE ...]"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags; the paper's setting (table 1) is the default."""
    parser = cli.new_parser(__doc__, "scaledown.evaluation.cost", USAGE)
    parser.add_argument("--generator_model", default=PAPER_GENERATOR, metavar="NAME", group="model",
                        help=f"a model's name, folder or config.json [{PAPER_GENERATOR}]; without a network: "
                        f"embedded, {', '.join(KNOWN_NAMES)}")
    parser.add_argument("--compressor_type", default="n_layers", choices=COMPRESSOR_TYPES, group="model",
                        help="compressor [n_layers]")
    parser.add_argument("--num_layers", type=cli.positive, metavar="N", group="model",
                        help="layers of the n_layers compressor [8, or a third of a generator that has fewer than 24]")
    parser.add_argument("--compressor_model", metavar="NAME", group="model", help="the model of a modernbert "
                        f"[{DEFAULT_ENCODER}] or llm [{DEFAULT_LLM}] compressor")

    # The question.
    for name, default, text in (
            ("num_documents", 10, "documents of the question"), ("query_tokens", 128, "tokens of the query"),
            ("document_tokens", 128, "tokens of each document"), ("answer_tokens", 32, "tokens of the answer"),
            ("num_memory_tokens", 8, "embeddings that stand for one document"),
            ("system_tokens", 0, "tokens of the prompt beside query and documents; the paper counts none")):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", group="question",
                            help=f"{text} [{default}]")

    # The way to count.
    parser.add_argument("--lora_rank", type=int, default=0, metavar="N", group="count",
                        help="rank of a LoRA adapter that is not merged into the generator; 0 is merged [0]")
    parser.add_argument("--measure_flops", action="store_true", group="count",
                        help="also run the real code on shapes without values, and let PyTorch count")
    cli.add_output_file(parser)
    return parser


def check(args: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, all of them together.

    Raises:
        ValueError: if a count is below 0, or there is no memory or answer token.
    """
    names = ("num_documents", "query_tokens", "document_tokens", "system_tokens", "lora_rank")
    faults = [f"--{name} must be at least 0, got {getattr(args, name)}" for name in names if getattr(args, name) < 0]
    require(faults + positive(args, "num_memory_tokens", "answer_tokens"))


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Print the costs, and write them if asked to."""
    args = build_parser().parse_args(argv)
    check(args)
    output_file = files.output_file(args.output_file)

    # Torch takes seconds to load; a mistyped flag has been reported by now.
    from scaledown.evaluation.cost.question_cost import (
        BYTES_PER_VALUE,
        compressor_of_flags,
        costs,
        generator_of_flags,
        short,
        table,
    )

    ways = costs(args)
    generator = generator_of_flags(args)
    compressor = compressor_of_flags(args, generator)

    print(f"{args.generator_model}\n"
          f"generator: {generator.num_layers} layers of width {generator.hidden_size}, "
          f"{short(generator.body_weights)} weights in its linear maps\n"
          f"{args.compressor_type} compressor: {compressor.num_layers} layers, "
          f"{short(compressor.body_weights)} weights\n"
          f"query {args.query_tokens}, {args.num_documents} documents of {args.document_tokens} tokens as "
          f"{args.num_memory_tokens} embeddings each, answer {args.answer_tokens}\n"
          f"one question; keys and values in {BYTES_PER_VALUE} bytes\n\n{table(ways)}")

    if output_file:
        # Weights of mixtures of experts are those that a token meets on average, so they need not be whole.
        report = {"settings": vars(args), "generator_weights": round(generator.body_weights),
                  "compressor_weights": round(compressor.body_weights)}
        for way in ways:
            report[way.name] = way.to_dict()
        files.write_json(output_file, report)
        print(f"\nwritten: {output_file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
