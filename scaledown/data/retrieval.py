"""BM25 over texts in memory (Robertson and Zaragoza, 2009), by the bm25s library (Lù, arXiv:2407.03618)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hit:
    """One text found: its place in the indexed texts, and its BM25 score (0: it shares no word with the query)."""

    index: int
    score: float


class BM25:
    """An index of texts, and its best texts for each query.

    Words are what ``\\w\\w+`` matches, in lower case, without the commonest English ones. Nothing is stemmed, so that
    any language with spaces between its words can be searched.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        self.num_texts = len(texts)
        self._index = None
        tokens = bm25s.tokenize(list(texts), stopwords="en", show_progress=False)
        if set(tokens.vocab) - {""}:
            self._index = bm25s.BM25(method="lucene", backend="numpy")
            self._index.index(tokens, show_progress=False)

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """The ``top_k`` best texts of each query, best first; fewer where fewer were indexed.

        Texts of equal score come in the order in which they were indexed.
        """
        top_k = min(top_k, self.num_texts)
        if top_k < 1:
            return [[] for _ in queries]
        return [_best(self._scores(query), top_k) for query in queries]

    def _scores(self, query: str) -> np.ndarray:
        import bm25s

        if self._index is None:
            return np.zeros(self.num_texts, dtype=np.float32)
        words = bm25s.tokenize([query], stopwords="en", return_ids=False, show_progress=False)[0]
        # Where there is no word, bm25s gives one empty word, which would match every text without words.
        return self._index.get_scores_from_ids(self._index.get_tokens_ids([word for word in words if word]))


def _best(scores: np.ndarray, top_k: int) -> list[Hit]:
    lowest = np.partition(scores, -top_k)[-top_k]
    candidates = np.flatnonzero(scores >= lowest)
    order = np.argsort(-scores[candidates], kind="stable")[:top_k]
    return [Hit(int(index), float(scores[index])) for index in candidates[order]]
