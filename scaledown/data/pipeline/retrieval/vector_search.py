"""Search in vectors on one machine.

Dense ones by FAISS (Douze et al., arXiv:2401.08281), exactly or with any kind of index it has; sparse ones by Seismic
(Bruch et al., arXiv:2404.18812), approximate and fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaledown.data.pipeline.retrieval.searcher import Hit
from scaledown.data.pipeline.retrieval.vectors import Encoder, VectorFiles
from scaledown.files import WHAT_TO_DO, disk_faults, whole_file
from scaledown.progress import Bar

FAISS_FILE = "passages.faiss"
TRAINING_VECTORS = 262_144
NO_HIT = -1
"""FAISS fills up the hits of a query with this number, if there are fewer."""
SEISMIC_NAME = "passages"
SEISMIC_FILE = f"{SEISMIC_NAME}.index.seismic"
SEISMIC_SEARCH = {"query_cut": 32, "heap_factor": 0.9}
"""The number of a query's words that are looked up, and how readily blocks of the index are skipped: nearer to exact
search than Seismic's defaults."""


class ExactSearch:
    """Exact search: each query against every passage, with one file of vectors in memory at a time."""

    def __init__(self, encoder: Encoder, files: VectorFiles) -> None:
        self._encoder, self._files = encoder, files

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See :class:`~scaledown.data.pipeline.retrieval.searcher.Searcher`."""
        import faiss

        vectors = self._encoder.queries(queries)  # (queries, width)

        # A heap for each query keeps its best passages over all files.
        best = faiss.ResultHeap(len(queries), top_k, keep_max=True)
        for start, passages in self._files:
            scores, numbers = faiss.knn(vectors, passages.astype(np.float32), min(top_k, len(passages)),
                                        metric=faiss.METRIC_INNER_PRODUCT)  # both (queries, top_k)
            best.add_result(scores, numbers + start)  # numbers in the file -> numbers in the corpus
        best.finalize()
        return _hits(best.D, best.I)


class FaissSearch:
    """Search in a FAISS index that :func:`build_faiss` wrote."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        import faiss

        self._encoder = encoder
        self._index = faiss.read_index(str(folder / FAISS_FILE), faiss.IO_FLAG_MMAP)

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See :class:`~scaledown.data.pipeline.retrieval.searcher.Searcher`."""
        return _hits(*self._index.search(self._encoder.queries(queries), top_k))


def build_faiss(kind: str, width: int, files: VectorFiles, folder: Path) -> None:
    """Build the FAISS index that the factory string ``kind`` describes, from vectors in files.

    Raises:
        ValueError: if FAISS does not know such an index, or there are too few passages to train it.
    """
    import faiss

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

    with whole_file(folder / FAISS_FILE, WHAT_TO_DO) as draft:
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


class SeismicSearch:
    """Search in a Seismic index that :func:`build_seismic` wrote."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        import seismic

        self._encoder = encoder
        self._index = seismic.SeismicIndex.load(str(folder / SEISMIC_FILE))

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See :class:`~scaledown.data.pipeline.retrieval.searcher.Searcher`."""
        from sentence_transformers.sparse_encoder.search_engines import semantic_search_seismic

        vectors = self._encoder.queries(queries)  # (queries, width), compressed rows
        word_weights = [_word_weights(vectors, i) for i in range(len(queries))]
        results, _ = semantic_search_seismic(word_weights, corpus_index=self._index, top_k=top_k,
                                             search_kwargs=dict(SEISMIC_SEARCH))

        hits = []
        for query_results in results:
            hits.append([Hit(result["corpus_id"], float(result["score"])) for result in query_results])
        return hits


def build_seismic(files: VectorFiles, num_passages: int, folder: Path) -> None:
    """Build and save the Seismic index of all vectors in files.

    Raises:
        ValueError: if the index cannot be written.
    """
    import seismic

    dataset = seismic.SeismicDataset()
    with Bar(total=num_passages, desc="indexing by Seismic", unit=" passages", unit_scale=True) as progress:
        for first_passage, vectors in files:
            # Compressed rows: the nonzeros of row i are entries indptr[i] to indptr[i + 1] of the other two.
            indptr, indices, data = vectors["indptr"], vectors["indices"], vectors["data"]
            for i, (start, end) in enumerate(zip(indptr[:-1], indptr[1:], strict=True)):
                dataset.add_document(str(first_passage + i), _names(indices[start:end]), data[start:end])
            progress.update(len(indptr) - 1)

    with disk_faults(folder, WHAT_TO_DO):
        seismic.SeismicIndex.build_from_dataset(dataset).save(str(folder / SEISMIC_NAME))


def _word_weights(vectors: Any, i: int) -> list[tuple[str, float]]:
    """Return the words (as text, see :func:`_names`) and the weights of query ``i``."""
    start, end = vectors.indptr[i:i + 2]
    words = [str(column) for column in vectors.indices[start:end]]
    return list(zip(words, vectors.data[start:end].tolist(), strict=True))


def _names(columns: np.ndarray) -> np.ndarray:
    """Return the numbers of dimensions as text, by which Seismic knows them."""
    import seismic

    return np.array([str(column) for column in columns], dtype=seismic.get_seismic_string())
