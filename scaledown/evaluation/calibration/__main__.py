"""How high a document must score to be kept: python -m scaledown.evaluation.calibration --checkpoint FOLDER

``keep_documents="auto"`` gives the generator the documents above a threshold, which this command finds: the highest
one that keeps the wanted share of the relevant documents. It is written into the checkpoint's ``config.json``. Give
it other questions than those that the result will be measured on.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence

from scaledown import cli
from scaledown.config import EMBEDDED
from scaledown.data.pipeline.trec import Qrels, Run
from scaledown.evaluation.ranking.ranking_input import RankingInput, describe
from scaledown.evaluation.ranking.scorers import load_scoring_model, scaledown
from scaledown.files import write_json
from scaledown.models.loading import checkpoint
from scaledown.training.devices import DEVICES, resolve_device

EMBEDDED_SEED = 4243
DEFAULT_RECALL = 0.98


def threshold_for(run: Run, qrels: Qrels, recall: float) -> float:
    """The highest score from which on at least ``recall`` of the relevant documents that were scored lie.

    Raises:
        ValueError: where none is relevant.
    """
    relevant = sorted((score for query, scores in run.items() for name, score in scores.items()
                       if qrels.get(query, {}).get(name, 0) > 0), reverse=True)
    if not relevant:
        raise ValueError("no candidate is relevant, so there is nothing to calibrate by; give other --data or --qrels")
    return relevant[math.ceil(recall * len(relevant)) - 1]


def mean_kept(run: Run, threshold: float) -> float:
    """Mean documents a query that "auto" keeps."""
    kept = [max(1, sum(score >= threshold for score in scores.values())) for scores in run.values() if scores]
    return sum(kept) / len(kept)


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(prog="python -m scaledown.evaluation.calibration", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help=f"a folder that training wrote, or '{EMBEDDED}'; its "
                        "config.json gets the threshold")
    parser.add_argument("--recall", type=float, default=DEFAULT_RECALL,
                        help=f"share of the relevant documents to keep [{DEFAULT_RECALL}]")
    cli.add_flags(parser, RankingInput)
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to run [auto]")
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Find the threshold, write it, and say what it keeps."""
    args = build_parser().parse_args(argv)
    given = cli.config_from(args, RankingInput)
    if not 0 < args.recall <= 1:
        raise ValueError(f"--recall must be above 0 and at most 1, got {args.recall}")
    model = load_scoring_model(args.checkpoint, resolve_device(args.device))
    task, _ = given.read(EMBEDDED_SEED)
    print(describe(task, args))
    run = scaledown(task, model)
    threshold = threshold_for(run, task.qrels, args.recall)
    path = checkpoint.find(args.checkpoint) / checkpoint.CONFIG_FILE
    write_json(path, dataclasses.asdict(dataclasses.replace(model.config, keep_threshold=threshold)))
    print(f"scores from {threshold:.3f} on keep {args.recall:.0%} of the relevant documents, and "
          f"{mean_kept(run, threshold):.1f} of {task.num_candidates:.1f} documents a query\ndone: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
