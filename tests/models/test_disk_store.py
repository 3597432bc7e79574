"""Documents read ahead and kept on a disk: the values of reading them anew, whoever opens the store, whatever left."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import tiny
import torch
from test_document_store import DOCUMENTS, QUESTIONS, build

from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.engine.packing import Packing
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.disk import shards, tensor_folder
from scaledown.models.serving.disk.disk_store import DiskStore
from scaledown.models.serving.disk.memory_store import MemoryStore

TEXTS = list(itertools.chain.from_iterable(DOCUMENTS))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {family: tiny.generator_folder(root / family, family) for family in ("llama", "qwen3")}


@pytest.fixture(scope="module")
def model(folders: dict[str, str]) -> ScaleDownModel:
    return build(folders)


@pytest.mark.parametrize(("number_format", "tolerance"), [("float16", 5e-3), ("int8", 0.1)])
@pytest.mark.parametrize("kind", ["n_layers", "llm"])
def test_a_store_gives_what_reading_anew_gives(folders: dict[str, str], kind: str, number_format: str, tolerance: float,
                                               tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(folders, kind)
    wanted = model.compress(QUESTIONS, DOCUMENTS)
    store = DiskStore(tmp_path, number_format=number_format)
    assert model.read_documents(TEXTS, store) is store and len(store) == 6
    store.close()

    # Another process would find them so, and reads none of them.
    monkeypatch.setattr(CausalCompressor, "read_prefixes", lambda *_: pytest.fail("read again"))
    store = DiskStore(tmp_path)
    assert store.number_format == number_format and len(store) == 6
    for batch_size in (1, 8):
        found = model.compress(QUESTIONS, DOCUMENTS, batch_size, store=store)
        torch.testing.assert_close(found.embeddings, wanted.embeddings, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(found.scores, wanted.scores, rtol=tolerance, atol=tolerance)
    if number_format == "float16":
        assert model.answer(QUESTIONS, memory=found, max_new_tokens=6) == model.answer(QUESTIONS, memory=wanted,
                                                                                       max_new_tokens=6)


def test_documents_that_are_missing_are_read_and_kept(model: ScaleDownModel, tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    model.read_documents(["Oslo", "Oslo"], store)
    assert len(store) == 1
    model.compress(QUESTIONS, DOCUMENTS, store=store)
    assert len(store) == 6
    assert model.compress([], [], store=store).embeddings.shape[0] == 0
    assert len(model.read_documents([], store)) == 6


def test_a_document_takes_two_bytes_a_number(folders: dict[str, str], tmp_path: Path) -> None:
    model, store = build(folders, num_layers=2), DiskStore(tmp_path)
    text = "Ada Lovelace was born in London."
    model.read_documents([text], store)
    num_tokens = len(model.processor.document_keys([text])[0])
    header = store.num_bytes - 2 * 2 * num_tokens * 2 * 8 * 2  # layers, keys and values, tokens, heads, width, bytes
    assert 0 < header < 400


def test_it_serves_the_checkpoint_in_any_number_format(model: ScaleDownModel, folders: dict[str, str], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    store = DiskStore(tmp_path)
    model.read_documents(TEXTS, store)
    monkeypatch.setattr(CausalCompressor, "read_prefixes", lambda *_: pytest.fail("read again"))
    for other in (build(folders).to(torch.bfloat16), build(folders).for_answering()):
        found = other.compress(QUESTIONS, DOCUMENTS, store=store)
        monkeypatch.undo()
        torch.testing.assert_close(found.embeddings, other.compress(QUESTIONS, DOCUMENTS).embeddings, rtol=0.05,
                                   atol=0.05)
        monkeypatch.setattr(CausalCompressor, "read_prefixes", lambda *_: pytest.fail("read again"))


def test_layers_get_stored_keys_in_their_own_number_format() -> None:
    packing = Packing(*[None] * 5, stored=[(torch.ones(1, 1, 2, 4).half(), torch.ones(1, 1, 2, 4).half())])
    key, value = packing.stored_of(0, torch.ones(1), torch.ones(1, dtype=torch.bfloat16))
    assert key.dtype == torch.float32 and value.dtype == torch.bfloat16


def test_documents_that_had_to_leave_are_read_again(model: ScaleDownModel, tmp_path: Path) -> None:
    wanted = model.compress(QUESTIONS, DOCUMENTS)
    # Room for about three of the short documents, not for the long one.
    whole = DiskStore(tmp_path / "whole")
    model.read_documents(TEXTS, whole)
    store = DiskStore(tmp_path / "small", max_bytes=whole.num_bytes - 100)
    found = model.compress(QUESTIONS, DOCUMENTS, store=store)
    assert len(store) < 6 and store.num_bytes < whole.num_bytes
    torch.testing.assert_close(found.embeddings, wanted.embeddings, rtol=5e-3, atol=5e-3)


def test_large_calls_are_written_shard_by_shard(model: ScaleDownModel, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_folder, "SHARD_BYTES", 2000)
    store = DiskStore(tmp_path)
    model.read_documents([f"Document {number}" for number in range(20)], store)
    assert len(store) == 20 and len(list(tmp_path.glob("shard-*"))) > 3


def test_another_checkpoint_is_refused(model: ScaleDownModel, folders: dict[str, str], tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    model.read_documents(["Oslo"], store)
    for other in (build(folders, "llm"), build(folders, num_layers=2)):
        with pytest.raises(ValueError, match="read by another checkpoint.*give another folder"):
            other.compress(QUESTIONS, DOCUMENTS, store=store)
    trained = build(folders)
    assert len(trained.read_documents(["Oslo"], store)) == 1, "the same model, loaded again"
    with torch.no_grad():
        trained.compressor.memory_rows.add_(1.0)
    with pytest.raises(ValueError, match="before it was trained further"):
        trained.read_documents(["Oslo"], store)
    with pytest.raises(ValueError, match="--input_order document_first"):
        build(folders, input_order="query_first").read_documents(["Oslo"], store)


def test_who_is_refused_removes_no_documents_and_sets_no_limit(model: ScaleDownModel, folders: dict[str, str],
                                                               tmp_path: Path) -> None:
    store = DiskStore(tmp_path, max_bytes=10**6)
    for number in range(6):
        model.read_documents([f"Document {number}"], store)
    num_bytes = store.num_bytes

    for refused in (lambda: MemoryStore(tmp_path, max_bytes=1000),
                    lambda: DiskStore(tmp_path, max_bytes=1000, number_format="int8"),
                    lambda: DiskStore(tmp_path, max_bytes=0),
                    lambda: build(folders, "llm").read_documents(["Oslo"], DiskStore(tmp_path, max_bytes=1000)),
                    lambda: build(folders, "llm").compress(QUESTIONS, DOCUMENTS,
                                                           store=DiskStore(tmp_path, max_bytes=1000))):
        with pytest.raises(ValueError, match="not memory|not int8|above 0|another checkpoint"):
            refused()
        assert (len(store), store.num_bytes) == (6, num_bytes)
        assert store._index.setting("max_bytes") == 10**6

    # The store's own model may set one, and later ones stay as others set them.
    small = DiskStore(tmp_path, max_bytes=num_bytes - 1)
    model.read_documents([], small)
    assert len(small) < 6 and small.num_bytes < num_bytes
    store._tensors.limit(10**7)
    model.read_documents([], small)
    assert store._index.setting("max_bytes") == 10**7


def test_mistakes_are_told(model: ScaleDownModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="number_format must be one of float16, int8, got 'int4'"):
        DiskStore(tmp_path, number_format="int4")
    store = DiskStore(tmp_path / "store", number_format="int8")
    with pytest.raises(ValueError, match="holds int8 numbers, not float16"):
        DiskStore(tmp_path / "store", number_format="float16")
    model.read_documents(["Oslo"], store)
    store.close()

    path = shards.path_of(tmp_path / "store", 1)
    path.write_bytes(path.read_bytes()[:-3])
    store = DiskStore(tmp_path / "store")
    with pytest.raises(ValueError, match="damaged .*delete this file"):
        model.compress("where?", ["Oslo"], store=store)
    path.unlink()
    found = model.compress("where?", ["Oslo"], store=store)
    assert found.embeddings.shape[1] == 1


def test_a_damaged_shard_that_is_deleted_is_read_again(model: ScaleDownModel, tmp_path: Path) -> None:
    model.read_documents(["Oslo", "Paris"], DiskStore(tmp_path))
    shards.path_of(tmp_path, 1).unlink()
    store = DiskStore(tmp_path)
    model.compress("where?", ["Oslo", "Paris"], store=store)
    model.compress("where?", ["Oslo", "Paris"], store=store)
    assert len(store) == 2 and shards.path_of(tmp_path, 2).exists()
