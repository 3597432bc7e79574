"""Score the documents of records with a cross-encoder.

A cross-encoder reads a query and a document together and gives one number, the document's relevance. Its raw logits
become the ``reranking_scores`` of records, which the compressor learns to predict (paper, equation 3). After a kill the
same command goes on with the missing scores.

    python -m scaledown.data.reranking --train_data records.json --output_file scored.json
    python -m scaledown.data.reranking --train_data records.json --output_file scored.json --reranker_batch_size 8
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence

from scaledown import cli, files
from scaledown.data.records import read_records, write_records
from scaledown.data.reranking.cross_encoder import Pair, Reranker, RerankerConfig, pairs_of, with_scores
from scaledown.data.storage import fingerprints
from scaledown.data.storage.append_log import AppendLog, key_of
from scaledown.progress import Bar


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.data.reranking")
    parser.add_argument("--train_data", required=True, metavar="FILE", group="data",
                        help="records to score, JSON or JSONL")
    parser.add_argument("--output_file", required=True, metavar="FILE", group="data",
                        help="file for the records with their reranking_scores")
    cli.add_flags(parser, RerankerConfig)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Score every document of every record."""
    args = build_parser().parse_args(argv)
    config = cli.config_from(args, RerankerConfig)
    records = read_records(args.train_data)
    output_file = files.output_file(args.output_file)
    pairs = pairs_of(records)
    print(f"{args.train_data}: {len(records)} records, {len(pairs)} documents to be scored by {config.reranker_model}")

    # The hidden folder beside the output holds scores of this and killed runs, until the output is written.
    reranker = Reranker(config)
    log_folder = output_file.with_name(f".{output_file.name}.scores")
    scores = _logged_scores(reranker, pairs, AppendLog(log_folder))
    write_records(output_file, with_scores(records, scores))
    shutil.rmtree(log_folder)
    print(f"done: {output_file}")
    return 0


def _logged_scores(reranker: Reranker, pairs: Sequence[Pair], log: AppendLog) -> list[float]:
    """Return the score of every pair, in their order; those in ``log`` are not computed again, others are added to it.

    The key of a score is a hash of the model and the pair, so that scores of other records or models are not taken.
    """
    config = reranker.config
    model = fingerprints.of_model(config.reranker_model, config.reranker_revision)
    keys = [key_of(model, *pair) for pair in pairs]

    # By key, so that equal pairs are scored once.
    missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in log}
    missing_keys, num_distinct = list(missing), len(set(keys))
    for number, score in Bar(reranker.scores(list(missing.values())), desc="scoring", total=num_distinct,
                             initial=num_distinct - len(missing), unit="pair"):
        log.append([(missing_keys[number], score)])

    scores = [log[key] for key in keys]
    log.close()
    return scores


if __name__ == "__main__":
    sys.exit(main())
