"""Search in dense vectors by FAISS (Douze et al., arXiv:2401.08281): exact, or with any kind of index it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaledown.data.pipeline.retrieval.encoders import Encoder
from scaledown.data.pipeline.retrieval.searcher import Hit
from scaledown.data.pipeline.retrieval.vectors import VectorFiles
from scaledown.files import WHAT_TO_DO, whole_file

INDEX_FILE = "passages.faiss"
TRAINING_VECTORS = 262_144
NO_HIT = -1
"""FAISS fills up the hits of a query with this number, if there are fewer."""


class ExactSearch:
    """Exact search: each query against every passage, with one file of vectors in memory at a time."""

    def __init__(self, encoder: Encoder, files: VectorFiles) -> None:
        self._encoder, self._files = encoder, files

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See :class:`~scaledown.data.pipeline.retrieval.searcher.Searcher`."""
        faiss = _faiss()
        vectors = self._encoder.queries(queries)  # (queries, width)

        # A heap for each query keeps its best passages over all files.
        best = faiss.ResultHeap(len(queries), top_k, keep_max=True)
        for start, passages in self._files:
            scores, numbers = faiss.knn(vectors, passages.astype(np.float32), min(top_k, len(passages)),
                                        metric=faiss.METRIC_INNER_PRODUCT)  # both (queries, top_k)
            best.add_result(scores, numbers + start)  # numbers in the file -> numbers in the corpus
        best.finalize()
        return _hits(best.D, best.I)


class IndexSearch:
    """Search in a FAISS index that :func:`build_index` wrote."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        faiss = _faiss()
        self._encoder = encoder
        self._index = faiss.read_index(str(folder / INDEX_FILE), faiss.IO_FLAG_MMAP)

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See :class:`~scaledown.data.pipeline.retrieval.searcher.Searcher`."""
        return _hits(*self._index.search(self._encoder.queries(queries), top_k))


def build_index(kind: str, width: int, files: VectorFiles, folder: Path) -> None:
    """Build the FAISS index that the factory string ``kind`` describes, from vectors in files.

    Raises:
        ValueError: if FAISS does not know such an index, or there are too few passages to train it.
    """
    faiss = _faiss()
    try:
        index = faiss.index_factory(width, kind, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(_sample(files))

        # In the order of the files, so that FAISS's numbers are those of the passages.
        for _, passages in files:
            index.add(passages.astype(np.float32))
    except RuntimeError as fault:
        reason = str(fault).strip().splitlines()[-1]  # FAISS may write several lines
        raise ValueError(f"--faiss_index {kind}: FAISS cannot build it from these vectors ({reason})") from None

    with whole_file(folder / INDEX_FILE, WHAT_TO_DO) as draft:
        faiss.write_index(index, str(draft))


def _sample(files: VectorFiles) -> np.ndarray:
    """Return up to ``TRAINING_VECTORS`` vectors, evenly from all files."""
    num_vectors = sum(len(passages) for _, passages in files)
    step = max(1, -(-num_vectors // TRAINING_VECTORS))  # rounded up
    return np.concatenate([np.asarray(passages[::step], dtype=np.float32) for _, passages in files])


def _hits(scores: np.ndarray, numbers: np.ndarray) -> list[list[Hit]]:
    """Return the hits of each query, from FAISS's two arrays (queries, top_k)."""
    hits = []
    for query_numbers, query_scores in zip(numbers, scores, strict=True):
        hits.append([Hit(int(number), float(score)) for number, score in zip(query_numbers, query_scores, strict=True)
                     if number != NO_HIT])
    return hits


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ValueError("--retriever dense needs FAISS: pip install faiss-cpu") from None
    return faiss
