"""The reranking teacher's scores, by a cross-encoder: python -m scaledown.data.reranking --train_data X.json

A cross-encoder reads a query and a document together and says in one number how relevant the document is. Its raw
logits become the ``reranking_scores`` of records, which the compressor learns to give (paper, equation 3).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from scaledown.cli import add_flags, command, config_from
from scaledown.data.records import read_records, write_records
from scaledown.data.reranking.reranker import Pair, Reranker, RerankerConfig, pairs_of, with_scores
from scaledown.data.storage import fingerprints
from scaledown.data.storage.append_log import AppendLog, key_of


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(prog="python -m scaledown.data.reranking", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data", required=True, help="records to be scored, JSON or JSONL")
    parser.add_argument("--output_file", required=True, help="the records with their reranking_scores; a killed run "
                        "goes on where it was")
    add_flags(parser, RerankerConfig)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Score every document of every record."""
    args = build_parser().parse_args(argv)
    config, output_file = config_from(args, RerankerConfig), Path(args.output_file)
    records = read_records(args.train_data)
    pairs = pairs_of(records)
    print(f"{args.train_data}: {len(records)} records, {len(pairs)} documents to be scored by {config.reranker_model}")
    reranker, kept_in = Reranker(config), output_file.with_name(f".{output_file.name}.scores")
    write_records(output_file, with_scores(records, _kept_scores(reranker, pairs, AppendLog(kept_in))))
    shutil.rmtree(kept_in)
    print(f"done: {output_file}")
    return 0


def _kept_scores(reranker: Reranker, pairs: Sequence[Pair], log: AppendLog) -> list[float]:
    """The score of every pair, in their order; ``log`` keeps each as it comes, and what it has is not computed again.

    A score's key is the model with the pair, so those of other records or models that ``log`` holds are not taken.
    """
    config = reranker.config
    model = fingerprints.of_model(config.reranker_model, config.reranker_revision)
    keys = [key_of(model, *pair) for pair in pairs]
    missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in log}
    left, num_different = list(missing), len(set(keys))
    for place, score in tqdm(reranker.scores(list(missing.values())), desc="scoring", total=num_different,
                             initial=num_different - len(left), unit="pair"):
        log.append([(left[place], score)])
    scores = [log[key] for key in keys]
    log.close()
    return scores


if __name__ == "__main__":
    sys.exit(main())
