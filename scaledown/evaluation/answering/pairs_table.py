"""All pairs of systems on the same questions: which of the two answers better, or whether it is a tie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scaledown.evaluation.evaluator import SystemResult
from scaledown.evaluation.figures.text_tables import console_table
from scaledown.evaluation.metrics import METRICS, interval_text
from scaledown.evaluation.report.headline import p_text, signed
from scaledown.evaluation.report.paired import BETTER, NOT_SHOWN, SIGNIFICANT, WORSE, PairedDifference, compare

WORDS = {BETTER: BETTER, WORSE: WORSE, NOT_SHOWN: "tie"}
"""Of a verdict in the table."""
SHOWN = ("exact_match", "token_f1")
"""The metrics in the table; the output file has all of them."""


@dataclass(frozen=True)
class Pair:
    """Two systems by name, and the first one's metrics minus the other's."""

    system: str
    other: str
    by_metric: Mapping[str, PairedDifference]

    def to_dict(self) -> dict[str, Any]:
        """Return the pair as the output file has it."""
        metrics = {metric: difference.to_dict() for metric, difference in self.by_metric.items()}
        return {"system": self.system, "other": self.other, **metrics}


def pairs(found: Mapping[str, SystemResult], num_resamples: int, seed: int) -> list[Pair]:
    """Return each system against each one before it, so that checkpoints stand before the baselines."""
    names, compared = list(found), []
    for number, name in enumerate(names):
        for other in names[:number]:
            compared.append(Pair(name, other, compare(found[name], found[other], num_resamples, seed)))
    return compared


def table(compared: Sequence[Pair], labels: Mapping[str, str]) -> str:
    """Return a row for each pair: its differences with their intervals below, and in a word what they show.

    Args:
        compared: the pairs.
        labels: what the systems are called, if not by their names.
    """
    rows = []
    for pair in compared:
        exact, overlap = (pair.by_metric[metric].to_dict() for metric in SHOWN)
        name = f"{labels.get(pair.system, pair.system)} against {labels.get(pair.other, pair.other)}"
        rows.append([name, _difference(exact), p_text(exact), WORDS[exact["verdict"]], _difference(overlap),
                     p_text(overlap), WORDS[overlap["verdict"]]])

    exact_name, overlap_name = (METRICS[metric].name for metric in SHOWN)
    header = ["all pairs", exact_name, "p", "so it is", overlap_name, "p", "so it is"]
    # A tie of few questions is no proof that two systems are equally good.
    note = ("better, worse: the 95% interval of the paired difference excludes 0, and p of the exact sign\n"
            f"test (McNemar's, for exact match) is below {SIGNIFICANT}; tie: these questions show no difference")
    return f"{console_table(header, rows)}\n{note}"


def _difference(test: Mapping[str, Any]) -> str:
    return f"{signed(test['difference'])}\n{interval_text(test['ci95'])}"
