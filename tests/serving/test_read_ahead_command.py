"""The command that reads documents ahead into a store: what it reads, what it skips, and its messages."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from scaledown import ScaleDownModel
from scaledown.config import ScaleDownConfig
from scaledown.data.records import Record, write_records
from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.serving.disk import tensor_folder
from scaledown.models.serving.disk.disk_store import DiskStore
from scaledown.models.serving.disk.memory_store import MemoryStore
from scaledown.serving import read_ahead
from scaledown.serving.corpus_documents import open_documents

ROOT = Path(__file__).resolve().parents[2]
PAGES = [{"id": str(number), "title": f"Town {number}", "text": f"It  lies on river {number}."} for number in range(9)]
LONG = {"id": "long", "title": "Oslo", "text": " ".join(f"Street {number} is long." for number in range(20))}
ARTICLE = {"_id": "1", "wikipedia_title": "Kel", "text": ["Kel\n", "Kel is a town.\n", "Section::::History.\n",
                                                        "BULLET::::- Founded in 900.\n"]}
DOCUMENT_TOKENS = 32
KILLED = """
import os, signal, sys
from scaledown.models.serving.disk import shards, tensor_folder
from scaledown.serving import read_ahead

tensor_folder.SHARD_BYTES = 50_000
real, calls = shards.write, []

def write(*arguments):
    calls.append(1)
    size = real(*arguments)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return size

shards.write = write
read_ahead.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    generator = tiny.generator_folder(folder / "generator")
    config = ScaleDownConfig(generator_model=generator, num_layers=2, num_memory_tokens=2, input_order="document_first")
    ScaleDownModel(config).save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def command(checkpoint: Path, corpus: Path, *flags: str) -> list[str]:
    return ["--checkpoint", str(checkpoint), "--corpus", str(corpus), "--store", str(corpus.parent / "store"),
            "--device", "cpu", *flags]


