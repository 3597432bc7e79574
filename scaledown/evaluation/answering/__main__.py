"""Compare how well checkpoints answer.

All checkpoints get the same questions, and so do the baselines, read by the generator as it was (untuned): no
documents, text cut to the same budget, and the full text. A checkpoint of train.py --compressor_type none reads text
with a generator that was tuned like ScaleDown's: the full text, text cut to the same budget, and BM25's best passage
alone. A second table compares all pairs. Without data the questions are the demo world's (--questions). Each system's
figures are written as soon as they are measured.

    python -m scaledown.evaluation.answering --checkpoint embedded embedded_modernbert
    python -m scaledown.evaluation.answering --checkpoint squad_run/checkpoints/final --eval_data squad_eval.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from scaledown import cli, files, hub, processes
from scaledown.config import AUTO, EMBEDDED, EvaluationConfig
from scaledown.data.records import Record, read_records
from scaledown.data.storage.run_information import run_information
from scaledown.data.world.lengths import of_many_lengths
from scaledown.data.world.synthetic import Difficulty, synthetic_records

STANDARD, LONG = "standard", "long"
WORLD = {STANDARD: Difficulty(), "hard": Difficulty(hard_share=1.0, two_hop_share=0.0),
         "ten_documents": Difficulty((10, 10)), LONG: Difficulty()}
"""Questions of the demo world: five documents of all kinds; five that are hard negatives of one another; ten; and
the first kind with the documents of each question filled up to another length."""
USAGE = "[--checkpoint NAME ...] [--eval_data FILE] [--output_file FILE] [--FLAG VALUE ...]"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.evaluation.answering", USAGE)
    cli.add_checkpoint(parser, nargs="+", default=[EMBEDDED],
                       help=f"folders that training wrote, Hub ids, or names that ship, of one generator [{EMBEDDED}]")
    cli.add_eval_data(parser, "records to answer [the demo world's questions]")
    parser.add_argument("--questions", default=STANDARD, choices=tuple(WORLD), group="data",
                        help=f"kind of the demo world's questions [{STANDARD}]")
    cli.add_long_documents(parser)
    parser.add_argument("--numeric", action="store_true", group="data",
                        help="only the questions whose answers have a digit in them: years, dates, counts, amounts")
    cli.add_output_file(parser)

    # The systems beside each checkpoint.
    parser.add_argument("--baselines", action=argparse.BooleanOptionalAction, default=True, group="systems",
                        help="also measure the untuned baselines, with the first checkpoint's budget [yes]")
    parser.add_argument("--untrained", action="store_true", group="systems",
                        help="also measure a new compressor of each checkpoint's kind, before any training")
    parser.add_argument("--keep_documents", nargs="+", default=[], type=cli.number_or_auto, metavar="N",
                        group="systems", help="also measure checkpoints reading only their N best documents, or "
                        f"{AUTO!r}: above the threshold")
    parser.add_argument("--text_documents", nargs="+", default=[], type=cli.positive, metavar="N", group="systems",
                        help="also measure checkpoints reading this number of their best documents as text")
    parser.add_argument("--expand", nargs="+", default=[], type=cli.positive, metavar="N", group="systems",
                        help="also measure checkpoints reading this number as text only where they are unsure")
    parser.add_argument("--without_query", action="store_true", group="systems",
                        help="also measure memory made without the query")

    cli.add_flags(parser, EvaluationConfig, but=("timed_queries",))  # nothing is timed here
    cli.add_device(parser)
    cli.add_dtype(parser)
    cli.add_seed(parser, "seed of the demo world's questions, of new compressors and of the intervals' resamples")
    return parser


def load_records(eval_data: str | None, questions: str, count: int, seed: int,
                 only_numeric: bool = False) -> list[Record]:
    """Return the questions: the first ``count`` of a file, or the demo world's.

    Args:
        only_numeric: of these take those whose answer has a digit in it.

    Raises:
        ValueError: if the file cannot be read, or no answer has a digit in it.
    """
    if eval_data is not None:
        records = read_records(eval_data)[:count]
    else:
        records = synthetic_records(count, seed, split="eval", difficulty=WORLD[questions])
    if eval_data is None and questions == LONG:
        records = of_many_lengths(records, seed, share=1.0, split="eval")

    # The first of the answers that are accepted: others may write a number in words.
    records = list(records)
    if only_numeric:
        records = [record for record in records if any(map(str.isdigit, record.references[0]))]
    if not records:
        raise ValueError(f"--numeric: none of the first {count} questions has an answer with a digit in it; take more "
                         "with --eval_examples, or other --eval_data")
    return records


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Answer the questions with every system and compare them."""
    args = build_parser().parse_args(argv)
    config = cli.config_from(args, EvaluationConfig)
    output_file = files.output_file(args.output_file)
    records = load_records(args.eval_data, args.questions, config.eval_examples, args.seed, args.numeric)
    for name in args.checkpoint:
        hub.check_checkpoint(name)

    # Torch takes seconds to load; a wrong flag, file or name has been reported by now.
    from scaledown.evaluation.answering import comparison_table, pairs_table
    from scaledown.training import devices

    device = devices.resolve_device(args.device)
    if device.type == "cpu":
        devices.keep_freed_memory()

    source = args.eval_data or f"the embedded world, {args.questions}"
    if args.numeric:
        source += ", with numbers in their answers"
    num_documents = sum(len(record.documents) for record in records) / len(records)
    processes.say(f"{len(records)} questions of {source}, with {num_documents:.1f} documents each, on {device}")

    report: dict[str, Any] = {"systems": {}, "run": run_information(args.seed, device, sys.argv, vars(args))}
    found = {}
    for name, result in comparison_table.results(args, device, config, records):  # measured one by one
        found[name] = result
        report["systems"][name] = result.summary()
        # After each system, since a run with several checkpoints takes long and may be stopped.
        if output_file and processes.rank() == 0:
            files.write_json(output_file, report)

    compared = pairs_table.pairs(found, config.bootstrap_resamples, args.seed)
    report["pairs"] = [pair.to_dict() for pair in compared]
    if output_file and processes.rank() == 0:
        files.write_json(output_file, report)

    processes.say(comparison_table.table(found))
    # A single system has nothing to be compared with.
    if compared:
        processes.say("\n" + pairs_table.table(compared, comparison_table.LABELS))
    if output_file:
        processes.say(f"figures: {output_file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
