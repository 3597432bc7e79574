"""Make synthetic records: questions about a generated world, with their documents and answers.

    python example_dataset_generation.py --num_examples 1000
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from scaledown.cli import command
from scaledown.data.records import Record, eval_path, write_records
from scaledown.data.synthetic import Difficulty, synthetic_records
from scaledown.data.synthetic_ranking import NUM_CANDIDATES, qrels_of, ranking_records
from scaledown.data.trec import write_qrels

EVAL_SHARE = 5


def build_parser() -> argparse.ArgumentParser:
    """The script's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_examples", type=int, default=1000, help="training records [1000]")
    parser.add_argument("--num_documents", type=int, help="documents a question [5; with --ranking 20]")
    parser.add_argument("--ranking", action="store_true", help="records for reranking: one or two relevant documents "
                        "among many that are nearly so; which they are goes to X_qrels.txt beside X.json")
    parser.add_argument("--output_file", default="synthetic_train_data.json",
                        help="the training records; a fifth as many evaluation records, about entities that training "
                             "never names, go to X_eval.json beside X.json [synthetic_train_data.json]")
    parser.add_argument("--seed", type=int, default=42, help="seed of the world [42]")
    return parser


def make_records(args: argparse.Namespace, num_records: int, split: str) -> Iterator[Record]:
    """The records of one half."""
    if args.ranking:
        return ranking_records(num_records, args.seed, split, args.num_documents)
    difficulty = Difficulty(num_documents=(args.num_documents, args.num_documents))
    return synthetic_records(num_records, args.seed, split, difficulty)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write both halves, and show one record."""
    args = build_parser().parse_args(argv)
    if args.num_documents is None:
        args.num_documents = NUM_CANDIDATES if args.ranking else 5
    faults = [f"--{name} must be above 0, got {getattr(args, name)}" for name in ("num_examples", "num_documents")
              if getattr(args, name) < 1]
    if faults:
        raise ValueError("; ".join(faults))
    eval_file = eval_path(args.output_file)
    halves = {"train": (Path(args.output_file), args.num_examples),
              "eval": (eval_file, max(1, args.num_examples // EVAL_SHARE))}
    for split, (path, num_records) in halves.items():
        records = list(make_records(args, num_records, split))
        write_records(path, records)
        print(f"{path}: {num_records} records")
        if args.ranking:
            qrels = path.with_name(f"{path.stem}_qrels.txt")
            write_qrels(qrels, qrels_of(records))
            print(f"{qrels}: which of their documents are relevant")
    print(f"for example: {records[0].query} -> {records[0].answer}")
    for document in records[0].documents:
        print(f"  - {document}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