def documents_of(path: Path) -> list[Any]:
    """The documents of a file, for a model that counts words."""
    def count_words(texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    found = []
    for some, _ in open_documents(str(path), "--corpus").batches(count_words, DOCUMENT_TOKENS):
        found += some
    return found


def test_texts_stay_as_they_are_and_articles_become_passages(tmp_path: Path) -> None:
    texts = [*PAGES[:1], LONG]
    wanted = [{"title": page["title"], "text": page["text"]} for page in texts]
    assert documents_of(lines(tmp_path / "texts.jsonl", texts)) == wanted
    assert documents_of(lines(tmp_path / "kilt.jsonl", [ARTICLE])) == ["Kel. Kel is a town. Founded in 900."]
    assert not documents_of(lines(tmp_path / "blank.jsonl", [{"id": "1", "title": "Oslo", "text": " "}]))

    article = {**ARTICLE, "text": [ARTICLE["text"][0], *[f"Street {number} is long." for number in range(60)]]}
    passages = documents_of(lines(tmp_path / "long.jsonl", [article]))
    assert len(passages) > 2 and all(text.startswith("Kel. ") for text in passages)
    assert max(len(text.split()) for text in passages) <= DOCUMENT_TOKENS


def test_records_give_their_documents(tmp_path: Path) -> None:
    records = [Record("1", "q", ("Ada.", "Bob."), "a"), Record("2", "q", ("Ada.",), "a")]
    for name in ("records.json", "records.jsonl"):
        write_records(tmp_path / name, records)
        assert documents_of(tmp_path / name) == ["Ada.", "Bob.", "Ada."]


def test_it_reads_each_document_once_and_a_service_finds_it(checkpoint: Path, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture[str],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = lines(tmp_path / "corpus.jsonl", [*PAGES[:6], PAGES[0], LONG])
    assert read_ahead.main(command(checkpoint, corpus)) == 0
    first = capsys.readouterr().out
    assert "; 1 were in the store before, or come twice" in first and f"store: {tmp_path / 'store'} (" in first

    # A service passes the same titles and texts.
    model, store = ScaleDownModel.from_pretrained(checkpoint, device="cpu"), DiskStore(tmp_path / "store")
    num_documents = len(store)
    wanted = model.compress("Where?", PAGES[:6])
    with monkeypatch.context() as patch:
        patch.setattr(CausalCompressor, "read_prefixes", lambda *_: pytest.fail("read again"))
        found = model.compress("Where?", PAGES[:6], store=store)
    assert (found.embeddings - wanted.embeddings).abs().max() < 5e-3

    lines(corpus, [*PAGES, LONG])
    assert read_ahead.main(command(checkpoint, corpus)) == 0
    assert "read 3 documents" in capsys.readouterr().out and len(store) == num_documents + 3


def test_a_service_finds_the_passages_of_a_long_text_with_paragraphs(checkpoint: Path, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    paragraphs, first = [], 0
    for length in range(5, 17):
        paragraphs.append(" ".join(f"Street {number} is long." for number in range(first, first + length)))
        first += length
    text = {"id": "1", "title": " Two  words ", "text": "\n\n".join(paragraphs)}
    assert read_ahead.main(command(checkpoint, lines(tmp_path / "corpus.jsonl", [text]))) == 0

    model, store = ScaleDownModel.from_pretrained(checkpoint, device="cpu"), DiskStore(tmp_path / "store")
    monkeypatch.setattr(CausalCompressor, "read_prefixes", lambda *_: pytest.fail("read again"))
    assert model.compress("Where?", [text], store=store).num_documents == len(store) > 3


def test_long_documents_of_records_are_found_as_passages(checkpoint: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    model = ScaleDownModel.from_pretrained(checkpoint, device="cpu")
    long = " ".join(f"Street {number} is long." for number in range(150))
    records = [Record("1", "q", ("Ada.", long), "a"), Record("2", "q", ("Ada.",), "a")]
    write_records(tmp_path / "records.json", records)
    assert read_ahead.main(command(checkpoint, tmp_path / "records.json")) == 0
    store = DiskStore(tmp_path / "store")
    assert len(store) > 3, "passages"
    monkeypatch.setattr(CausalCompressor, "read_prefixes", lambda *_: pytest.fail("read again"))
    model.compress("Where?", records[0].documents, store=store)


def test_memory_is_stored_for_any_order_and_a_service_compresses_nothing(checkpoint: Path, tmp_path: Path,
                                                                         capsys: pytest.CaptureFixture[str],
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = lines(tmp_path / "corpus.jsonl", PAGES)
    query_first = tmp_path / "query_first"
    config = dataclasses.replace(ScaleDownConfig.load(checkpoint), input_order="query_first",
                                 generator_model=str(checkpoint.parent / "generator"))
    ScaleDownModel(config).save_pretrained(query_first)
    for number, folder in enumerate((checkpoint, query_first)):
        place = tmp_path / f"store-{number}"
        argv = command(folder, corpus, "--store", str(place), "--memory")
        assert read_ahead.main(argv) == 0
        assert "read 9 documents; 0 were" in capsys.readouterr().out
        assert read_ahead.main(argv) == 0
        assert "read 0 documents; 9 were" in capsys.readouterr().out

        model, store = ScaleDownModel.from_pretrained(folder, device="cpu"), MemoryStore(place)
        wanted = model.compress(None, PAGES).embeddings.half().float()
        with monkeypatch.context() as patch:
            patch.setattr(CausalCompressor, "forward", lambda *_: pytest.fail("compressed again"))
            found = model.compress(None, PAGES, store=store)
        # Compressed in other batches, so up to rounding.
        torch.testing.assert_close(found.embeddings, wanted, rtol=2e-3, atol=1e-4)


def test_what_was_claimed_by_one_that_was_killed_is_read_in_the_end(checkpoint: Path, tmp_path: Path,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    corpus = lines(tmp_path / "corpus.jsonl", PAGES)
    model, store = ScaleDownModel.from_pretrained(checkpoint, device="cpu"), DiskStore(tmp_path / "store")
    keys = model.processor.document_keys(["Town 1. It  lies on river 1.", "Town 2. It  lies on river 2."])
    assert store.claim(keys) == keys
    assert read_ahead.main(command(checkpoint, corpus)) == 0
    assert "read 9 documents; 0 were" in capsys.readouterr().out and len(store) == 9


def test_killed_and_started_again_it_ends_with_all_documents(checkpoint: Path, tmp_path: Path) -> None:
    pages = [{"id": str(number), "text": f"Town {number} lies on a river."} for number in range(300)]
    corpus = lines(tmp_path / "corpus.jsonl", pages)
    # Killed when the third shard is there under its name, but not in the index.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", KILLED, *command(checkpoint, corpus)], cwd=ROOT, env=environment,
                           capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    store = DiskStore(tmp_path / "store")
    assert 0 < len(store) < 300
    assert read_ahead.main(command(checkpoint, corpus)) == 0
    assert len(store) == 300
    model = ScaleDownModel.from_pretrained(checkpoint, device="cpu")
    texts = [page["text"] for page in pages[:30]]
    found, wanted = model.compress("?", texts, store=store), model.compress("?", texts)
    assert (found.embeddings - wanted.embeddings).abs().max() < 5e-3


def test_a_store_that_is_too_small_for_the_corpus_is_told(checkpoint: Path, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str],
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "GIBIBYTE", 2**20)
    monkeypatch.setattr(tensor_folder, "MOST_SMALL", 10_000)
    pages = [{"id": str(number), "text": f"Town {number} lies on a river."} for number in range(1000)]
    assert read_ahead.main(command(checkpoint, lines(tmp_path / "corpus.jsonl", pages), "--max_gib", "0.5")) == 2
    err = capsys.readouterr().err
    assert "full; it holds" in err and "--number_format int8" in err and "Traceback" not in err


def test_lines_that_are_no_documents_are_told_with_their_numbers(checkpoint: Path, tmp_path: Path,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    corpus = lines(tmp_path / "corpus.jsonl", PAGES[:2])
    corpus.write_text(corpus.read_text() + '{"id": "3", "text": 5}\n{"id": \n', encoding="utf-8")
    assert read_ahead.main(command(checkpoint, corpus)) == 0
    told = capsys.readouterr()
    assert "read 2 documents" in told.out
    for words in ("2 lines were not read", "line 3: its text is 5", "line 4: not valid"):
        assert words in told.err


@pytest.mark.parametrize(("flags", "words"), [
    (["--corpus", "nowhere.jsonl"], "--corpus nowhere.jsonl: no such file"),
    (["--corpus", "EMPTY"], "not one document in it"),
    (["--corpus", "IMAGE"], "--corpus"),
    (["--store", "IMAGE"], "is a file; a store of documents is a folder"),
    (["--store", "OTHER"], "is no store of documents"),
    (["--number_format", "int8", "--store", "HALF"], "holds float16 numbers, not int8"),
    (["--store", "FOREIGN"], "were read by another checkpoint"),
    (["--batch_size", "0"], "--batch_size"),
    (["--max_gib", "1e-12"], "--max_gib 1e-12: less than a byte"),
    (["--checkpoint", "embedded"], "train one with --input_order document_first"),
    (["--memory", "--number_format", "int8"], "--number_format int8 is for keys and values"),
    (["--memory", "--store", "HALF"], "holds keys and values of documents, not memory"),
])
def test_mistakes_are_told(checkpoint: Path, tmp_path: Path, flags: list[str], words: str,
                           capsys: pytest.CaptureFixture[str]) -> None:
    places = {name: tmp_path / name.lower() for name in ("EMPTY", "IMAGE", "OTHER", "HALF", "FOREIGN")}
    places["EMPTY"] = lines(tmp_path / "empty.jsonl", [])
    places["IMAGE"].write_bytes(b"\x89PNG")
    places["OTHER"].mkdir()
    (places["OTHER"] / "thesis.tex").write_text("text")
    DiskStore(places["HALF"]).close()
    foreign = DiskStore(places["FOREIGN"])
    foreign._index._rows("INSERT INTO settings VALUES ('checkpoint', '\"another\"')")
    foreign.close()

    corpus = lines(tmp_path / "corpus.jsonl", PAGES[:2])
    argv = command(checkpoint, corpus, *(str(places.get(flag, flag)) for flag in flags))
    assert read_ahead.main(argv) == 2
    err = capsys.readouterr().err
    assert words in err and "Traceback" not in err
