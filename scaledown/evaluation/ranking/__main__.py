"""Measure how well a checkpoint ranks documents: python -m scaledown.evaluation.ranking --checkpoint C --data X.json

nDCG@10, MRR@10 and recall@k of the compressor's scores, beside the order given, BM25 and the teacher, if there is one.
Without arguments the shipped checkpoint ranks 20 candidates per question of the demo world.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scaledown import cli
from scaledown.config import DEVICES, EMBEDDED, EvaluationConfig, TrainingConfig
from scaledown.data.pipeline.trec import require_ids, write_run
from scaledown.data.reranking.cross_encoder import Reranker, RerankerConfig
from scaledown.evaluation.ranking.ranking_input import RankingInput, describe
from scaledown.evaluation.ranking.ranking_task import RankingTask
from scaledown.files import write_json
from scaledown.run_information import run_information

if TYPE_CHECKING:
    from scaledown.evaluation.ranking.rankings import RankingScores

SCALEDOWN = "scaledown"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.evaluation.ranking")
    parser.add_argument("--checkpoint", default=EMBEDDED,
                        help=f"a folder that training wrote, a Hub id, or a name that ships [{EMBEDDED}]")
    cli.add_flags(parser, RankingInput)  # which queries and documents
    parser.add_argument("--run_out", help="write ScaleDown's ranking there, as a TREC run")
    parser.add_argument("--output_file", help="write the figures there, as JSON")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="device to run on [auto]")
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed,
                        help=f"seed of the intervals' resamples [{TrainingConfig.seed}]")
    cli.add_flags(parser, RerankerConfig, reranker_model=None)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Rank the documents with every system, score the rankings and compare them."""
    args = build_parser().parse_args(argv)
    given = cli.config_from(args, RankingInput)

    # Torch takes seconds to load; a wrong flag has been reported by now.
    from scaledown.evaluation.ranking import rankings
    from scaledown.training import devices, run_folder

    output_file = run_folder.output_file(args.output_file)

    # Models first: one that cannot be loaded is reported before the data is read.
    reranker = Reranker(cli.config_from(args, RerankerConfig)) if args.reranker_model else None
    device = devices.resolve_device(args.device)
    model = rankings.load_scoring_model(args.checkpoint, device)
    task, teacher = given.read()
    if args.run_out:
        # Before the work: TREC allows no spaces in ids.
        require_ids(itertools.chain(task.queries, *task.candidates.values()))
    print(describe(task, args))

    runs = {"order given": rankings.order_given(task), "BM25": rankings.bm25(task)}
    if reranker or teacher:
        runs["teacher"] = rankings.cross_encoder(task, reranker) if reranker else teacher
    runs[SCALEDOWN] = rankings.scaledown(task, model)
    scores = {name: rankings.score_ranking(task.qrels, run, EvaluationConfig.bootstrap_resamples, args.seed)
              for name, run in runs.items()}
    print(rankings.table(scores))

    if output_file:
        write_json(output_file, _report(args, device, task, scores))
        print(f"figures: {output_file}")
    if args.run_out:
        write_run(args.run_out, runs[SCALEDOWN])
        print(f"run: {args.run_out}")
    return 0


def _report(args: argparse.Namespace, device: Any, task: RankingTask,
            scores: Mapping[str, RankingScores]) -> dict[str, Any]:
    return {"systems": {name: system.to_dict() for name, system in scores.items()},
            "num_candidates": task.num_candidates, "run": run_information(args.seed, device, sys.argv, vars(args))}


if __name__ == "__main__":
    sys.exit(main())
