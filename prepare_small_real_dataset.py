"""Make records of a real QA dataset: questions with their gold passages among hard negatives, in two halves.

    python prepare_small_real_dataset.py --dataset squad --num_examples 500
    python prepare_small_real_dataset.py --dataset hotpot_qa --source hotpot_dev_distractor_v1.json
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from scaledown import hub
from scaledown.cli import add_flags, command, config_from
from scaledown.config import EMBEDDED
from scaledown.data.passages import TokenCounter, token_counter
from scaledown.data.qa.datasets import Prepared, QADatasetConfig, mixed, prepare, require_source
from scaledown.data.records import Record, eval_path, write_records_together


def build_parser() -> argparse.ArgumentParser:
    """The script's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, QADatasetConfig)
    parser.add_argument("--output_file", default="small_real_dataset.json",
                        help="the training records; the evaluation half goes to X_eval.json beside X.json "
                             "[small_real_dataset.json]")
    parser.add_argument("--generator_model", default=EMBEDDED,
                        help=f"whose tokenizer counts a passage's tokens: a Hub id, a local folder, or 'embedded' "
                             f"[{EMBEDDED}]")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare both halves, write them, and say what was got."""
    args = build_parser().parse_args(argv)
    config = config_from(args, QADatasetConfig)
    paths = (Path(args.output_file), eval_path(args.output_file))
    print(f"{config.dataset}: {config.num_examples} training and {config.num_eval_examples} evaluation records of "
          f"{config.num_documents} documents, from {config.source or 'the Hub'} ({config.split})")
    require_source(config)
    count_tokens = token_counter(hub.load_tokenizer(args.generator_model))
    parts = prepare(config, count_tokens)
    for part in parts:
        tell_source(part)
    halves = mixed(parts, config.seed)
    write_records_together(dict(zip(paths, halves, strict=True)))
    wanted = (config.num_examples, config.num_eval_examples)
    for name, path, records, number in zip(("training", "evaluation"), paths, halves, wanted, strict=True):
        print(f"{name}: {path}: {describe(records, config.num_documents, count_tokens)}"
              + f"; {number} were asked for" * (len(records) < number))
    if any(len(records) < number for records, number in zip(halves, wanted, strict=True)):
        print(f"no more of the questions that were read can be used{left_out(parts)}")
    return 0


def tell_source(part: Prepared) -> None:
    """Print what one dataset gave, and what was left out and why."""
    print(f"{part.dataset}: {len(part.train)} training and {len(part.eval)} evaluation records from {part.description}")
    for reason, count in part.dropped.most_common():
        print(f"  {count} left out: {reason}")
    for reason in part.left_out_files:
        print(f"  a file left out: {reason}")


def left_out(parts: Sequence[Prepared]) -> str:
    """Return how many questions were left out in all datasets together, and why, as the end of a sentence."""
    dropped = sum((part.dropped for part in parts), Counter())
    reasons = "; ".join(f"{count} because {reason}" for reason, count in dropped.most_common())
    return f"; {dropped.total()} were left out: {reasons}" * bool(dropped)


def describe(records: Sequence[Record], num_documents: int, count_tokens: TokenCounter) -> str:
    """How many records and documents there are, and how long the documents are."""
    documents = [document for record in records for document in record.documents]
    tokens = count_tokens(documents)
    short = sum(len(record.documents) < num_documents for record in records)
    return (f"{len(records)} records, {len(documents) / len(records):.1f} documents each "
            f"({mean(tokens):.0f} tokens on average, {max(tokens)} at most)"
            + f"; {short} have fewer than {num_documents}, for want of hard negatives" * bool(short))


if __name__ == "__main__":
    sys.exit(main())
