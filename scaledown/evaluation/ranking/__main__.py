"""Measure how well a checkpoint ranks documents.

nDCG@10, MRR@10 and recall@k of the compressor's scores, beside the order given and BM25, and if there are any beside a
bi-encoder and the teacher.
Without data the checkpoint ranks 20 candidates for each question of the demo world.

    python -m scaledown.evaluation.ranking --checkpoint embedded
    python -m scaledown.evaluation.ranking --checkpoint ranker/final --eval_data BEIR_FOLDER --output_run run.trec
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scaledown import cli, files, hub
from scaledown.config import MINILM, EvaluationConfig
from scaledown.data.pipeline.retrieval.vectors import load_bi_encoder
from scaledown.data.pipeline.trec import require_ids, write_run
from scaledown.data.reranking.cross_encoder import Reranker, RerankerConfig
from scaledown.data.storage.run_information import run_information
from scaledown.evaluation.ranking.ranking_input import RankingInput, describe
from scaledown.evaluation.ranking.ranking_task import RankingTask

if TYPE_CHECKING:
    from scaledown.evaluation.ranking.rankings import RankingScores

SCALEDOWN = "scaledown"
USAGE = "[--checkpoint NAME] [--eval_data FILE] [--reranker_model NAME] [--output_file FILE] [--FLAG VALUE ...]"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.evaluation.ranking", USAGE)
    cli.add_checkpoint(parser)
    cli.add_flags(parser, RankingInput)  # which queries and documents
    cli.add_long_documents(parser)
    cli.add_output_file(parser)
    parser.add_argument("--output_run", metavar="FILE", group="data", help="write ScaleDown's ranking there, as a TREC "
                        "run")
    parser.add_argument("--bi_encoder", metavar="NAME", group="data", help="also rank by the vectors of this dense "
                        f"encoder: {MINILM} (from PyPI), a Hub id or a local folder")
    cli.add_flags(parser, RerankerConfig, reranker_model=None)
    cli.add_device(parser)
    cli.add_dtype(parser)
    cli.add_seed(parser, "seed of the intervals' resamples")
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Rank the documents with every system, score the rankings and compare them."""
    args = build_parser().parse_args(argv)
    given = cli.config_from(args, RankingInput)

    output_file, output_run = files.output_file(args.output_file), files.output_file(args.output_run, "--output_run")
    hub.check_checkpoint(args.checkpoint)
    task, teacher = given.read()
    if output_run:
        # Before the work: TREC allows no spaces in ids.
        require_ids(itertools.chain(task.queries, *task.candidates.values()))

    # Torch takes seconds to load; a wrong flag, file or name has been reported by now.
    from scaledown.evaluation.ranking import rankings
    from scaledown.training import devices

    reranker = Reranker(cli.config_from(args, RerankerConfig)) if args.reranker_model else None
    encoder = load_bi_encoder(args.bi_encoder) if args.bi_encoder else None
    device = devices.resolve_device(args.device)
    cli.tell(f"loading {args.checkpoint} ...")
    model = rankings.load_scoring_model(args.checkpoint, device, args.dtype, args.long_documents)
    print(describe(task, args))

    runs = {"order given": rankings.order_given(task), "BM25": rankings.bm25(task)}
    if encoder:
        runs["bi-encoder"] = rankings.bi_encoder(task, encoder)
    if reranker or teacher:
        runs["teacher"] = rankings.cross_encoder(task, reranker) if reranker else teacher
    runs[SCALEDOWN] = rankings.scaledown(task, model)
    scores = {name: rankings.score_ranking(task.qrels, run, EvaluationConfig.bootstrap_resamples, args.seed)
              for name, run in runs.items()}
    print(rankings.table(scores))

    if output_file:
        files.write_json(output_file, _report(args, device, task, scores))
        print(f"figures: {output_file}")
    if output_run:
        write_run(output_run, runs[SCALEDOWN])
        print(f"run: {output_run}")
    return 0


def _report(args: argparse.Namespace, device: Any, task: RankingTask,
            scores: Mapping[str, RankingScores]) -> dict[str, Any]:
    return {"systems": {name: system.to_dict() for name, system in scores.items()},
            "num_candidates": task.num_candidates, "run": run_information(args.seed, device, sys.argv, vars(args))}


if __name__ == "__main__":
    sys.exit(main())
