"""Hybrid search: the rankings of two searchers, one by words and one by vectors, as one ranking."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from scaledown.data.pipeline.retrieval.searcher import Hit, Searcher

RANK_OFFSET = 60
"""Added to every rank: the larger it is, the less the first ranks count above later ones. 60 is the paper's."""
FUSED_HITS = 100
"""Hits of each ranking that are fused at least: a text that is at place 30 in both can be among the first 20."""


def reciprocal_rank_fusion(rankings: Sequence[Sequence[Hit]], top_k: int) -> list[Hit]:
    """Return the ``top_k`` best texts of all rankings together, by reciprocal rank fusion.

    Cormack, Clarke and Büttcher (SIGIR 2009): a text's score is the sum of 1 / (60 + rank) over the rankings that have
    it, with ranks from 1 on. The rankings' own scores, which no scale makes comparable, are not used. Texts of equal
    score come in the order in which they were indexed.
    """
    fused: dict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            fused[hit.index] += 1 / (RANK_OFFSET + rank)

    best = sorted(fused.items(), key=lambda item: (-item[1], item[0]))
    return [Hit(index, score) for index, score in best[:top_k]]


class HybridSearch:
    """Search by words and by vectors, with their rankings fused.

    Args:
        by_words: BM25, whose hits with a score of 0 share no word with the query, and are no match.
        by_vectors: a dense search.
    """

    def __init__(self, by_words: Searcher, by_vectors: Searcher) -> None:
        self._by_words, self._by_vectors = by_words, by_vectors

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See :class:`~scaledown.data.pipeline.retrieval.searcher.Searcher`."""
        depth = max(top_k, FUSED_HITS)
        found_by_words = self._by_words.search(queries, depth)
        found_by_vectors = self._by_vectors.search(queries, depth)

        fused = []
        for word_hits, vector_hits in zip(found_by_words, found_by_vectors, strict=True):
            matches = [hit for hit in word_hits if hit.score > 0]
            fused.append(reciprocal_rank_fusion([matches, vector_hits], top_k))
        return fused
