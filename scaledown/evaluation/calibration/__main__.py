"""Find the score to keep documents by, or when to read text.

``keep_documents="auto"`` gives the generator the documents above a threshold. This command finds the highest threshold
that keeps the wanted share of the relevant documents. With --find expand_threshold it finds the lowest probability of
an answer's first token that catches the wanted share of wrong answers, for answer_expanding. It writes either into the
checkpoint's ``config.json``. Calibrate on other questions than those that the result is measured on.

    python -m scaledown.evaluation.calibration --checkpoint ranker/final --eval_data scored_eval.json --recall 0.95
    python -m scaledown.evaluation.calibration --checkpoint ranker/final --find expand_threshold
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaledown import cli, hub
from scaledown.data.pipeline.trec import Qrels, Run
from scaledown.data.records import Record, read_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.evaluation.ranking.ranking_input import RankingInput, describe
from scaledown.files import write_json
from scaledown.settings import not_default

EMBEDDED_SEED = 4243
KEEP, EXPAND = "keep_threshold", "expand_threshold"
DEFAULT_RECALL = {KEEP: 0.98, EXPAND: 0.8}
NO_ANSWERS = ("corpus_path", "queries_file", "qrels_file", "run_file", "judged")
"""Flags that name queries without answers."""
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
    # 0.55 * 100 is a little above 55 in floating point.
    return relevant[max(1, math.ceil(recall * len(relevant) - 1e-9)) - 1]


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
    parser.add_argument("--find", default=KEEP, choices=tuple(DEFAULT_RECALL), group="threshold",
                        help=f"the setting to find [{KEEP}]; {EXPAND} takes records or the demo world's questions")
    parser.add_argument("--recall", type=float, metavar="X", group="threshold",
                        help=f"share of the relevant documents to keep [{DEFAULT_RECALL[KEEP]}], or of the wrong "
                        f"answers to catch [{DEFAULT_RECALL[EXPAND]}]")
    cli.add_device(parser)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Find the threshold, write it, and print what it chooses."""
    args = build_parser().parse_args(argv)
    given = cli.config_from(args, RankingInput)
    recall = DEFAULT_RECALL[args.find] if args.recall is None else args.recall
    if not 0 < recall <= 1:
        raise ValueError(f"--recall must be above 0 and at most 1, got {recall}")

    # Other questions of the demo world than the commands' that measure.
    hub.check_checkpoint(args.checkpoint)
    if args.find == EXPAND:
        records = _answered_records(given)
    else:
        task, _ = given.read(EMBEDDED_SEED)

    # Torch takes seconds to load; a wrong flag, file or name has been reported by now.
    from scaledown.evaluation.calibration import unsure
    from scaledown.evaluation.ranking.rankings import load_scoring_model, scaledown
    from scaledown.training.devices import resolve_device

    cli.tell(f"loading {args.checkpoint} ...")
    model = load_scoring_model(args.checkpoint, resolve_device(args.device), long_documents=args.long_documents)
    if args.find == EXPAND:
        print(f"{args.eval_data or 'the embedded world'}: {len(records)} questions")
        judged = unsure.judged_answers(model, records)
        threshold = unsure.unsure_threshold(judged, recall)
        found = unsure.summary(judged, threshold)
    else:
        print(describe(task, args))
        run = scaledown(task, model)
        threshold = threshold_for(run, task.qrels, recall)
        found = (f"scores from {threshold:.3f} on keep {recall:.0%} of the relevant documents, and "
                 f"{mean_kept(run, threshold):.1f} of {task.num_candidates:.1f} documents a query")

    # The figures are of the questions that the threshold was made from, so new questions may fare a little worse.
    print(f"{found}\ndone: {_write(model, args.checkpoint, {args.find: threshold})}")
    return 0


def _answered_records(given: RankingInput) -> list[Record]:
    """Return records whose answers are known: of a file, or of the demo world.

    Raises:
        ValueError: if the file cannot be read, or for queries without answers: a corpus, with or without a run.
    """
    # A BEIR folder has relevant documents, but no answers.
    flags = [f"--{name}" for name in not_default(given, *NO_ANSWERS)]
    if given.eval_data and Path(given.eval_data).is_dir():
        flags.append(f"--eval_data {given.eval_data}")
    if flags:
        raise ValueError(f"--find {EXPAND} compares answers, and {', '.join(flags)} gives queries without answers: "
                         "give --eval_data with a file of records")

    if given.eval_data is None:
        return list(synthetic_records(given.eval_examples, EMBEDDED_SEED, split="eval"))
    return read_records(given.eval_data)[:given.eval_examples]


def _write(model: Any, name: str, thresholds: Mapping[str, float]) -> Path:
    """Write thresholds into the config of a checkpoint, and return its path."""
    from scaledown.hub import model_places
    from scaledown.models.loading import checkpoint

    folder = checkpoint.find(name)
    path = folder / checkpoint.CONFIG_FILE
    config = dataclasses.replace(model_places.relative_to(folder, model.config), **thresholds)
    write_json(path, dataclasses.asdict(config))
    return path


if __name__ == "__main__":
    sys.exit(main())
