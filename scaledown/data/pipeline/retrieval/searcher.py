"""The settings of retrieval, and the interface of all searchers."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from scaledown.config import MINILM
from scaledown.data.pipeline.addresses import QDRANT_KEY, url_faults
from scaledown.settings import positive, require, setting

RETRIEVERS = ("bm25", "splade", "dense", "hybrid", "run")
DEFAULT_DENSE_MODEL = "BAAI/bge-base-en-v1.5"
DEFAULT_RETRIEVER_MODELS = {"splade": "naver/splade-v3", "dense": DEFAULT_DENSE_MODEL, "hybrid": DEFAULT_DENSE_MODEL}
FAISS = ("faiss", "faiss-cpu")
LIBRARIES = {"splade": ("seismic", "pyseismic-lsr"), "dense": FAISS, "hybrid": FAISS}
"""The module that searches in a retriever's vectors on one machine, and its package."""
QDRANT_LIBRARY = ("qdrant_client", "qdrant-client")


@dataclass(frozen=True)
class RetrievalConfig:
    """Settings of retrieval.

    By words (bm25), by trained sparse (splade) or dense vectors, by words and dense vectors together (hybrid), or
    another engine's results (run).
    """

    retriever: str = setting("bm25", "bm25 needs no download; splade and dense encode with a model; hybrid is bm25 "
                                     "and dense; run reads another engine's results", RETRIEVERS)
    retriever_model: str | None = setting(
        None, f"the encoder of splade, dense or hybrid: {MINILM} (dense, from PyPI), a Hub id or a local folder "
              f"[{DEFAULT_RETRIEVER_MODELS['splade']} or {DEFAULT_DENSE_MODEL}]", is_advanced=True)
    retriever_revision: str | None = setting(None, "commit, branch or tag of the encoder on the Hub", is_advanced=True)
    retriever_batch_size: int = setting(64, "texts that the encoder reads in one batch", is_advanced=True)
    run_file: str | None = setting(None, "with --retriever run: a TREC run with the ids of the queries and of "
                                         "this corpus's passages", is_advanced=True)
    index_url: str | None = setting(None, "keep the vectors in this Qdrant server or cluster "
                                          "(http://HOST:6333), or in a folder with its embedded form; a "
                                          f"key is taken from the environment, {QDRANT_KEY}", is_advanced=True)
    faiss_index: str | None = setting(
        None, "a FAISS factory string for dense vectors, such as IVF4096,PQ64 [exact search]", is_advanced=True)
    top_k_retrieval: int = setting(20, "passages retrieved for each query")

    def __post_init__(self) -> None:
        faults = positive(self, "retriever_batch_size", "top_k_retrieval")
        if self.retriever not in RETRIEVERS:
            faults.append(f"--retriever must be one of {', '.join(RETRIEVERS)}, got {self.retriever!r}")

        # A setting of another retriever would have no effect, and is a mistake.
        with_vectors = ("splade", "dense", "hybrid")
        retrievers_of = {"retriever_model": with_vectors, "retriever_revision": with_vectors,
                         "index_url": with_vectors, "faiss_index": ("dense", "hybrid"), "run_file": ("run",)}
        for name, retrievers in retrievers_of.items():
            if getattr(self, name) is not None and self.retriever not in retrievers:
                faults.append(f"--{name} belongs to --retriever {' or '.join(retrievers)}, not {self.retriever}")

        if self.retriever == "run" and self.run_file is None:
            faults.append("--retriever run needs --run_file FILE")
        if self.index_url is not None and self.faiss_index is not None:
            faults.append("--faiss_index and --index_url are two places for the same vectors: give one")
        if self.index_url is not None and "://" in self.index_url:  # without it, a folder
            faults += url_faults("--index_url", self.index_url, "http://localhost:6333", QDRANT_KEY)
        faults += self._missing_library()
        require(faults)

    @property
    def model(self) -> str | None:
        """The encoder by name, or None if the retriever has none."""
        return self.retriever_model or DEFAULT_RETRIEVER_MODELS.get(self.retriever)

    @property
    def parts(self) -> tuple[RetrievalConfig, ...]:
        """The settings of each index that is searched: of hybrid those of bm25 and of dense, else these alone."""
        if self.retriever != "hybrid":
            return (self,)
        # As if each were the only retriever, so that all three share their indexes in a work folder.
        by_words = RetrievalConfig("bm25", top_k_retrieval=self.top_k_retrieval)
        return by_words, dataclasses.replace(self, retriever="dense")

    def _missing_library(self) -> list[str]:
        """Return a fault if the vectors are searched by an optional library that is not installed.

        It is looked for now, since it would be imported only after all passages are encoded.
        """
        if self.index_url is not None:
            flag, (module, package) = "--index_url", QDRANT_LIBRARY
        elif self.retriever in LIBRARIES:
            flag, (module, package) = f"--retriever {self.retriever}", LIBRARIES[self.retriever]
        else:
            return []
        if importlib.util.find_spec(module) is not None:
            return []
        instead = "" if self.index_url is not None else "; or keep the vectors in Qdrant, by --index_url"
        return [f"{flag} needs {package}: pip install {package}{instead}"]


@dataclass(frozen=True)
class Hit:
    """A text that a search returns: its number among the indexed texts, and its score (the higher, the better)."""

    index: int
    score: float


class Searcher(Protocol):
    """An index of texts."""

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """Return the ``top_k`` best texts of each query, best first; fewer if the index has fewer."""
