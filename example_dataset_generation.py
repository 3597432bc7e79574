"""Make synthetic records: questions about a generated world, with their documents and answers.

    python example_dataset_generation.py --num_examples 1000
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scaledown.cli import command
from scaledown.data.pipeline.trec import write_qrels
from scaledown.data.records import Record, eval_path, write_records
from scaledown.data.world.candidates import NUM_CANDIDATES, qrels_of, ranking_records
from scaledown.data.world.synthetic import Difficulty, synthetic_records
from scaledown.files import whole_files

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


def qrels_path(path: Path) -> Path:
    """Return where it is said which documents of the records at ``path`` are relevant."""
    return path.with_name(f"{path.stem}_qrels.txt")


def write(halves: Mapping[Path, Sequence[Record]], with_qrels: bool) -> None:
    """Write the records of both halves and, if wanted, their qrels: all of these files, or none."""
    qrels = {qrels_path(path): qrels_of(records) for path, records in halves.items()} if with_qrels else {}
    with whole_files([*halves, *qrels]) as drafts:
        for draft, records in zip(drafts, halves.values(), strict=False):
            write_records(draft, records)
        for draft, judged in zip(drafts[len(halves):], qrels.values(), strict=True):
            write_qrels(draft, judged)


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
    path = Path(args.output_file)
    numbers = {path: args.num_examples, eval_path(path): max(1, args.num_examples // EVAL_SHARE)}
    halves = {file: list(make_records(args, number, split))
              for (file, number), split in zip(numbers.items(), ("train", "eval"), strict=True)}
    write(halves, args.ranking)
    for file, records in halves.items():
        print(f"{file}: {len(records)} records")
        if args.ranking:
            print(f"{qrels_path(file)}: which of their documents are relevant")
    records = halves[eval_path(path)]
    print(f"for example: {records[0].query} -> {records[0].answer}")
    for document in records[0].documents:
        print(f"  - {document}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
