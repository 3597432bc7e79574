"""Encoders of sentence-transformers: texts become dense vectors, or sparse ones over a vocabulary (SPLADE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from scaledown import hub
from scaledown.data.pipeline.retrieval.retrieval_config import RetrievalConfig
from scaledown.data.reranking.encoder_limits import ReadableLength
from scaledown.hub import dtype_to_load

WHAT_WORKS = "What works without it: --retriever bm25, or --retriever_model FOLDER."


class Encoder(Protocol):
    """A model that reads documents and queries, each in the way that it was trained for."""

    width: int

    def documents(self, texts: Sequence[str]) -> Any:
        """Return the vectors of documents, (texts, width)."""

    def queries(self, texts: Sequence[str]) -> Any:
        """Return the vectors of queries, (texts, width)."""


class DenseEncoder:
    """An encoder into fp32 arrays. If the model compares by cosine, vectors have length 1: products are cosines then.

    ``flag`` names the model with its flag, for messages.
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
        return self._in_fp32(self._model.encode_document(list(texts), **self._settings))

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """See :class:`Encoder`."""
        return self._in_fp32(self._model.encode_query(list(texts), **self._settings))

    def _in_fp32(self, vectors: np.ndarray) -> np.ndarray:
        _require_finite(vectors, self._flag)
        return vectors.astype(np.float32)


class SparseEncoder:
    """An encoder into scipy's compressed rows; ``flag`` names the model with its flag, for messages."""

    def __init__(self, model: Any, batch_size: int, flag: str) -> None:
        self.width = model.get_embedding_dimension()
        self._model, self._flag = model, flag
        self._length = ReadableLength(model, flag)
        self._settings = {"batch_size": batch_size, "convert_to_tensor": True, "convert_to_sparse_tensor": True,
                          "save_to_cpu": True, "show_progress_bar": False}

    def documents(self, texts: Sequence[str]) -> Any:
        """See :class:`Encoder`."""
        self._length.tell_cut([(text,) for text in texts])
        return self._compressed(self._model.encode_document(list(texts), **self._settings))

    def queries(self, texts: Sequence[str]) -> Any:
        """See :class:`Encoder`."""
        return self._compressed(self._model.encode_query(list(texts), **self._settings))

    def _compressed(self, vectors: Any) -> Any:
        matrix = _compressed_rows(vectors)
        _require_finite(matrix.data, self._flag)
        return matrix


def load_encoder(config: RetrievalConfig) -> Encoder:
    """Load the encoder of a ``splade`` or ``dense`` retriever.

    Raises:
        ValueError: if it cannot be found or read, or is of another kind.
    """
    import sentence_transformers
    from safetensors import SafetensorError
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    place = hub.locate(config.model, config.retriever_revision, what_works=WHAT_WORKS)
    is_sparse = config.retriever == "splade"
    model_class = sentence_transformers.SparseEncoder if is_sparse else sentence_transformers.SentenceTransformer
    device = sentence_transformers.util.get_device_name()
    try:
        # No code of the repository is run, and no pickle is read: a name on the Hub may be anybody's.
        model = model_class(place, device=device, revision=config.retriever_revision or "main", trust_remote_code=False,
                            model_kwargs={**hub.SAFE_WEIGHTS, "dtype": dtype_to_load(device)})
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as fault:
        raise ValueError(f"--retriever_model {config.model}: cannot be read as an encoder for --retriever "
                         f"{config.retriever} ({fault})") from fault

    # Any other model becomes a sparse one in sentence-transformers, with weights that nobody has trained.
    if is_sparse and not any(isinstance(module, SpladePooling | SparseStaticEmbedding) for module in model.modules()):
        raise ValueError(f"--retriever_model {config.model}: is no SPLADE model, as --retriever splade needs")

    encoder_class = SparseEncoder if is_sparse else DenseEncoder
    return encoder_class(model, config.retriever_batch_size, f"--retriever_model {config.model}")


def _require_finite(values: np.ndarray, flag: str) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{flag}: gives vectors with NaN or infinity in them; are its weights whole?")


def _compressed_rows(vectors: Any) -> Any:
    """Return a sparse tensor of torch as an array of scipy."""
    from scipy.sparse import csr_array

    vectors = vectors.coalesce()
    rows, columns = vectors.indices().numpy()  # each (nonzeros,)
    return csr_array((vectors.values().float().numpy(), (rows, columns)), shape=tuple(vectors.shape))
