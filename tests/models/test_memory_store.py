"""Memory without a query on a disk: the numbers of compressing anew, rounded once, whoever opens the store."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny
import torch
from test_without_query import DOCUMENTS, LISTS, QUESTIONS, made

from scaledown.config import COMPRESSOR_TYPES
from scaledown.models.compressors.base import Compressor
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.cache import MemoryCache
from scaledown.models.serving.disk import store_index
from scaledown.models.serving.disk.disk_store import DiskStore
from scaledown.models.serving.disk.memory_store import MemoryStore


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ScaleDownModel:
    return made(tmp_path_factory.mktemp("model"), train_memory_tokens=(1, 2))


def stop_compressing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any further compression fail."""
    monkeypatch.setattr(Compressor, "forward", lambda *_: pytest.fail("compressed again"))


@pytest.mark.parametrize("kind", COMPRESSOR_TYPES)
def test_what_comes_back_is_what_was_compressed_as_float16(kind: str, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(tmp_path, kind)
    fresh = model.compress(None, DOCUMENTS)
    wanted = fresh.embeddings.half().float()
    store = MemoryStore(tmp_path / "store")
    assert model.compress(None, DOCUMENTS, store=store).embeddings.equal(wanted), "as it will be read later"
    store.close()

    stop_compressing(monkeypatch)
    store = MemoryStore(tmp_path / "store")
    assert len(store) == 3
    found = model.compress(None, DOCUMENTS, store=store)
    assert found.embeddings.equal(wanted) and found.scores is None and found.origin == fresh.origin
    lists = model.compress(None, [DOCUMENTS[::-1], [], DOCUMENTS[:1]], store=store)
    assert lists.pairs().equal(wanted[0, [2, 1, 0, 0]]) and lists.num_documents.tolist() == [3, 0, 1]
    assert model.answer(QUESTIONS, memory=found, max_new_tokens=4) == model.answer(
        QUESTIONS, memory=fresh.to(dtype=torch.float16).to(dtype=torch.float32), max_new_tokens=4)


def test_it_is_filled_ahead_and_a_document_is_compressed_once(model: ScaleDownModel, tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    assert model.read_documents([*DOCUMENTS[:2], *DOCUMENTS[:2]], store) is store and len(store) == 2
    model.compress(None, LISTS, store=store)
    assert len(store) == 3
    for nothing in ([], [[], []]):
        assert model.compress(None, nothing, store=store).embeddings.shape[1:] == (0, 2, tiny.WIDTH)
    assert len(store) == 3


def test_a_cache_beside_it_holds_nothing(model: ScaleDownModel, tmp_path: Path) -> None:
    cache, store = MemoryCache(), MemoryStore(tmp_path)
    wanted = model.compress(None, DOCUMENTS, store=store)
    assert model.compress(None, DOCUMENTS, store=store, cache=cache).embeddings.equal(wanted.embeddings)
    # Memory from a store has no scores: beside pairs with scores, a cache could not use it.
    assert model.compress("", DOCUMENTS[::-1], cache=cache).scores.shape == (1, len(DOCUMENTS))


def test_a_filled_store_does_not_wait_for_who_writes(model: ScaleDownModel, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    model.compress(None, DOCUMENTS, store=MemoryStore(tmp_path))
    monkeypatch.setattr(store_index, "PATIENCE_SECONDS", 0.05)
    store = MemoryStore(tmp_path)
    with MemoryStore(tmp_path)._index.writing():
        # A wait would end with a message that another process has been writing.
        assert model.compress(None, DOCUMENTS, store=store).num_documents.tolist() == [3]


def test_it_is_filled_with_the_number_of_memory_tokens_that_it_holds(model: ScaleDownModel, tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    model.compress(None, DOCUMENTS[:1], num_memory_tokens=1, store=store)
    assert len(model.read_documents(DOCUMENTS, store)) == 3
    assert model.compress(None, DOCUMENTS, num_memory_tokens=1, store=store).embeddings.shape[2] == 1
    with pytest.raises(ValueError, match="were read by another checkpoint"):
        made(tmp_path / "other").read_documents(["Oslo"], store)


def test_a_document_takes_two_bytes_a_number(model: ScaleDownModel, tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    model.compress(None, DOCUMENTS, store=store)
    assert 0 < store.num_bytes - 3 * 2 * tiny.WIDTH * 2 < 3 * 400, "documents, memory tokens, width, bytes; a header"


def test_documents_that_had_to_leave_are_compressed_again(model: ScaleDownModel, tmp_path: Path) -> None:
    documents = [f"Town {number} lies on a river." for number in range(40)]
    wanted = model.compress(None, documents).embeddings.half().float()
    store = MemoryStore(tmp_path, max_bytes=6000)
    assert model.compress(None, documents, store=store).embeddings.equal(wanted)
    assert len(store) < 40


def test_it_stands_beside_memory_of_the_question(model: ScaleDownModel, tmp_path: Path) -> None:
    kept = model.compress(None, DOCUMENTS, store=MemoryStore(tmp_path))
    joined = type(kept).joined([model.compress(QUESTIONS, LISTS), kept])
    assert joined.num_documents.tolist() == [5, 4] and len(model.answer(QUESTIONS, memory=joined)) == 2


def test_what_does_not_fit_is_refused(model: ScaleDownModel, tmp_path: Path) -> None:
    store = MemoryStore(tmp_path / "store")
    model.compress(None, DOCUMENTS, store=store)
    for call, message in (
            (lambda: model.compress(QUESTIONS, LISTS, store=store), "holds memory without a query"),
            (lambda: model.compress(None, DOCUMENTS, num_memory_tokens=1, store=store),
             "holds memory of 2 tokens a document, not 1; give num_memory_tokens=2"),
            (lambda: made(tmp_path / "other", lora_rank=2).compress(None, DOCUMENTS, store=store),
             "were read by another checkpoint"),
            (lambda: DiskStore(tmp_path / "store"), "holds memory of documents, not keys and values"),
            (lambda: made(tmp_path / "text", compressor_type="none", compressor_model=None, input_order="query_first",
                          enable_reranking=False, mlp_width=8096).read_documents(["Oslo"], store), "reads text")):
        with pytest.raises(ValueError, match=message):
            call()
    DiskStore(tmp_path / "keys").close()
    with pytest.raises(ValueError, match="holds keys and values of documents, not memory"):
        MemoryStore(tmp_path / "keys")


def test_another_number_of_memory_tokens_removes_no_documents(model: ScaleDownModel, tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    for document in DOCUMENTS:
        model.compress(None, [document], store=store)
    with pytest.raises(ValueError, match="holds memory of 2 tokens"):
        model.compress(None, DOCUMENTS, num_memory_tokens=1, store=MemoryStore(tmp_path, max_bytes=1000))
    assert len(store) == 3 and store._index.setting("max_bytes") is None


def test_a_folder_of_keys_and_values_from_before_memory_stays_one(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    store._index._rows("DELETE FROM settings WHERE name = 'contents'")
    store.close()
    DiskStore(tmp_path).close()
    with pytest.raises(ValueError, match="holds keys and values of documents, not memory"):
        MemoryStore(tmp_path)


def test_numbers_beyond_float16_are_told(model: ScaleDownModel, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(model.compressor).forward

    def larger(self: Compressor, *arguments: object) -> object:
        compressed = real(self, *arguments)
        return compressed._replace(embeddings=compressed.embeddings * 1e6)

    monkeypatch.setattr(type(model.compressor), "forward", larger)
    with pytest.raises(ValueError, match="beyond float16"):
        model.compress(None, DOCUMENTS, store=MemoryStore(tmp_path))


def test_a_further_trained_model_is_refused(model: ScaleDownModel, tmp_path: Path) -> None:
    store = MemoryStore(tmp_path)
    model.compress(None, DOCUMENTS, store=store)
    own = model.config
    model.config = dataclasses.replace(own, query_tokens=7)
    with pytest.raises(ValueError, match="before it was trained further"):
        model.compress(None, DOCUMENTS, store=store)
    model.config = own
