"""Vectors, dense or sparse, in Qdrant: a server or cluster by its URL, or a folder in its embedded form."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaledown.data.pipeline.addresses import QDRANT_KEY
from scaledown.data.pipeline.retrieval.searcher import Hit
from scaledown.data.pipeline.retrieval.vectors import Encoder
from scaledown.files import WHAT_TO_DO, disk_faults

VECTOR = "passage"
POINTS_AT_ONCE = 256
TIMEOUT_SECONDS = 120


class Qdrant:
    """One collection. Empty files in ``folder`` note which passages the server has confirmed."""

    def __init__(self, url: str, collection: str, folder: Path) -> None:
        self._client = _connect(url)
        self._collection, self._folder = collection, folder
        folder.mkdir(parents=True, exist_ok=True)

    def create(self, encoder: Encoder, is_sparse: bool) -> None:
        """Create the collection, unless it exists. If it is gone, the notes of its passages are deleted."""
        from qdrant_client import models

        if self._client.collection_exists(self._collection):
            return
        for note in self._folder.glob("uploaded-*"):
            note.unlink()

        # Scores are inner products, as in the other searches; sparse vectors have no other.
        dense = models.VectorParams(size=encoder.width, distance=models.Distance.DOT)
        self._client.create_collection(
            self._collection, vectors_config={} if is_sparse else {VECTOR: dense},
            sparse_vectors_config={VECTOR: models.SparseVectorParams()} if is_sparse else None)

    def has(self, start: int) -> bool:
        """See :class:`~scaledown.data.pipeline.retrieval.vectors.VectorKeeper`."""
        return self._note(start).exists()

    def keep(self, start: int, vectors: Any) -> None:
        """See :class:`~scaledown.data.pipeline.retrieval.vectors.VectorKeeper`."""
        from qdrant_client import models

        # A passage's number is its point's id, so that one sent again replaces itself.
        for batch_start in range(0, vectors.shape[0], POINTS_AT_ONCE):
            batch_end = min(batch_start + POINTS_AT_ONCE, vectors.shape[0])
            points = [models.PointStruct(id=start + i, vector={VECTOR: _vector(vectors, i)})
                      for i in range(batch_start, batch_end)]
            self._ask("upsert", points=points, wait=True)

        # Noted only now: a run that is killed before sends all of them again.
        with disk_faults(self._note(start), WHAT_TO_DO):
            self._note(start).touch()

    def search(self, vectors: Any, top_k: int) -> list[list[Hit]]:
        """Return the best passages for each query vector."""
        from qdrant_client import models

        requests = [models.QueryRequest(query=_vector(vectors, i), using=VECTOR, limit=top_k)
                    for i in range(vectors.shape[0])]
        hits = []
        for response in self._ask("query_batch_points", requests=requests):
            hits.append([Hit(point.id, point.score) for point in response.points])
        return hits

    def close(self) -> None:
        """Close the folder or the connection."""
        self._client.close()

    def _ask(self, call: str, **arguments: Any) -> Any:
        """Call a method of the client for this collection.

        Raises:
            ValueError: if Qdrant does not answer, or refuses.
        """
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        try:
            return getattr(self._client, call)(self._collection, **arguments)
        except (ApiException, QdrantException) as fault:
            raise ValueError(f"--index_url: Qdrant's {call} failed ({fault}); {WHAT_TO_DO}") from fault

    def _note(self, start: int) -> Path:
        return self._folder / f"uploaded-{start:010d}"


class QdrantSearch:
    """Search by Qdrant with the vectors of queries."""

    def __init__(self, encoder: Encoder, qdrant: Qdrant) -> None:
        self._encoder, self._qdrant = encoder, qdrant

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See :class:`~scaledown.data.pipeline.retrieval.searcher.Searcher`."""
        return self._qdrant.search(self._encoder.queries(queries), top_k)


def is_server(url: str) -> bool:
    """Return whether ``--index_url`` names a server and not a folder."""
    return url.startswith(("http://", "https://"))


def _connect(url: str) -> Any:
    """Connect to a server, or open a folder.

    Raises:
        ValueError: if Qdrant cannot be reached at, or opened in, what ``url`` names.
    """
    from qdrant_client import QdrantClient
    from qdrant_client.http.exceptions import ApiException

    try:
        if is_server(url):
            client = QdrantClient(url=url, timeout=TIMEOUT_SECONDS, api_key=os.environ.get(QDRANT_KEY))
        else:
            client = QdrantClient(path=url)
        client.get_collections()  # the constructor alone does not connect
    except (ApiException, RuntimeError, OSError) as fault:
        raise ValueError(f"--index_url {url}: Qdrant cannot be reached or opened there ({fault})") from fault
    return client


def _vector(vectors: Any, i: int) -> Any:
    """Return vector ``i`` of an array or of scipy's compressed rows in Qdrant's form."""
    from qdrant_client import models

    if isinstance(vectors, np.ndarray):
        return vectors[i].tolist()

    start, end = vectors.indptr[i:i + 2]  # of its nonzeros
    return models.SparseVector(indices=vectors.indices[start:end].tolist(), values=vectors.data[start:end].tolist())
