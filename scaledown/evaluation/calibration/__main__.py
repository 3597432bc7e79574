"""Find the score from which on documents are kept.

``keep_documents="auto"`` gives the generator the documents above a threshold. This command finds the highest threshold
that keeps the wanted share of the relevant documents, and writes it into the checkpoint's ``config.json``. Calibrate
on other questions than those that the result is measured on.

    python -m scaledown.evaluation.calibration --checkpoint ranker/final
    python -m scaledown.evaluation.calibration --checkpoint ranker/final --eval_data scored_eval.json --recall 0.95
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence

from scaledown import cli, hub
from scaledown.data.pipeline.trec import Qrels, Run
from scaledown.evaluation.ranking.ranking_input import RankingInput, describe
from scaledown.files import write_json

EMBEDDED_SEED = 4243
DEFAULT_RECALL = 0.98
USAGE = "--checkpoint NAME [--eval_data FILE] [--recall X] [--FLAG VALUE ...]"


def threshold_for(run: Run, qrels: Qrels, recall: float) -> float:
    """Return the highest score that at least ``recall`` of the scored relevant documents reach.

    Raises:
        ValueError: if no scored document is relevant.
    """
    relevant = []
    for query, scores in run.items():
        grades = qrels.get(query, {})
        relevant += [score for name, score in scores.items() if grades.get(name, 0) > 0]
    if not relevant:
        raise ValueError("no candidate is relevant, so there is nothing to calibrate by; give other --eval_data or "
                         "--qrels_file")

    # Best first: the last of the ceil(recall * n) documents that must be kept sets the threshold.
    relevant.sort(reverse=True)
    return relevant[math.ceil(recall * len(relevant)) - 1]


def mean_kept(run: Run, threshold: float) -> float:
    """Return the mean number of documents per query that "auto" keeps."""
    counts = []
    for scores in run.values():
        if scores:
            num_above = sum(score >= threshold for score in scores.values())
            counts.append(max(1, num_above))  # the best document is always kept

    return sum(counts) / len(counts)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.evaluation.calibration", USAGE)
    cli.add_checkpoint(parser, required=True)
    cli.add_flags(parser, RankingInput)
    cli.add_long_documents(parser)
    parser.add_argument("--recall", type=float, default=DEFAULT_RECALL, metavar="X", group="threshold",
                        help=f"share of the relevant documents to keep [{DEFAULT_RECALL}]")
    cli.add_device(parser)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Find the threshold, write it, and print how many documents it keeps."""
    args = build_parser().parse_args(argv)
    given = cli.config_from(args, RankingInput)
    if not 0 < args.recall <= 1:
        raise ValueError(f"--recall must be above 0 and at most 1, got {args.recall}")

    hub.check_checkpoint(args.checkpoint)
    # Other questions of the demo world than the ranking command's.
    task, _ = given.read(EMBEDDED_SEED)

    # Torch takes seconds to load; a wrong flag, file or name has been reported by now.
    from scaledown.evaluation.ranking.rankings import load_scoring_model, scaledown
    from scaledown.models.loading import checkpoint, generator_files
    from scaledown.training.devices import resolve_device

    cli.tell(f"loading {args.checkpoint} ...")
    model = load_scoring_model(args.checkpoint, resolve_device(args.device), args.long_documents)
    print(describe(task, args))

    run = scaledown(task, model)
    threshold = threshold_for(run, task.qrels, args.recall)

    folder = checkpoint.find(args.checkpoint)
    path = folder / checkpoint.CONFIG_FILE
    config = dataclasses.replace(generator_files.relative_to(folder, model.config), keep_threshold=threshold)
    write_json(path, dataclasses.asdict(config))
    # Both figures are of the questions that the threshold was made from, so new questions may fare a little worse.
    print(f"scores from {threshold:.3f} on keep {args.recall:.0%} of the relevant documents, and "
          f"{mean_kept(run, threshold):.1f} of {task.num_candidates:.1f} documents a query\ndone: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
