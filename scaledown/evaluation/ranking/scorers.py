"""Scores of the candidates of a ranking task: the order given, BM25, a cross-encoder, and ScaleDown's compressor."""

from __future__ import annotations

import torch
from tqdm import tqdm

from scaledown.data.pipeline.retrieval import BM25
from scaledown.data.pipeline.trec import Run
from scaledown.data.reranking.cross_encoder import Reranker, score_pairs
from scaledown.evaluation.ranking.ranking_task import RankingTask
from scaledown.models.model import ScaleDownModel
from scaledown.training.devices import dtype_for

QUERIES_AT_ONCE = 4


def order_given(task: RankingTask) -> Run:
    """Return scores that keep the candidates in the order given."""
    run = {}
    for query, texts in task.candidates.items():
        run[query] = {name: -float(rank) for rank, name in enumerate(texts)}  # higher scores rank first
    return run


def bm25(task: RankingTask) -> Run:
    """Return BM25's scores, with word frequencies counted over the candidates of all queries together."""
    candidate_texts: dict[str, None] = {}
    for candidates in task.candidates.values():
        candidate_texts |= dict.fromkeys(candidates.values())
    texts = list(candidate_texts)  # each once, in order

    index, run = BM25(texts), {}
    for name, query in tqdm(task.queries.items(), desc="scoring, BM25", unit="query", leave=False):
        # Of the whole index, from which the query's own candidates are picked.
        score_of = {texts[hit.index]: hit.score for hit in index.search([query], len(texts))[0]}
        run[name] = {document: score_of[text] for document, text in task.candidates[name].items()}
    return run


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
    with tqdm(total=len(names), desc="scoring, ScaleDown", unit="query", leave=False) as bar:
        for start in range(0, len(names), QUERIES_AT_ONCE):
            batch = names[start:start + QUERIES_AT_ONCE]
            memory = model.compress([task.queries[name] for name in batch],
                                    [list(task.candidates[name].values()) for name in batch])
            for name, scores in zip(batch, memory.scores.tolist(), strict=True):  # scores (B, K)
                # A query with fewer candidates than others in its batch is padded with -inf.
                run[name] = dict(zip(task.candidates[name], scores, strict=False))
            bar.update(len(batch))
    return run


def load_scoring_model(checkpoint: str, device: torch.device) -> ScaleDownModel:
    """Load the model of ``--checkpoint``.

    Raises:
        ValueError: if it cannot be loaded or has no reranking head.
    """
    model = ScaleDownModel.from_pretrained(checkpoint, device=device, dtype=dtype_for(device))
    if not model.config.enable_reranking:
        raise ValueError(f"--checkpoint {checkpoint} has no reranking head; train one with --enable_reranking")
    return model
