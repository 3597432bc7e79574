"""Rankings of a task's candidates: by the order given, BM25, a bi-encoder, a cross-encoder and ScaleDown's compressor.

And how good they are, in nDCG@10, MRR@10 and recall@k by ir-measures (MacAvaney et al., 2022), with intervals.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np
import torch
from ir_measures import RR, R, nDCG

from scaledown.config import SPLIT
from scaledown.data.pipeline.retrieval import BM25
from scaledown.data.pipeline.retrieval.vectors import Encoder
from scaledown.data.pipeline.trec import Qrels, Run
from scaledown.data.reranking.cross_encoder import Reranker, score_pairs
from scaledown.evaluation.figures.text_tables import console_table, score
from scaledown.evaluation.metrics import bootstrap_ci95, interval_text
from scaledown.evaluation.ranking.ranking_task import RankingTask
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.choosing import rankings
from scaledown.progress import Bar

QUERIES_AT_ONCE, TEXTS_AT_ONCE = 4, 256
RECALL_AT = (1, 5, 10)


def order_given(task: RankingTask) -> Run:
    """Return scores that keep the candidates in the order given."""
    run = {}
    for query, texts in task.candidates.items():
        run[query] = {name: -float(rank) for rank, name in enumerate(texts)}  # higher scores rank first
    return run


def bm25(task: RankingTask) -> Run:
    """Return BM25's scores, with word frequencies counted over the candidates of all queries together."""
    texts = _distinct_texts(task)
    index, run = BM25(texts), {}
    for name, query in Bar(task.queries.items(), desc="scoring, BM25", unit="query", leave=False):
        # Of the whole index, from which the query's own candidates are picked.
        score_of = {texts[hit.index]: hit.score for hit in index.search([query], len(texts))[0]}
        run[name] = {document: score_of[text] for document, text in task.candidates[name].items()}
    return run


def bi_encoder(task: RankingTask, encoder: Encoder) -> Run:
    """Return the products of queries' and candidates' vectors: cosines, if the model compares by these."""
    # A text that is a candidate of several queries is encoded once.
    texts, batches = _distinct_texts(task), []
    with Bar(total=len(texts), desc="encoding", unit="document", leave=False) as bar:
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            batch = texts[start:start + TEXTS_AT_ONCE]
            batches.append(encoder.documents(batch))
            bar.update(len(batch))

    vector_of = dict(zip(texts, itertools.chain.from_iterable(batches), strict=True))  # each (width,)
    query_vectors = encoder.queries(list(task.queries.values()))  # (queries, width)
    run = {}
    for name, vector in zip(task.queries, query_vectors, strict=True):
        run[name] = {document: float(vector_of[text] @ vector) for document, text in task.candidates[name].items()}
    return run


def _distinct_texts(task: RankingTask) -> list[str]:
    """Return the candidates of all queries, each text once, in order."""
    texts: dict[str, None] = {}
    for candidates in task.candidates.values():
        texts |= dict.fromkeys(candidates.values())
    return list(texts)


def cross_encoder(task: RankingTask, reranker: Reranker) -> Run:
    """Return a cross-encoder's scores."""
    pairs = []
    for query, texts in task.candidates.items():
        pairs += [(task.queries[query], text) for text in texts.values()]

    # All pairs in one call, so that the reranker can batch them as it likes; scores come in the pairs' order.
    scores = iter(score_pairs(reranker, pairs))
    run = {}
    for query, texts in task.candidates.items():
        run[query] = {name: next(scores) for name in texts}
    return run


def scaledown(task: RankingTask, model: ScaleDownModel) -> Run:
    """Return the compressor's scores, from the pass that compresses."""
    names, run = list(task.queries), {}
    with Bar(total=len(names), desc="scoring, ScaleDown", unit="query", leave=False) as bar:
        for start in range(0, len(names), QUERIES_AT_ONCE):
            batch = names[start:start + QUERIES_AT_ONCE]
            memory = model.compress([task.queries[name] for name in batch],
                                    [list(task.candidates[name].values()) for name in batch])
            # A candidate that was split scores as its best passage.
            for name, (_, scores) in zip(batch, rankings(memory), strict=True):
                run[name] = dict(zip(task.candidates[name], scores, strict=True))
            bar.update(len(batch))
    return run


def load_scoring_model(checkpoint: str, device: torch.device, dtype: str = "auto",
                       long_documents: str = SPLIT) -> ScaleDownModel:
    """Load the model of ``--checkpoint``, to compute in ``--dtype``; it splits or cuts long documents.

    Raises:
        ValueError: if it cannot be loaded or has no reranking head.
    """
    model = ScaleDownModel.from_pretrained(checkpoint, device=device, dtype=dtype)
    if not model.config.enable_reranking:
        raise ValueError(f"--checkpoint {checkpoint} has no reranking head; train one with --enable_reranking")
    model.long_documents = long_documents
    return model


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
    for metric in ir_measures.iter_calc(measures, qrels, _without_ties(run)):
        values[query_numbers[metric.query_id], columns[str(metric.measure)]] = metric.value
    intervals = bootstrap_ci95(values, num_resamples, seed)  # (measures, 2)

    means, ci95 = {}, {}
    for name, column in columns.items():
        means[name] = float(values[:, column].mean())
        low, high = intervals[column]
        ci95[name] = float(low), float(high)
    return RankingScores(means, ci95, len(query_numbers))


def _without_ties(run: Run) -> Run:
    """Return the run with minus the rank of each document as its score.

    ir-measures computes RR by another tool than nDCG and recall, and the two break ties the other way round.
    """
    ranks: Run = {}
    for query, scores in run.items():
        # trec_eval's order, which compares scores in single precision.
        order = sorted(((np.float32(value), name) for name, value in scores.items()), reverse=True)
        ranks[query] = {name: -float(rank) for rank, (_, name) in enumerate(order)}
    return ranks


def table(scores: Mapping[str, RankingScores]) -> str:
    """Return one row per system, each measure with its interval below it."""
    measures = list(next(iter(scores.values())).means)  # the same of every system
    rows = []
    for name, system in scores.items():
        cells = [f"{score(system.means[measure])}\n{interval_text(system.ci95[measure])}" for measure in measures]
        rows.append([name, *cells])

    num_queries = next(iter(scores.values())).num_queries  # the same of every system
    return console_table([f"n = {num_queries}\nmean [95%]", *measures], rows)
