"""Encoders by sentence-transformers: texts to dense vectors, or to sparse ones over a vocabulary (SPLADE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from scaledown import hub
from scaledown.data.pipeline.retrieval.retrieval_config import RetrievalConfig
from scaledown.data.reranking.encoder_limits import ReadableLength
from scaledown.precision import dtype_to_load

WHAT_WORKS = "What works without it: --retriever bm25, or --retriever_model FOLDER."


class Encoder(Protocol):
    """Reads documents and queries, each in the way that its model was trained for."""

    width: int

    def documents(self, texts: Sequence[str]) -> Any:
        """The vectors (texts, width) of documents."""

    def queries(self, texts: Sequence[str]) -> Any:
        """The vectors (texts, width) of queries."""


class DenseEncoder:
    """Vectors as fp32 arrays; if the model compares by cosine, of length 1, so that products compare them.

    ``flag`` is the model by its flag, for messages.
    """

    def __init__(self, model: Any, batch_size: int, flag: str) -> None:
        self.width = model.get_embedding_dimension()
        self._model, self._flag = model, flag
        self._length = ReadableLength(model, flag)
        self._settings = {"batch_size": batch_size, "convert_to_numpy": True, "show_progress_bar": False,
                          "normalize_embeddings": model.similarity_fn_name == "cosine"}

    def documents(self, texts: Sequence[str]) -> np.ndarray:
        """See :class:`Encoder`."""
        self._length.tell_cut([(text,) for text in texts])
        return self._checked(self._model.encode_document(list(texts), **self._settings))

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """See :class:`Encoder`."""
        return self._checked(self._model.encode_query(list(texts), **self._settings))

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        _require_finite(vectors, self._flag)
        return vectors.astype(np.float32)


class SparseEncoder:
    """Vectors as scipy's compressed rows; ``flag`` is the model by its flag, for messages."""

    def __init__(self, model: Any, batch_size: int, flag: str) -> None:
        self.width = model.get_embedding_dimension()
        self._model, self._flag = model, flag
        self._length = ReadableLength(model, flag)
        self._settings = {"batch_size": batch_size, "convert_to_tensor": True, "convert_to_sparse_tensor": True,
                          "save_to_cpu": True, "show_progress_bar": False}

    def documents(self, texts: Sequence[str]) -> Any:
        """See :class:`Encoder`."""
        self._length.tell_cut([(text,) for text in texts])
        return self._checked(self._model.encode_document(list(texts), **self._settings))

    def queries(self, texts: Sequence[str]) -> Any:
        """See :class:`Encoder`."""
        return self._checked(self._model.encode_query(list(texts), **self._settings))

    def _checked(self, vectors: Any) -> Any:
        rows = _compressed_rows(vectors)
        _require_finite(rows.data, self._flag)
        return rows


def load_encoder(config: RetrievalConfig) -> Encoder:
    """Load the encoder of a ``splade`` or ``dense`` retriever.

    Raises:
        ValueError: where it cannot be found or read, or is of another kind.
    """
    import sentence_transformers
    from safetensors import SafetensorError
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    place = hub.locate(config.model, config.retriever_revision, what_works=WHAT_WORKS)
    is_sparse = config.retriever == "splade"
    load = sentence_transformers.SparseEncoder if is_sparse else sentence_transformers.SentenceTransformer
    device = sentence_transformers.util.get_device_name()
    try:
        model = load(place, device=device, revision=config.retriever_revision or "main", trust_remote_code=False,
                     model_kwargs={**hub.SAFE_WEIGHTS, "dtype": dtype_to_load(device)})
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as fault:
        raise ValueError(f"--retriever_model {config.model}: cannot be read as an encoder for --retriever "
                         f"{config.retriever} ({fault})") from fault
    # Of any other model sentence-transformers makes a sparse one, with weights that nobody has trained.
    if is_sparse and not any(isinstance(module, SpladePooling | SparseStaticEmbedding) for module in model.modules()):
        raise ValueError(f"--retriever_model {config.model}: is no SPLADE model, as --retriever splade needs")
    return (SparseEncoder if is_sparse else DenseEncoder)(model, config.retriever_batch_size,
                                                          f"--retriever_model {config.model}")


def _require_finite(values: np.ndarray, flag: str) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{flag}: gives vectors with NaN or infinity in them; are its weights whole?")


def _compressed_rows(vectors: Any) -> Any:
    from scipy.sparse import csr_array

    vectors = vectors.coalesce()
    rows, columns = vectors.indices().numpy()
    return csr_array((vectors.values().float().numpy(), (rows, columns)), shape=tuple(vectors.shape))
