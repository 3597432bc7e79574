"""Metrics of rankings: nDCG@10, MRR@10 and recall@k by ir-measures (MacAvaney et al., 2022), with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG

from scaledown.data.pipeline.trec import Qrels, Run
from scaledown.evaluation.metrics import bootstrap_ci95

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class RankingScores:
    """The mean of each measure over the queries, by its name in ir-measures, and its 95% interval."""

    means: Mapping[str, float]
    ci95: Mapping[str, tuple[float, float]]
    num_queries: int

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as a report has them."""
        return dataclasses.asdict(self)


def score_ranking(qrels: Qrels, run: Run, num_resamples: int, seed: int,
                  recall_at: Sequence[int] = RECALL_AT) -> RankingScores:
    """Score a run against qrels, as trec_eval does.

    Each query of the qrels counts: one that the run leaves out, or that has nothing relevant, scores 0. Documents
    without a judgement are not relevant; of equal scores the document whose id sorts last comes first.
    """
    measures = [nDCG @ 10, RR @ 10, *(R @ k for k in recall_at)]
    query_numbers = {query: number for number, query in enumerate(qrels)}
    columns = {str(measure): number for number, measure in enumerate(measures)}

    # A query for which ir-measures gives no value stays 0.
    values = np.zeros((len(query_numbers), len(measures)))  # (queries, measures)
    for metric in ir_measures.iter_calc(measures, qrels, run):
        values[query_numbers[metric.query_id], columns[str(metric.measure)]] = metric.value
    intervals = bootstrap_ci95(values, num_resamples, seed)  # (measures, 2)

    means, ci95 = {}, {}
    for name, column in columns.items():
        means[name] = float(values[:, column].mean())
        low, high = intervals[column]
        ci95[name] = float(low), float(high)
    return RankingScores(means, ci95, len(query_numbers))
