"""Compute the cost of an answer, or the memory of training.

Prints FLOPs by phase, parameters and the key-value cache of one question: full text, ScaleDown, a compressor that reads
the query again with each document, and one that reads the document first, also with stored readings. With --training it
prints the memory that training and answering need, and the flags that GPUs of 16 to 80 GB need. Only shapes are read.

    python -m scaledown.evaluation.cost --generator_model embedded --num_documents 5
    python -m scaledown.evaluation.cost --training --gradient_checkpointing --gradient_accumulation_steps 16
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scaledown import cli, files
from scaledown.config import COMPRESSOR_TYPES, DEFAULT_ENCODER, DEFAULT_LLM, DTYPES, OPTIMIZERS, TrainingConfig
from scaledown.evaluation.cost.known_shapes import KNOWN_NAMES
from scaledown.settings import positive, require

PAPER_GENERATOR = "mistralai/Mistral-7B-Instruct-v0.2"
USAGE = "[--generator_model NAME] [--num_layers N] [--training] [--output_file FILE] [--FLAG VALUE ...]"
OF_TRAINING = ("batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "optimizer",
               "compressor_lora_rank", "load_in_4bit", "dtype")
"""Flags that are read beside ``--training`` alone."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags; the paper's setting (table 1) is the default."""
    parser = cli.new_parser(__doc__, "scaledown.evaluation.cost", USAGE)
    parser.add_argument("--generator_model", default=PAPER_GENERATOR, metavar="NAME", group="model",
                        help=f"a model's name, folder or config.json [{PAPER_GENERATOR}]; without a network "
                        f"embedded and {len(KNOWN_NAMES)} names of known_shapes.py")
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

    # The training.
    parser.add_argument("--training", action="store_true", group="training", help="print memory instead of FLOPs")
    parser.add_argument("--batch_size", type=int, default=TrainingConfig.batch_size, metavar="N", group="training",
                        help=f"questions of a step [{TrainingConfig.batch_size}]")
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1, metavar="N", group="training",
                        help="micro-batches of a step [1]")
    parser.add_argument("--gradient_checkpointing", action="store_true", group="training",
                        help="compute activations twice")
    parser.add_argument("--optimizer", default=OPTIMIZERS[0], choices=OPTIMIZERS, group="training",
                        help=f"its state takes 2 to 8 bytes a weight [{OPTIMIZERS[0]}]")
    parser.add_argument("--compressor_lora_rank", type=cli.positive, metavar="N", group="training",
                        help="train the compressor by LoRA of this rank [all its weights]")
    parser.add_argument("--load_in_4bit", action="store_true", group="training", help="the generator in 4 bits")

    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES, group="training",
                        help="number format [bfloat16]")

    # The way to count.
    parser.add_argument("--lora_rank", type=int, default=0, metavar="N", group="count",
                        help="rank of a LoRA adapter that is not merged into the generator; 0 is merged [0]")
    parser.add_argument("--measure_flops", action="store_true", group="count",
                        help="also let PyTorch count, without values")
    cli.add_output_file(parser)
    return parser


def check(args: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, all of them together.

    Raises:
        ValueError: if a count is below 0, there is no memory or answer token, or a flag would not be read.
    """
    names = ("num_documents", "query_tokens", "document_tokens", "system_tokens", "lora_rank")
    faults = [f"--{name} must be at least 0, got {getattr(args, name)}" for name in names if getattr(args, name) < 0]

    # Flags that one of the two tables does not read.
    defaults = vars(build_parser().parse_args([]))
    unread = ("measure_flops",) if args.training else OF_TRAINING
    reason = "does not go with --training" if args.training else "belongs to --training: give that, too"
    faults += [f"--{name} {reason}" for name in unread if getattr(args, name) != defaults[name]]
    require(faults + positive(args, "num_memory_tokens", "answer_tokens"))


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Print the costs, and write them if asked to."""
    args = build_parser().parse_args(argv)
    check(args)
    output_file = files.output_file(args.output_file)

    # Torch takes seconds to load; a mistyped flag has been reported by now.
    return print_memory(args, output_file) if args.training else print_flops(args, output_file)


def print_memory(args: argparse.Namespace, output_file: Path | None) -> int:
    """Print the memory that training and answering need, and write it if asked to."""
    from scaledown.evaluation.cost.card_table import USABLE, report

    text, figures = report(args)
    print(f"{args.generator_model}, {args.compressor_type} compressor: {args.batch_size} questions a step in "
          f"{args.gradient_accumulation_steps} parts,\n{args.num_documents} documents of "
          f"{args.document_tokens} tokens each, query {args.query_tokens}, answer {args.answer_tokens}\n"
          f"estimates in {args.dtype}, GB of 10^9 bytes; what is trained is held in float32, and a card filled to "
          f"{USABLE:.0%} at most;\nfor_answering() on the CPU, before the model is moved to the GPU\n\n{text}")
    if output_file:
        files.write_json(output_file, {"settings": vars(args), **figures})
        print(f"\nwritten: {output_file}")
    return 0


def print_flops(args: argparse.Namespace, output_file: Path | None) -> int:
    """Print the FLOPs of an answer, and write them if asked to."""
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
