"""Dense and sparse vectors: every place that they can be kept in finds what comparing all of them finds."""

from __future__ import annotations

import itertools
import sys
import zlib
from collections import Counter

import numpy as np
import pytest
import tiny_encoders
from scipy.sparse import csr_array

from scaledown.data.pipeline.corpus import corpus_files, cutting, passage_store
from scaledown.data.pipeline.corpus.cutting import Page
from scaledown.data.pipeline.corpus.passage_store import PassageStore
from scaledown.data.pipeline.retrieval import Hit, RetrievalConfig, indexing, vector_search, vectors
from scaledown.data.pipeline.retrieval.fusion import HybridSearch, reciprocal_rank_fusion
from scaledown.data.pipeline.retrieval.qdrant import Qdrant
from scaledown.data.pipeline.retrieval.vectors import load_encoder
from scaledown.data.world.synthetic import synthetic_records
from scaledown.processes import Processes

QUERIES = ["Who wrote The Silent Map?", "a river of cheese", "Which firm did Ada work for?", "1815", "lute"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    texts = itertools.chain.from_iterable(record.documents for record in synthetic_records(8, seed=5))
    pages = [Page(str(number), "", text) for number, text in enumerate(texts)]
    folder = tmp_path_factory.mktemp("passages")
    cutter = cutting.token_cutter(lambda texts: [len(text.split()) for text in texts], 128)
    passage_store.write_passages(corpus_files.of_pages("world", pages, "f"), cutter, folder, Processes())
    return PassageStore(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {"dense": tiny_encoders.dense(tmp_path_factory.mktemp("dense")),
            "splade": tiny_encoders.splade(tmp_path_factory.mktemp("splade"))}


def products(config, store):
    """The scores (queries, passages) of all with all."""
    encoder = load_encoder(config)
    queries, documents = encoder.queries(QUERIES), encoder.documents(list(store.documents()))
    scores = queries @ documents.T
    return scores if isinstance(scores, np.ndarray) else scores.toarray()


@pytest.mark.parametrize(("retriever", "kept_in"), [
    ("dense", {}), ("dense", {"faiss_index": "Flat"}), ("dense", {"index_url": "qdrant"}),
    ("splade", {"index_url": "qdrant"})], ids=str)
def test_the_best_passages_are_found(store, models, tmp_path, monkeypatch, retriever, kept_in):
    monkeypatch.setattr(vectors, "PASSAGES_A_FILE", 16)
    kept_in = {name: str(tmp_path / value) if name == "index_url" else value for name, value in kept_in.items()}
    config = RetrievalConfig(retriever, models[retriever], **kept_in)
    for _ in range(2):
        indexing.build(config, store, tmp_path / "index", Processes())
    searcher = indexing.open_searcher(config, [tmp_path / "index"])
    for row, hits in zip(products(config, store), searcher.search(QUERIES, 7), strict=True):
        scores = [hit.score for hit in hits]
        assert scores == pytest.approx(sorted(row, reverse=True)[:7], rel=2e-3)
        assert [row[hit.index] for hit in hits] == pytest.approx(scores, rel=2e-3)
    assert [len(hits) for hits in searcher.search(QUERIES[:2], 10 ** 3)] == [len(store)] * 2


class WordCounts:
    """An encoder of which each word is a dimension."""

    width = 5_000

    def queries(self, texts):
        """How often each word is in each text."""
        rows, columns, values = [], [], []
        for row, text in enumerate(texts):
            for word, count in Counter(text.lower().split()).items():
                rows.append(row)
                columns.append(zlib.crc32(word.encode()) % self.width)
                values.append(float(count))
        return csr_array((np.array(values, np.float32), (rows, columns)), shape=(len(texts), self.width))

    documents = queries


def test_seismic_finds_the_best(store, tmp_path, monkeypatch):
    pytest.importorskip("seismic")
    monkeypatch.setattr(vectors, "PASSAGES_A_FILE", 16)
    files = vectors.VectorFiles(tmp_path, is_sparse=True)
    vectors.encode_passages(store, WordCounts(), files, Processes())
    vector_search.build_seismic(files, len(store), tmp_path)
    queries = [store.document(number) for number in range(len(store))]
    scores = (WordCounts().queries(queries) @ WordCounts().documents(queries).T).toarray()
    found = vector_search.SeismicSearch(WordCounts(), tmp_path).search(queries, 3)
    assert [hits[0].index for hits in found] == list(np.argmax(scores, axis=1))
    for row, hits in zip(scores, found, strict=True):
        assert [row[hit.index] for hit in hits] == pytest.approx([hit.score for hit in hits], rel=1e-2)


def test_what_is_encoded_is_not_encoded_again(store, models, tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "PASSAGES_A_FILE", 16)
    config = RetrievalConfig("dense", models["dense"])
    files = vectors.VectorFiles(tmp_path, is_sparse=False)
    vectors.encode_passages(store, load_encoder(config), files, Processes(0, 2))
    first = sorted(path.name for path in tmp_path.iterdir())
    assert first == ["vectors-0000000000.npy", "vectors-0000000032.npy"]
    kept = (tmp_path / first[0]).stat().st_mtime_ns
    indexing.build(config, store, tmp_path, Processes())
    assert (tmp_path / first[0]).stat().st_mtime_ns == kept
    assert len(list(tmp_path.iterdir())) == 3


def test_a_collection_that_is_gone_is_filled_again(store, models, tmp_path):
    config = RetrievalConfig("dense", models["dense"], index_url=str(tmp_path / "qdrant"))
    indexing.build(config, store, tmp_path / "index", Processes())
    qdrant = Qdrant(config.index_url, "scaledown-index", tmp_path / "index")
    qdrant._client.delete_collection("scaledown-index")
    qdrant.close()
    indexing.build(config, store, tmp_path / "index", Processes())
    assert len(indexing.open_searcher(config, [tmp_path / "index"]).search(["x"], 5)[0]) == 5


def test_what_cannot_work_is_told(store, models, tmp_path):
    for config, message in [
            (RetrievalConfig("dense", models["dense"], faiss_index="Nonsense7"), "--faiss_index Nonsense7"),
            (RetrievalConfig("dense", models["dense"], faiss_index="IVF4096,Flat"), "--faiss_index IVF4096"),
            (RetrievalConfig("dense", models["dense"], index_url="http://localhost:9"), "cannot be reached"),
            (RetrievalConfig("splade", models["dense"], index_url="unused"), "is no SPLADE model"),
            (RetrievalConfig("dense", str(tmp_path / "none")), "no such folder")]:
        with pytest.raises(ValueError, match=message):
            indexing.build(config, store, tmp_path / "index", Processes())
    config = RetrievalConfig("dense", models["dense"], index_url=str(tmp_path / "qdrant"))
    with pytest.raises(ValueError, match="for one process"):
        indexing.build(config, store, tmp_path / "index", Processes(0, 2))


def test_fused_ranks_by_hand():
    by_words, by_vectors = [Hit(4, 9.0), Hit(1, 8.0), Hit(7, 1.0)], [Hit(1, 0.9), Hit(4, 0.8), Hit(3, -0.1)]
    # 1 and 4 are first and second of one each: of equal scores the text that was indexed first comes first.
    both, third = 1 / 61 + 1 / 62, 1 / 63
    assert reciprocal_rank_fusion([by_words, by_vectors], 9) == [Hit(1, both), Hit(4, both), Hit(3, third),
                                                                 Hit(7, third)]
    assert [hit.index for hit in reciprocal_rank_fusion([by_words, by_vectors], 3)] == [1, 4, 3]
    assert reciprocal_rank_fusion([[], []], 3) == []


class Ranking:
    """A searcher of one ranking for all queries."""

    def __init__(self, hits):
        self.hits = hits

    def search(self, queries, top_k):
        """As asked."""
        return [self.hits[:top_k] for _ in queries]


def test_hybrid_fuses_more_than_it_returns_and_no_passage_without_a_shared_word():
    # Text 50 is nowhere near the first, but the only one that both searches find.
    by_words = [*(Hit(number, 100.0 - number) for number in range(51)), Hit(99, 0.0)]
    by_vectors = [*(Hit(200 + number, 0.9) for number in range(40)), Hit(50, 0.1), Hit(99, -0.2)]
    first, second = HybridSearch(Ranking(by_words), Ranking(by_vectors)).search(["q", "r"], 3)
    assert first == second and [hit.index for hit in first] == [50, 0, 200]
    hits, = HybridSearch(Ranking(by_words), Ranking(by_vectors)).search(["q"], 500)
    assert [hit.score for hit in hits if hit.index == 99] == [1 / 102], "found by its vector alone"


def test_hybrid_is_made_of_bm25_and_dense():
    config = RetrievalConfig("hybrid", "model", faiss_index="Flat", top_k_retrieval=7)
    assert config.parts == (RetrievalConfig("bm25", top_k_retrieval=7),
                            RetrievalConfig("dense", "model", faiss_index="Flat", top_k_retrieval=7))
    assert config.model == "model" and RetrievalConfig("hybrid").model == RetrievalConfig("dense").model
    assert RetrievalConfig().parts == (RetrievalConfig(),)


@pytest.mark.parametrize(("settings", "message"), [
    ({"retriever": "run"}, "needs --run_file"), ({"run_file": "x"}, "--run_file belongs to --retriever run"),
    ({"retriever_model": "x"}, "--retriever_model belongs"), ({"retriever": "x"}, "--retriever must be one of"),
    ({"top_k_retrieval": 0}, "--top_k_retrieval must be above 0"), ({"index_url": "x"}, "--index_url belongs"),
    ({"retriever": "dense", "index_url": "x", "faiss_index": "Flat"}, "give one")])
def test_settings_that_contradict(settings, message):
    with pytest.raises(ValueError, match=message):
        RetrievalConfig(**settings)


@pytest.mark.parametrize(("module", "settings", "said"), [
    ("faiss", {"retriever": "dense"}, "--retriever dense needs faiss-cpu: pip install faiss-cpu"),
    ("faiss", {"retriever": "hybrid"}, "--retriever hybrid needs faiss-cpu: pip install faiss-cpu"),
    ("seismic", {"retriever": "splade"}, "--retriever splade needs pyseismic-lsr: pip install pyseismic-lsr"),
    ("qdrant_client", {"retriever": "splade", "index_url": "folder"}, "--index_url needs qdrant-client: pip install")])
def test_an_optional_library_that_is_missing_is_told_before_anything_is_encoded(monkeypatch, module, settings, said):
    # None: as if it were not installed.
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=said):
        RetrievalConfig(**settings)
    assert RetrievalConfig()
