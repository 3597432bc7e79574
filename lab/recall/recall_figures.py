"""Recall by retriever with intervals, and the retrievers compared in pairs, question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from scaledown.config import EvaluationConfig
from scaledown.evaluation.figures.text_tables import console_table, score
from scaledown.evaluation.metrics import bootstrap_ci95, interval_text
from scaledown.evaluation.report.paired import sign_test_p


def compare_all(found: Mapping[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Return the recall of each retriever, and the differences of each pair.

    Args:
        found: 1 or 0 by question and measure for each retriever, (questions, measures).
        seed: of the resamples.
    """
    figures: dict[str, Any] = {"num_questions": len(next(iter(found.values()))), "recall": {}, "differences": {}}
    for name, values in found.items():
        figures["recall"][name] = _with_interval(values, seed)
    for other, name in combinations(found, 2):
        figures["differences"][f"{name} - {other}"] = difference(found[name], found[other], seed)
    return figures


def difference(values: np.ndarray, others: np.ndarray, seed: int) -> dict[str, Any]:
    """Compare question by question: the differences of the means, their intervals, and McNemar's exact test."""
    num_better, num_worse = (values > others).sum(axis=0), (values < others).sum(axis=0)  # both (measures,)
    p_values = [sign_test_p(int(better), int(worse)) for better, worse in zip(num_better, num_worse, strict=True)]
    return _with_interval(values - others, seed) | {"p_values": p_values}


def _with_interval(values: np.ndarray, seed: int) -> dict[str, Any]:
    """Return the means of the columns of ``values`` (questions, measures), and their intervals."""
    ci95 = bootstrap_ci95(values, EvaluationConfig.bootstrap_resamples, seed)
    return {"means": values.mean(axis=0).tolist(), "ci95": ci95.tolist()}


def tables(figures: Mapping[str, Any], measures: Sequence[str]) -> str:
    """Return the recalls and the differences as two tables."""
    rows = []
    for name, system in figures["recall"].items():
        cells = zip(system["means"], system["ci95"], strict=True)
        rows.append([name, *(f"{score(mean)}\n{interval_text(ends)}" for mean, ends in cells)])

    # Below each difference its interval, and the p-value of the exact test.
    pair_rows = []
    for name, pair in figures["differences"].items():
        cells = zip(pair["means"], pair["ci95"], pair["p_values"], strict=True)
        pair_rows.append([name, *(f"{mean:+.3f}\n{interval_text(ends)}\np {p:.2g}" for mean, ends, p in cells)])
    return "\n\n".join([console_table(["recall [95%]", *measures], rows),
                        console_table(["difference [95%]", *measures], pair_rows)])
