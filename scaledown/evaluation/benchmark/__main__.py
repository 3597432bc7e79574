"""Measure the speed of answering, or of training.

ScaleDown against full text, text cut to the same budget, and the naive query-dependent compressor, all on the same
random weights, taking turns in one process: no download, on a CPU or on CUDA. Times are medians over the rounds.

    python -m scaledown.evaluation.benchmark inference
    python -m scaledown.evaluation.benchmark training --preset tiny --num_documents 5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaledown import cli
from scaledown.data.records import read_records
from scaledown.data.storage.run_information import run_information
from scaledown.evaluation.benchmark.ratios import MEMORY_TOKENS, SYSTEMS, growth, ratio_table, ratios, share_table
from scaledown.files import make_folder, write_json
from scaledown.settings import positive, require

if TYPE_CHECKING:
    from scaledown.evaluation.benchmark.bench import Bench
USAGE = "inference|training [--preset NAME] [--num_documents N ...] [--output_dir FOLDER] [--FLAG VALUE ...]"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.evaluation.benchmark", USAGE)

    # The model's shape.
    parser.add_argument("what", choices=("inference", "training"), help="the speed to measure")
    parser.add_argument("--preset", default="small", choices=("tiny", "small", "paper"), group="model",
                        help="small: 12 layers of width 512, 3 in the compressor, vocabulary 32,000; paper: Mistral-7B "
                        "with 8; tiny: to try the benchmark itself [small]")
    parser.add_argument("--generator_model", metavar="NAME", group="model",
                        help="another shape than the preset's: a model's name, folder or config.json")
    parser.add_argument("--num_layers", type=cli.positive, metavar="N", group="model",
                        help="layers of the compressor [the preset's]")

    # The texts: their lengths in tokens and their number.
    parser.add_argument("--num_documents", type=int, nargs="+", metavar="N", group="texts",
                        help="documents of a question [1 5 10 20 50; training: 5]")
    for name, default, text in (
            ("batch_size", 4, "questions at a time"), ("query_tokens", 128, "tokens of a query"),
            ("document_tokens", 128, "tokens of a document"), ("answer_tokens", 32, "tokens of an answer")):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", group="texts",
                            help=f"{text} [{default}]")
    parser.add_argument("--train_data", metavar="FILE", group="texts", help="training: take the texts' lengths from "
                        "these records (token counts of the embedded tokenizer, cut at the budgets)")

    # Systems, output and machine.
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, metavar="NAME", group="measurement",
                        help=f"any of {', '.join(SYSTEMS)} [all]")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", group="measurement",
                        help="times that each is measured [7]")
    parser.add_argument("--output_dir", default="./benchmark", metavar="FOLDER", group="measurement",
                        help="folder of the JSON and the figures [./benchmark]")
    cli.add_device(parser)
    return parser


def check(args: argparse.Namespace) -> None:
    """Refuse settings that make no sense, all of them together.

    Raises:
        ValueError: if there are any.
    """
    faults = positive(args, "batch_size", "query_tokens", "document_tokens", "answer_tokens", "rounds")
    faults += [f"--num_documents must be above 0, got {count}" for count in args.num_documents or () if count < 1]
    if args.document_tokens % MEMORY_TOKENS:
        faults.append(f"--document_tokens must be a multiple of the {MEMORY_TOKENS} memory tokens, "
                      f"got {args.document_tokens}")
    if args.train_data and args.what == "inference":
        faults.append("--train_data belongs to training")
    elif args.train_data and args.num_documents:
        faults.append("--num_documents does not go with --train_data, whose records have their own; leave out one of "
                      "the two")
    require(faults)
    # A folder that cannot be made, and records with faults, are reported before the work.
    make_folder(Path(args.output_dir))
    if args.train_data:
        read_records(args.train_data)


def write(folder: Path, args: argparse.Namespace, rows: list[dict[str, Any]], bench: Bench) -> None:
    """Write the JSON and draw the figures."""
    report = {"run": run_information(0, bench.device, sys.argv, vars(args)), "ratios": ratios(rows),
              "growth": growth(rows), "rows": rows}
    write_json(folder / f"benchmark_{args.what}.json", report)

    # Training has one time per step, which the table shows as well as a figure would.
    if args.what == "inference":
        from scaledown.evaluation.figures import speed
        from scaledown.evaluation.figures.style import Figures

        # A generator of its own takes the place of the preset.
        model = args.generator_model or f"{args.preset} preset"
        setup = (f"{model}, batch {args.batch_size}, on {report['run']['device']}, "
                 f"n = {args.rounds} rounds")
        figures = Figures(folder)
        figures.draw("cost_by_documents.png", speed.plot_by_documents, rows, setup)
        figures.draw("time_by_phase.png", speed.plot_by_phase, rows, setup)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the ratios, write the figures."""
    args = build_parser().parse_args(argv)
    check(args)
    # Records have their own numbers of documents.
    if not args.num_documents and not args.train_data:
        args.num_documents = [5] if args.what == "training" else [1, 5, 10, 20, 50]

    # Torch takes seconds to load; a wrong flag has been reported by now.
    from scaledown.evaluation.benchmark.bench import build_bench
    from scaledown.evaluation.benchmark.measures import measure_inference, measure_training

    bench = build_bench(args)
    print(f"{args.what} benchmark: {bench.shape.config.num_hidden_layers} layers of width "
          f"{bench.shape.config.hidden_size}, {bench.shape.num_layers} in the compressor, {bench.dtype} on "
          f"{bench.device}, {args.rounds} rounds of {', '.join(args.systems)}")

    measure = measure_inference if args.what == "inference" else measure_training
    rows = measure(args, bench)
    write(Path(args.output_dir), args, rows, bench)

    parts = [ratio_table(rows), "\n".join(growth(rows)), share_table(rows)]
    print("\n\n".join(part for part in parts if part))
    print(f"results: {args.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
