"""BM25 (Robertson and Zaragoza, 2009), by the bm25s library (Lù, arXiv:2407.03618)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from scaledown.data.answers import words
from scaledown.data.pipeline.retrieval.searcher import Hit

SIZE_FILE = "bm25.json"
WORDS = "in normal form, of two characters and more"
"""The way in which texts become words: part of an index's fingerprint, so that one of other words is not searched."""
_TOKENS = {"lower": False, "token_pattern": r"\S\S+", "stopwords": "en", "show_progress": False}


class BM25:
    """An index of texts, in memory or memory-mapped from a folder.

    The words of texts and of queries are in normal form, without single letters and the commonest English words.
    Nothing is stemmed, so that any language with spaces between its words can be searched.
    """

    def __init__(self, texts: Iterable[str], show_progress: bool = False) -> None:
        import bm25s

        tokens = bm25s.tokenize(map(_spaced_words, texts), **_TOKENS)
        self.num_texts = len(tokens.ids)

        # bm25s cannot index texts without a single word: then there is no index, and all scores are 0.
        self._index = None
        if set(tokens.vocab) - {""}:
            self._index = bm25s.BM25(method="lucene", backend="numpy")
            self._index.index(tokens, show_progress=show_progress)

    def save(self, folder: Path) -> None:
        """Write the index into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        if self._index is not None:
            self._index.save(folder, show_progress=False)

        size = {"num_texts": self.num_texts, "has_words": self._index is not None}
        (folder / SIZE_FILE).write_text(json.dumps(size), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> BM25:
        """Open a saved index; it is read from the disk as it is needed."""
        import bm25s

        index = cls.__new__(cls)  # __init__ would build one
        size = json.loads((folder / SIZE_FILE).read_text(encoding="utf-8"))
        index.num_texts = size["num_texts"]
        index._index = bm25s.BM25.load(folder, mmap=True) if size["has_words"] else None
        return index

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """Return the ``top_k`` best texts of each query, best first; fewer if fewer were indexed.

        Texts of equal score come in the order in which they were indexed.
        """
        top_k = min(top_k, self.num_texts)
        if top_k < 1:
            return [[] for _ in queries]
        return [_best(self._scores(query), top_k) for query in queries]

    def _scores(self, query: str) -> np.ndarray:
        """Return the scores of all texts, (num_texts,)."""
        import bm25s

        if self._index is None:
            return np.zeros(self.num_texts, dtype=np.float32)

        query_words = bm25s.tokenize([_spaced_words(query)], return_ids=False, **_TOKENS)[0]
        # Of a query without words bm25s makes one empty word, which would match every text without words.
        query_words = [word for word in query_words if word]
        return self._index.get_scores_from_ids(self._index.get_tokens_ids(query_words))


def _spaced_words(text: str) -> str:
    """Return the words of ``text`` with spaces between them, which is what the token pattern splits at."""
    return " ".join(words(text))


def _best(scores: np.ndarray, top_k: int) -> list[Hit]:
    # Only the texts with at least the top_k-th best score are sorted; those that tie with it included, so that the
    # stable sort decides by their order in the index.
    lowest = np.partition(scores, -top_k)[-top_k]
    candidates = np.flatnonzero(scores >= lowest)
    order = np.argsort(-scores[candidates], kind="stable")[:top_k]
    return [Hit(int(index), float(scores[index])) for index in candidates[order]]
