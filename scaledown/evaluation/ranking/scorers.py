"""Who scores the candidates of a ranking task: the order given, BM25, a cross-encoder, and ScaleDown's compressor."""

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
    """The candidates as they came."""
    return {query: {name: -float(rank) for rank, name in enumerate(texts)} for query, texts in task.candidates.items()}


def bm25(task: RankingTask) -> Run:
    """BM25's scores; how rare a word is, is counted over all queries' candidates together."""
    texts = list(dict.fromkeys(text for each in task.candidates.values() for text in each.values()))
    index, run = BM25(texts), {}
    for name, query in tqdm(task.queries.items(), desc="scoring, BM25", unit="query", leave=False):
        score_of = {texts[hit.index]: hit.score for hit in index.search([query], len(texts))[0]}
        run[name] = {document: score_of[text] for document, text in task.candidates[name].items()}
    return run


def cross_encoder(task: RankingTask, reranker: Reranker) -> Run:
    """A cross-encoder's scores."""
    pairs = [(task.queries[query], text) for query, texts in task.candidates.items() for text in texts.values()]
    scores = iter(score_pairs(reranker, pairs))
    return {query: {name: next(scores) for name in texts} for query, texts in task.candidates.items()}


def scaledown(task: RankingTask, model: ScaleDownModel) -> Run:
    """The compressor's scores, in the pass that compresses."""
    names, run = list(task.queries), {}
    with tqdm(total=len(names), desc="scoring, ScaleDown", unit="query", leave=False) as bar:
        for start in range(0, len(names), QUERIES_AT_ONCE):
            batch = names[start:start + QUERIES_AT_ONCE]
            memory = model.compress([task.queries[name] for name in batch],
                                    [list(task.candidates[name].values()) for name in batch])
            for name, scores in zip(batch, memory.scores.tolist(), strict=True):
                # A query with fewer candidates than others has -inf behind them.
                run[name] = dict(zip(task.candidates[name], scores, strict=False))
            bar.update(len(batch))
    return run


def load_scoring_model(checkpoint: str, device: torch.device) -> ScaleDownModel:
    """The model of ``--checkpoint``.

    Raises:
        ValueError: where there is none, or it has no reranking head.
    """
    model = ScaleDownModel.from_pretrained(checkpoint, device=device, dtype=dtype_for(device))
    if not model.config.enable_reranking:
        raise ValueError(f"--checkpoint {checkpoint} has no reranking head; train one with --enable_reranking")
    return model
