"""Search in sparse vectors on one machine by Seismic (Bruch et al., arXiv:2404.18812): approximate and fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from scaledown.data.pipeline.retrieval.encoders import Encoder
from scaledown.data.pipeline.retrieval.searcher import Hit
from scaledown.data.pipeline.retrieval.vectors import VectorFiles
from scaledown.files import WHAT_TO_DO, disk_faults

INDEX_NAME = "passages"
INDEX_FILE = f"{INDEX_NAME}.index.seismic"
SEARCH = {"query_cut": 32, "heap_factor": 0.9}
"""The number of a query's words that are looked up, and how readily blocks of the index are skipped: nearer to exact
search than Seismic's defaults."""


class SeismicSearch:
    """Search in a Seismic index that :func:`build_index` wrote."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._encoder = encoder
        self._index = _seismic().SeismicIndex.load(str(folder / INDEX_FILE))

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See :class:`~scaledown.data.pipeline.retrieval.searcher.Searcher`."""
        from sentence_transformers.sparse_encoder.search_engines import semantic_search_seismic

        vectors = self._encoder.queries(queries)  # (queries, width), compressed rows
        word_weights = [_word_weights(vectors, i) for i in range(len(queries))]
        results, _ = semantic_search_seismic(word_weights, corpus_index=self._index, top_k=top_k,
                                             search_kwargs=dict(SEARCH))

        hits = []
        for query_results in results:
            hits.append([Hit(result["corpus_id"], float(result["score"])) for result in query_results])
        return hits


def build_index(files: VectorFiles, num_passages: int, folder: Path) -> None:
    """Build and save the Seismic index of all vectors in files.

    Raises:
        ValueError: if Seismic is not installed, or the index cannot be written.
    """
    seismic = _seismic()
    dataset = seismic.SeismicDataset()
    with tqdm(total=num_passages, desc="indexing by Seismic", unit=" passages", unit_scale=True) as progress:
        for first_passage, vectors in files:
            # Compressed rows: the nonzeros of row i are entries indptr[i] to indptr[i + 1] of the other two.
            indptr, indices, data = vectors["indptr"], vectors["indices"], vectors["data"]
            for i, (start, end) in enumerate(zip(indptr[:-1], indptr[1:], strict=True)):
                dataset.add_document(str(first_passage + i), _names(indices[start:end]), data[start:end])
            progress.update(len(indptr) - 1)

    with disk_faults(folder, WHAT_TO_DO):
        seismic.SeismicIndex.build_from_dataset(dataset).save(str(folder / INDEX_NAME))


def _word_weights(vectors: Any, i: int) -> list[tuple[str, float]]:
    """Return the words (as text, see :func:`_names`) and the weights of query ``i``."""
    start, end = vectors.indptr[i:i + 2]
    words = [str(column) for column in vectors.indices[start:end]]
    return list(zip(words, vectors.data[start:end].tolist(), strict=True))


def _names(columns: np.ndarray) -> np.ndarray:
    """Return the numbers of dimensions as text, by which Seismic knows them."""
    return np.array([str(column) for column in columns], dtype=_seismic().get_seismic_string())


def _seismic() -> Any:
    try:
        import seismic
    except ImportError:
        raise ValueError("--retriever splade on one machine needs Seismic: pip install pyseismic-lsr; or give "
                         "--index_url for Qdrant") from None
    return seismic
