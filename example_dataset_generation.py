"""Make synthetic records about a made-up world.

Each has a question, its documents and its answer. A fifth as many evaluation records, about entities that are not in
training, go to X_eval.json beside X.json.

    python example_dataset_generation.py --num_examples 1000
    python example_dataset_generation.py --ranking --output_file ranking.json
"""

from __future__ import annotations

from scaledown import cli, files  # first, so that Ctrl-C ends quietly from here on

# isort: split
import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scaledown.data.pipeline.trec import write_qrels
from scaledown.data.records import Record, eval_path, write_records
from scaledown.data.world.candidates import NUM_CANDIDATES, qrels_of, ranking_records
from scaledown.data.world.synthetic import Difficulty, synthetic_records
from scaledown.files import whole_files
from scaledown.settings import positive, require


def build_parser() -> argparse.ArgumentParser:
    """Return the script's flags."""
    parser = cli.new_parser(__doc__)
    parser.add_argument("--num_examples", type=int, default=1000, metavar="N", help="training records [1000]")
    parser.add_argument("--num_documents", type=int, metavar="N", help="documents of a question [5; with --ranking 20]")
    parser.add_argument("--ranking", action="store_true", help="make records for reranking: one or two relevant "
                        "documents among similar ones; X_qrels.txt beside X.json says which")
    parser.add_argument("--output_file", default="synthetic_train_data.json", metavar="FILE",
                        help="training records [synthetic_train_data.json]")
    cli.add_seed(parser, "seed of the world")
    return parser


def make_records(args: argparse.Namespace, num_records: int, split: str) -> Iterator[Record]:
    """Return the records of one half."""
    if args.ranking:
        return ranking_records(num_records, args.seed, split, args.num_documents)
    return synthetic_records(num_records, args.seed, split, Difficulty((args.num_documents, args.num_documents)))


def write(halves: Mapping[Path, Sequence[Record]], with_qrels: bool) -> list[Path]:
    """Write the records of both halves and, if wanted, their qrels: all of these files or none; return their paths."""
    qrels = {}
    if with_qrels:
        qrels = {path.with_name(f"{path.stem}_qrels.txt"): qrels_of(records) for path, records in halves.items()}

    # The drafts have the order of the paths: first the records, then the qrels.
    with whole_files([*halves, *qrels]) as drafts:
        for draft, records in zip(drafts, halves.values(), strict=False):
            write_records(draft, records)
        for draft, relevance in zip(drafts[len(halves):], qrels.values(), strict=True):
            write_qrels(draft, relevance)
    return [*halves, *qrels]


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Write both halves, and show one record."""
    args = build_parser().parse_args(argv)
    if args.num_documents is None:
        args.num_documents = NUM_CANDIDATES if args.ranking else 5
    require(positive(args, "num_examples", "num_documents"))

    # The halves share no entity, so the second measures what training could not memorise.
    evaluation = eval_path(args.output_file)
    training = files.output_file(args.output_file)
    halves = {training: list(make_records(args, args.num_examples, "train")),
              evaluation: list(make_records(args, max(1, args.num_examples // 5), "eval"))}
    for file in write(halves, args.ranking):
        print(f"{file}: {len(halves[file])} records" if file in halves else f"{file}: which documents are relevant")

    example = halves[evaluation][0]
    print("\n  - ".join([f"for example: {example.query} -> {example.answer}", *example.documents]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
