"""Search in dense vectors by FAISS (Douze et al., arXiv:2401.08281): exact, or with an index of any of its kinds."""

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


class ExactSearch:
    """Compares each query with every passage, file by file: memory is a file's, whatever the corpus."""

    def __init__(self, encoder: Encoder, files: VectorFiles) -> None:
        self._encoder, self._files = encoder, files

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See :class:`~scaledown.data.pipeline.retrieval.searcher.Searcher`."""
        faiss = _faiss()
        vectors = self._encoder.queries(queries)
        best = faiss.ResultHeap(len(queries), top_k, keep_max=True)
        for first, passages in self._files:
            scores, numbers = faiss.knn(vectors, passages.astype(np.float32), min(top_k, len(passages)),
                                        metric=faiss.METRIC_INNER_PRODUCT)
            best.add_result(scores, numbers + first)
        best.finalize()
        return _hits(best.D, best.I)


class IndexSearch:
    """Searches a FAISS index that :func:`build_index` wrote."""

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
        ValueError: where FAISS does not know such an index, or there are too few passages to train it.
    """
    faiss = _faiss()
    try:
        index = faiss.index_factory(width, kind, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(_sample(files))
        for _, passages in files:
            index.add(passages.astype(np.float32))
    except RuntimeError as fault:
        reason = str(fault).strip().splitlines()[-1]
        raise ValueError(f"--faiss_index {kind}: FAISS cannot build it from these vectors ({reason})") from None
    with whole_file(folder / INDEX_FILE, WHAT_TO_DO) as draft:
        faiss.write_index(index, str(draft))


def _sample(files: VectorFiles) -> np.ndarray:
    """Up to ``TRAINING_VECTORS`` vectors, evenly from all files."""
    sizes = [len(passages) for _, passages in files]
    step = max(1, -(-sum(sizes) // TRAINING_VECTORS))
    return np.concatenate([np.asarray(passages[::step], dtype=np.float32) for _, passages in files])


def _hits(scores: np.ndarray, numbers: np.ndarray) -> list[list[Hit]]:
    return [[Hit(int(number), float(score)) for number, score in zip(*row, strict=True) if number != NO_HIT]
            for row in zip(numbers, scores, strict=True)]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ValueError("--retriever dense needs FAISS: pip install faiss-cpu") from None
    return faiss
