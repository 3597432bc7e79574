"""How good rankings are: nDCG@10, MRR@10 and recall@k, by ir-measures (MacAvaney et al., 2022), with intervals."""

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
        """As it stands in a report."""
        return dataclasses.asdict(self)


def score_ranking(qrels: Qrels, run: Run, num_resamples: int, seed: int,
                  recall_at: Sequence[int] = RECALL_AT) -> RankingScores:
    """Score a run against qrels, as trec_eval does.

    Each query of the qrels counts: one that the run leaves out, or that has nothing relevant, scores 0. Documents
    without a judgement are not relevant; of equal scores the document whose id sorts last comes first.
    """
    measures = [nDCG @ 10, RR @ 10, *(R @ k for k in recall_at)]
    columns = {str(measure): number for number, measure in enumerate(measures)}
    rows = {query: number for number, query in enumerate(qrels)}
    values = np.zeros((len(rows), len(measures)))
    for found in ir_measures.iter_calc(measures, qrels, run):
        values[rows[found.query_id], columns[str(found.measure)]] = found.value
    ends = bootstrap_ci95(values, num_resamples, seed)
    return RankingScores({name: float(values[:, column].mean()) for name, column in columns.items()},
                         {name: (float(ends[column][0]), float(ends[column][1])) for name, column in columns.items()},
                         len(rows))
