"""The indexes that a retriever searches: building and opening them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scaledown.data.pipeline.corpus.passage_store import PassageStore
from scaledown.data.pipeline.retrieval import vector_search
from scaledown.data.pipeline.retrieval.bm25 import BM25
from scaledown.data.pipeline.retrieval.fusion import HybridSearch
from scaledown.data.pipeline.retrieval.qdrant import Qdrant, QdrantSearch, is_server
from scaledown.data.pipeline.retrieval.searcher import RetrievalConfig, Searcher
from scaledown.data.pipeline.retrieval.vectors import Encoder, VectorFiles, encode_passages, load_encoder
from scaledown.files import WHAT_TO_DO, disk_faults
from scaledown.processes import Processes
from scaledown.progress import Bar

COLLECTION = "scaledown-{}"


def build(config: RetrievalConfig, store: PassageStore, folder: Path, processes: Processes) -> None:
    """Build what is missing of the index in ``folder``: processes share the encoding, and one does the rest.

    Of a hybrid retriever each part is built by itself (see ``RetrievalConfig.parts``).

    Raises:
        ValueError: if the encoder cannot be loaded, or the index cannot be stored.
    """
    if config.retriever == "bm25":
        if processes.is_main:
            texts = Bar(store.documents(), total=len(store), desc="reading words", unit=" passages", unit_scale=True)
            index = BM25(texts, show_progress=True)
            with disk_faults(folder, WHAT_TO_DO):
                index.save(folder)
        return

    # Qdrant indexes the vectors as they come.
    encoder = load_encoder(config)
    if config.index_url is not None:
        _upload(config, encoder, store, folder, processes)
        return

    files = VectorFiles(folder, config.retriever == "splade")
    encode_passages(store, encoder, files, processes)
    processes.wait()  # an index needs the vectors of all
    if not processes.is_main:
        return

    # Exact search in dense vectors needs no index: it reads the files.
    if config.retriever == "splade":
        vector_search.build_seismic(files, len(store), folder)
    elif config.faiss_index is not None:
        vector_search.build_faiss(config.faiss_index, encoder.width, files, folder)


def open_searcher(config: RetrievalConfig, folders: Sequence[Path]) -> Searcher:
    """Open the indexes that :func:`build` left in ``folders``, one for each part of the retriever.

    Raises:
        ValueError: if the encoder cannot be loaded, or Qdrant cannot be reached.
    """
    searchers = [_open_part(part, folder) for part, folder in zip(config.parts, folders, strict=True)]
    return HybridSearch(*searchers) if config.retriever == "hybrid" else searchers[0]


def _open_part(config: RetrievalConfig, folder: Path) -> Searcher:
    """Open one index.

    Raises:
        ValueError: if the encoder cannot be loaded, or Qdrant cannot be reached.
    """
    if config.retriever == "bm25":
        return BM25.load(folder)

    # Vectors need the model that made them, for the queries.
    encoder = load_encoder(config)
    if config.index_url is not None:
        return QdrantSearch(encoder, Qdrant(config.index_url, COLLECTION.format(folder.name), folder))
    if config.retriever == "splade":
        return vector_search.SeismicSearch(encoder, folder)
    if config.faiss_index is not None:
        return vector_search.FaissSearch(encoder, folder)
    return vector_search.ExactSearch(encoder, VectorFiles(folder, is_sparse=False))


def _upload(config: RetrievalConfig, encoder: Encoder, store: PassageStore, folder: Path,
            processes: Processes) -> None:
    """Encode the passages into Qdrant.

    Raises:
        ValueError: if several processes would share a folder, or Qdrant cannot be reached.
    """
    if processes.count > 1 and not is_server(config.index_url):
        raise ValueError(f"--index_url {config.index_url}: the embedded form of Qdrant is for one process; start a "
                         "server for several")

    # The collection must be there before any process adds to it.
    qdrant = Qdrant(config.index_url, COLLECTION.format(folder.name), folder)
    if processes.is_main:
        qdrant.create(encoder, config.retriever == "splade")
    processes.wait()

    encode_passages(store, encoder, qdrant, processes)
    qdrant.close()
