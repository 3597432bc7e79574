"""Measure speed: python -m scaledown.evaluation.benchmark inference|training

ScaleDown against full text, text cut to the same budget, and the naive query-dependent compressor, all on the same
random weights, taking turns in one process: no download, on a CPU or on CUDA. Times are medians over the rounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaledown import cli
from scaledown.config import DEVICES
from scaledown.evaluation.benchmark.ratios import MEMORY_TOKENS, SYSTEMS, growth, ratio_table, ratios, share_table
from scaledown.files import write_json
from scaledown.run_information import run_information
from scaledown.settings import positive, require

if TYPE_CHECKING:
    from scaledown.evaluation.benchmark.bench import Bench


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.evaluation.benchmark")

    # The model's shape.
    parser.add_argument("what", choices=("inference", "training"))
    parser.add_argument("--preset", default="small", choices=("tiny", "small", "paper"),
                        help="small: 12 layers of width 512, 3 in the compressor, vocabulary 32,000; paper: Mistral-7B "
                        "with 8; tiny: to try the benchmark itself [small]")
    parser.add_argument("--generator_model", metavar="NAME_OR_CONFIG", help="another shape than the preset's")
    parser.add_argument("--num_layers", type=cli.positive, help="layers of the compressor [the preset's]")

    # The texts: their lengths in tokens and how many there are.
    parser.add_argument("--num_documents", type=int, nargs="+", help="[1 5 10 20 50; training: 5]")
    parser.add_argument("--batch_size", type=int, default=4, help="questions at a time [4]")
    for name, default in (("query_tokens", 128), ("document_tokens", 128), ("answer_tokens", 32), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"[{default}]")
    parser.add_argument("--records", help="training: take the texts' lengths from this file of records (token counts "
                        "of the embedded tokenizer, cut at the budgets) instead of full length")

    # Systems, machine and output.
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="[all]")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="[auto]")
    parser.add_argument("--output_dir", default="benchmark", help="gets the JSON and the figures [./benchmark]")
    return parser


def check(args: argparse.Namespace) -> None:
    """Refuse settings that make no sense, all of them together.

    Raises:
        ValueError: if there are any.
    """
    faults = positive(args, "batch_size", "query_tokens", "document_tokens", "answer_tokens", "rounds")
    faults += [f"--num_documents must be above 0, got {count}" for count in args.num_documents if count < 1]
    if args.document_tokens % MEMORY_TOKENS:
        faults.append(f"--document_tokens must be a multiple of the {MEMORY_TOKENS} memory tokens, "
                      f"got {args.document_tokens}")
    if args.records and args.what == "inference":
        faults.append("--records belongs to training")
    require(faults)


def write(folder: Path, args: argparse.Namespace, rows: list[dict[str, Any]], bench: Bench) -> None:
    """Write the JSON and draw the figures."""
    report = {"run": run_information(0, bench.device, sys.argv, vars(args)), "ratios": ratios(rows),
              "growth": growth(rows), "rows": rows}
    write_json(folder / f"benchmark_{args.what}.json", report)

    # Training has one time per step, which the table shows as well as a figure would.
    if args.what == "inference":
        from scaledown.evaluation.figures import speed
        from scaledown.evaluation.figures.style import Figures

        setup = (f"{args.preset} preset, batch {args.batch_size}, on {report['run']['device']}, "
                 f"n = {args.rounds} rounds")
        figures = Figures(folder)
        figures.draw("cost_by_documents.png", speed.plot_by_documents, rows, setup)
        figures.draw("time_by_phase.png", speed.plot_by_phase, rows, setup)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the ratios, write the figures."""
    args = build_parser().parse_args(argv)
    if not args.num_documents:
        args.num_documents = [5] if args.what == "training" else [1, 5, 10, 20, 50]
    check(args)

    # Torch takes seconds to load; a wrong flag has been reported by now.
    from scaledown.evaluation.benchmark.bench import build_bench
    from scaledown.evaluation.benchmark.measures import measure_inference, measure_training
    from scaledown.training import run_folder

    bench = build_bench(args)
    run_folder.make(Path(args.output_dir))  # one that cannot be made is reported before the work
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
