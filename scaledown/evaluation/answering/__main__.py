"""Compare how well checkpoints answer: python -m scaledown.evaluation.answering --checkpoint C --eval_data X.json

All checkpoints get the same questions, and so do the baselines: the generator without documents, with text cut to the
same budget, and with the full text. Without data the questions are the embedded world's (--questions). Each system's
figures are written as soon as they are measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from scaledown import cli, processes
from scaledown.config import DEVICES, EMBEDDED, EvaluationConfig, TrainingConfig
from scaledown.data.records import Record, read_records
from scaledown.data.world.lengths import of_many_lengths
from scaledown.data.world.synthetic import Difficulty, synthetic_records
from scaledown.evaluation.evaluator import SystemResult, evaluate_system
from scaledown.evaluation.metrics import METRICS
from scaledown.evaluation.systems import BASELINES, SCALEDOWN, keeping
from scaledown.files import write_json
from scaledown.models.memory import AUTO, Keep, check_keep_documents
from scaledown.models.model import ScaleDownModel
from scaledown.run_information import run_information
from scaledown.training import run, run_folder
from scaledown.training.devices import dtype_for, keep_freed_memory, resolve_device

STANDARD, LONG = "standard", "long"
WORLD = {STANDARD: Difficulty(), "hard": Difficulty(hard_share=1.0, two_hop_share=0.0),
         "ten_documents": Difficulty((10, 10)), LONG: Difficulty()}
"""Questions of the embedded world: five documents of all kinds; five that are hard negatives of one another; ten; and
the first kind with the documents of each question filled up to another length."""
UNTRAINED = " (not trained)"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = argparse.ArgumentParser(prog="python -m scaledown.evaluation.answering", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)

    # What is compared.
    parser.add_argument("--checkpoint", nargs="+", default=[EMBEDDED], help="folders that training wrote, Hub ids, or "
                        f"names that ship, of one generator [{EMBEDDED}]")
    parser.add_argument("--eval_data", help="records to answer [the embedded world's questions]")
    parser.add_argument("--questions", default=STANDARD, choices=tuple(WORLD),
                        help=f"kind of the embedded world's questions [{STANDARD}]")
    parser.add_argument("--baselines", action=argparse.BooleanOptionalAction, default=True,
                        help="also measure the baselines, with the first checkpoint's budget [yes]")
    parser.add_argument("--untrained", action="store_true",
                        help="also measure a new compressor of each checkpoint's kind, before any training")
    parser.add_argument("--keep_documents", nargs="+", default=[], type=_count, metavar="N",
                        help="also measure checkpoints reading only the documents that they score highest: this "
                        f"number of them, or {AUTO!r} for those above the threshold")

    # Output, machine and settings.
    parser.add_argument("--output_file", help="write the figures there, as JSON")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="device to run on [auto]")
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed, help="of the embedded world's questions, of "
                        f"new compressors and of the intervals' resamples [{TrainingConfig.seed}]")
    cli.add_flags(parser, EvaluationConfig, but=("timed_queries",))  # nothing is timed here
    return parser


def _count(text: str) -> Keep:
    if text == AUTO:
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number above 0 or {AUTO!r}, got {text!r}")
    return cli.positive(text)


def load_records(eval_data: str | None, questions: str, count: int, seed: int) -> list[Record]:
    """Return the questions: the first ``count`` of a file, or the embedded world's."""
    if eval_data is not None:
        return read_records(eval_data)[:count]

    records = synthetic_records(count, seed, split="eval", difficulty=WORLD[questions])
    if questions == LONG:
        records = of_many_lengths(records, seed, share=1.0, split="eval")
    return list(records)


def results(args: argparse.Namespace, device: torch.device, config: EvaluationConfig,
            records: Sequence[Record]) -> Iterator[tuple[str, SystemResult]]:
    """Yield each system's name and result as it is measured."""
    for number, name in enumerate(args.checkpoint):
        model = ScaleDownModel.from_pretrained(name, device=device, dtype=dtype_for(device))
        _check_keeping(name, model, args.keep_documents)

        # Baselines switch the adapter off, so any checkpoint of this generator gives the same answers.
        if number == 0 and args.baselines:
            for system in BASELINES:
                yield system.name, evaluate_system(model, system, records, config, args.seed)

        if args.untrained:
            new = run.build_model(model.config, device, args.seed)
            yield name + UNTRAINED, evaluate_system(new, SCALEDOWN, records, config, args.seed)

        yield name, evaluate_system(model, SCALEDOWN, records, config, args.seed)
        for count in args.keep_documents:
            yield f"{name} ({count} kept)", evaluate_system(model, keeping(count), records, config, args.seed)


def _check_keeping(name: str, model: ScaleDownModel, counts: Sequence[Keep]) -> None:
    """Refuse counts of ``--keep_documents`` that this checkpoint cannot keep, before minutes of answering."""
    try:
        for count in counts:
            check_keep_documents(count, model.config.enable_reranking, model.config.keep_threshold)
    except ValueError as fault:
        raise ValueError(f"--keep_documents with --checkpoint {name}: {fault}") from None


def line(name: str, result: SystemResult) -> str:
    """Return a system's line of the table: each metric with its 95% interval, and the prompt's length in tokens."""
    cells = [f"{name:<32}"]
    for metric in METRICS:
        mean, (low, high) = result.averages[f"{metric}_avg"], result.averages[f"{metric}_ci95"]
        cells.append(f"{mean:>8.3f} [{low:.3f}, {high:.3f}]")

    cells.append(f"{result.mean_prompt_tokens:>9.1f}")
    return "".join(cells)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Answer the questions with every system and compare them."""
    args = build_parser().parse_args(argv)
    config, device = cli.config_from(args, EvaluationConfig), resolve_device(args.device)
    TrainingConfig(seed=args.seed)  # refuses a wrong seed
    output_file = run_folder.output_file(args.output_file)
    records = load_records(args.eval_data, args.questions, config.eval_examples, args.seed)
    if device.type == "cpu":
        keep_freed_memory()

    source = args.eval_data or f"the embedded world, {args.questions}"
    num_documents = sum(len(record.documents) for record in records) / len(records)
    processes.say(f"{len(records)} questions of {source}, with {num_documents:.1f} documents each, on {device}")

    report: dict[str, Any] = {"systems": {}, "run": run_information(args.seed, device, sys.argv, vars(args))}
    lines = [f"{f'n = {len(records)}':<32}" + "".join(f"{metric:>23}" for metric in METRICS) + f"{'prompt':>9}"]
    for name, result in results(args, device, config, records):  # measured one by one
        lines.append(line(name, result))
        report["systems"][name] = result.summary()
        # After each system, since a run with several checkpoints takes long and may be stopped.
        if output_file and processes.rank() == 0:
            write_json(output_file, report)

    processes.say("\n".join(lines) + (f"\nfigures: {output_file}" if output_file else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
