"""How well a checkpoint ranks documents: python -m scaledown.evaluation.ranking --checkpoint C --data X.json

The compressor's scores, beside the order given, BM25 and, where there is one, the teacher: nDCG@10, MRR@10 and
recall@k. With no arguments the shipped checkpoint ranks 20 candidates a question of the embedded world.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from scaledown import cli
from scaledown.config import EMBEDDED, EvaluationConfig, TrainingConfig
from scaledown.data.pipeline.trec import require_ids, write_run
from scaledown.data.reranking.cross_encoder import Reranker, RerankerConfig
from scaledown.evaluation.ranking.ranking_input import RankingInput, describe
from scaledown.evaluation.ranking.ranking_metrics import RankingScores, score_ranking
from scaledown.evaluation.ranking.ranking_task import RankingTask
from scaledown.evaluation.ranking.scorers import bm25, cross_encoder, load_scoring_model, order_given, scaledown
from scaledown.files import write_json
from scaledown.run_information import run_information
from scaledown.training import run_folder
from scaledown.training.devices import DEVICES, resolve_device

SCALEDOWN = "scaledown"


def table(scores: Mapping[str, RankingScores]) -> str:
    """One line a system, each measure with its interval."""
    measures = list(next(iter(scores.values())).means)
    lines = [f"{'':<12}" + "".join(f"{measure:>24}" for measure in measures)]
    for name, row in scores.items():
        cells = (f"{row.means[measure]:.3f} [{row.ci95[measure][0]:.3f}, {row.ci95[measure][1]:.3f}]"
                 for measure in measures)
        lines.append(f"{name:<12}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(prog="python -m scaledown.evaluation.ranking", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=EMBEDDED,
                        help=f"a folder that training wrote, a Hub id, or a name that ships [{EMBEDDED}]")
    cli.add_flags(parser, RankingInput)
    parser.add_argument("--run_out", help="write ScaleDown's ranking there, as a TREC run")
    parser.add_argument("--output_file", help="write the figures there, as JSON")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to run [auto]")
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed,
                        help=f"seed of the intervals' resamples [{TrainingConfig.seed}]")
    cli.add_flags(parser, RerankerConfig, reranker_model=None)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Rank, score and compare."""
    args = build_parser().parse_args(argv)
    output_file = run_folder.output_file(args.output_file)
    given = cli.config_from(args, RankingInput)
    reranker = Reranker(cli.config_from(args, RerankerConfig)) if args.reranker_model else None
    device = resolve_device(args.device)
    model = load_scoring_model(args.checkpoint, device)
    task, teacher = given.read()
    if args.run_out:
        require_ids(itertools.chain(task.queries, *task.candidates.values()))
    print(describe(task, args))
    runs = {"order given": order_given(task), "BM25": bm25(task)}
    if reranker or teacher:
        runs["teacher"] = cross_encoder(task, reranker) if reranker else teacher
    runs[SCALEDOWN] = scaledown(task, model)
    scores = {name: score_ranking(task.qrels, run, EvaluationConfig.bootstrap_resamples, args.seed)
              for name, run in runs.items()}
    print(table(scores))
    if output_file:
        write_json(output_file, _report(args, device, task, scores))
        print(f"figures: {output_file}")
    if args.run_out:
        write_run(args.run_out, runs[SCALEDOWN])
        print(f"run: {args.run_out}")
    return 0


def _report(args: argparse.Namespace, device: Any, task: RankingTask,
            scores: Mapping[str, RankingScores]) -> dict[str, Any]:
    return {"systems": {name: row.to_dict() for name, row in scores.items()}, "num_candidates": task.num_candidates,
            "run": run_information(args.seed, device, sys.argv, vars(args))}


if __name__ == "__main__":
    sys.exit(main())
