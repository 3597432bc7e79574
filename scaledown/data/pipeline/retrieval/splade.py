"""Search in sparse vectors on one machine by Seismic (Bruch et al., arXiv:2404.18812): approximate, and fast."""

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
"""Words of a query that count, and how much of the index is passed over: nearer to exact than Seismic's defaults."""


class SeismicSearch:
    """Searches a Seismic index that :func:`build_index` wrote."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._encoder = encoder
        self._index = _seismic().SeismicIndex.load(str(folder / INDEX_FILE))

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See :class:`~scaledown.data.pipeline.retrieval.searcher.Searcher`."""
        from sentence_transformers.sparse_encoder.search_engines import semantic_search_seismic

        vectors = self._encoder.queries(queries)
        decoded = [list(zip(*_row(vectors, number), strict=True)) for number in range(len(queries))]
        found, _ = semantic_search_seismic(decoded, corpus_index=self._index, top_k=top_k, search_kwargs=dict(SEARCH))
        return [[Hit(hit["corpus_id"], float(hit["score"])) for hit in hits] for hits in found]


def build_index(files: VectorFiles, num_passages: int, folder: Path) -> None:
    """Build and save the Seismic index of all vectors in files."""
    seismic = _seismic()
    dataset = seismic.SeismicDataset()
    with tqdm(total=num_passages, desc="indexing by Seismic", unit=" passages", unit_scale=True) as progress:
        for first, rows in files:
            indptr, indices, data = rows["indptr"], rows["indices"], rows["data"]
            for row, (start, end) in enumerate(zip(indptr[:-1], indptr[1:], strict=True)):
                dataset.add_document(str(first + row), _names(indices[start:end]), data[start:end])
            progress.update(len(indptr) - 1)
    with disk_faults(folder, WHAT_TO_DO):
        seismic.SeismicIndex.build_from_dataset(dataset).save(str(folder / INDEX_NAME))


def _row(vectors: Any, number: int) -> tuple[list[str], list[float]]:
    start, end = vectors.indptr[number:number + 2]
    return [str(column) for column in vectors.indices[start:end]], vectors.data[start:end].tolist()


def _names(columns: np.ndarray) -> np.ndarray:
    """Seismic names the dimensions by text."""
    return np.array([str(column) for column in columns], dtype=_seismic().get_seismic_string())


def _seismic() -> Any:
    try:
        import seismic
    except ImportError:
        raise ValueError("--retriever splade on one machine needs Seismic: pip install pyseismic-lsr; or give "
                         "--index_url for Qdrant") from None
    return seismic
