"""Vectors, dense or sparse, in Qdrant: a server or cluster by its URL, or a folder with the embedded form."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaledown.data.pipeline.retrieval.encoders import Encoder
from scaledown.data.pipeline.retrieval.searcher import Hit
from scaledown.files import WHAT_TO_DO, disk_faults

KEY = "QDRANT_API_KEY"
VECTOR = "passage"
POINTS_AT_ONCE = 256
TIMEOUT_SECONDS = 120


class Qdrant:
    """One collection. Which passages are in it is noted in ``folder``, once the server has said so."""

    def __init__(self, url: str, collection: str, folder: Path) -> None:
        self._client = _connect(url)
        self._collection, self._folder = collection, folder
        folder.mkdir(parents=True, exist_ok=True)

    def create(self, encoder: Encoder, is_sparse: bool) -> None:
        """Make the collection, unless it is there; one that is gone takes the notes of its passages with it."""
        from qdrant_client import models

        if self._client.collection_exists(self._collection):
            return
        for note in self._folder.glob("uploaded-*"):
            note.unlink()
        dense = models.VectorParams(size=encoder.width, distance=models.Distance.DOT)
        self._client.create_collection(
            self._collection, vectors_config={} if is_sparse else {VECTOR: dense},
            sparse_vectors_config={VECTOR: models.SparseVectorParams()} if is_sparse else None)

    def has(self, first: int) -> bool:
        """See :class:`~scaledown.data.pipeline.retrieval.vectors.VectorKeeper`."""
        return self._note(first).exists()

    def keep(self, first: int, vectors: Any) -> None:
        """See :class:`~scaledown.data.pipeline.retrieval.vectors.VectorKeeper`."""
        from qdrant_client import models

        for start in range(0, vectors.shape[0], POINTS_AT_ONCE):
            end = min(start + POINTS_AT_ONCE, vectors.shape[0])
            points = [models.PointStruct(id=first + row, vector={VECTOR: _vector(vectors, row)})
                      for row in range(start, end)]
            self._ask("upsert", points=points, wait=True)
        with disk_faults(self._note(first), WHAT_TO_DO):
            self._note(first).touch()

    def search(self, vectors: Any, top_k: int) -> list[list[Hit]]:
        """The best passages for each query vector."""
        from qdrant_client import models

        requests = [models.QueryRequest(query=_vector(vectors, row), using=VECTOR, limit=top_k)
                    for row in range(vectors.shape[0])]
        answers = self._ask("query_batch_points", requests=requests)
        return [[Hit(point.id, point.score) for point in answer.points] for answer in answers]

    def close(self) -> None:
        """Let go of the folder or the connection."""
        self._client.close()

    def _ask(self, call: str, **arguments: Any) -> Any:
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        try:
            return getattr(self._client, call)(self._collection, **arguments)
        except (ApiException, QdrantException) as fault:
            raise ValueError(f"--index_url: Qdrant's {call} failed ({fault}); {WHAT_TO_DO}") from fault

    def _note(self, first: int) -> Path:
        return self._folder / f"uploaded-{first:010d}"


class QdrantSearch:
    """Encodes queries and has Qdrant find their passages."""

    def __init__(self, encoder: Encoder, qdrant: Qdrant) -> None:
        self._encoder, self._qdrant = encoder, qdrant

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See :class:`~scaledown.data.pipeline.retrieval.searcher.Searcher`."""
        return self._qdrant.search(self._encoder.queries(queries), top_k)


def is_server(url: str) -> bool:
    """Whether ``--index_url`` names a server rather than a folder."""
    return url.startswith(("http://", "https://"))


def _connect(url: str) -> Any:
    try:
        from qdrant_client import QdrantClient
        from qdrant_client.http.exceptions import ApiException
    except ImportError:
        raise ValueError("--index_url needs Qdrant's client: pip install qdrant-client") from None
    try:
        client = (QdrantClient(url=url, timeout=TIMEOUT_SECONDS, api_key=os.environ.get(KEY)) if is_server(url)
                  else QdrantClient(path=url))
        client.get_collections()
    except (ApiException, RuntimeError, OSError) as fault:
        raise ValueError(f"--index_url {url}: Qdrant cannot be reached or opened there ({fault})") from fault
    return client


def _vector(vectors: Any, row: int) -> Any:
    from qdrant_client import models

    if isinstance(vectors, np.ndarray):
        return vectors[row].tolist()
    start, end = vectors.indptr[row:row + 2]
    return models.SparseVector(indices=vectors.indices[start:end].tolist(), values=vectors.data[start:end].tolist())
