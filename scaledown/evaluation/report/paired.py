"""Paired tests: does one system answer the same questions better than another?

Two intervals that overlap say little about a difference: a hard question is hard for both systems, so their errors move
together. Here each question is compared with itself. The mean difference gets a bootstrap interval, and the exact sign
test counts the questions that either answers better, of which both would have half if there were no difference; ties
are left out. For a metric that is right or wrong it is McNemar's exact test (McNemar, 1947).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from scaledown.evaluation.evaluator import SystemResult
from scaledown.evaluation.metrics import METRICS, bootstrap_ci95

SIGNIFICANT = 0.05
BETTER, WORSE, NOT_SHOWN = "better", "worse", "no difference shown"


@dataclass(frozen=True)
class PairedDifference:
    """One system's metric minus another's, on the same questions.

    Attributes:
        difference: of the means.
        ci95: its 95% bootstrap interval; questions are resampled, each with both of its scores.
        num_better: questions on which the first system scores higher.
        num_worse: those on which it scores lower.
        p_value: of the exact sign test, which is McNemar's for a metric that is right or wrong.
        verdict: ``BETTER`` or ``WORSE`` if the interval excludes 0 and the p-value is below ``SIGNIFICANT``; else
            ``NOT_SHOWN``.
    """

    difference: float
    ci95: tuple[float, float]
    num_better: int
    num_worse: int
    p_value: float
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as ``metrics_report.json`` has it."""
        return dataclasses.asdict(self) | {"ci95": list(self.ci95)}


def sign_test_p(num_better: int, num_worse: int) -> float:
    """Return the two-sided p-value of the exact sign test, from the numbers of questions that differ either way."""
    total = num_better + num_worse
    return float(binomtest(num_better, total, 0.5).pvalue) if total else 1.0


def compare(system: SystemResult, other: SystemResult, num_resamples: int, seed: int) -> dict[str, PairedDifference]:
    """Return ``system`` minus ``other`` by metric, question by question.

    Raises:
        ValueError: if they did not answer the same questions in the same order.
    """
    if [question.id for question in system.questions] != [question.id for question in other.questions]:
        raise ValueError(f"{system.system} and {other.system} did not answer the same questions")

    rows = []
    for question, others in zip(system.questions, other.questions, strict=True):
        rows.append([getattr(question.scores, metric) - getattr(others.scores, metric) for metric in METRICS])
    differences = np.array(rows)  # (questions, metrics)
    intervals = bootstrap_ci95(differences, num_resamples, seed)  # (metrics, 2)

    compared = {}
    for column, name in enumerate(METRICS):
        num_better, num_worse = int((differences[:, column] > 0).sum()), int((differences[:, column] < 0).sum())
        p_value = sign_test_p(num_better, num_worse)
        low, high = (float(end) for end in intervals[column])
        compared[name] = PairedDifference(float(differences[:, column].mean()), (low, high), num_better, num_worse,
                                          p_value, _verdict(low, high, p_value))
    return compared


def _verdict(low: float, high: float, p_value: float) -> str:
    # With few questions the interval alone claims too much (with one it has no width); the exact test does not.
    if p_value >= SIGNIFICANT:
        return NOT_SHOWN
    if low > 0:
        return BETTER
    return WORSE if high < 0 else NOT_SHOWN
