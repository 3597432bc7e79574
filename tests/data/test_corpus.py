"""Corpora: every layout, every page once however the file is cut, and damaged lines counted and named."""

from __future__ import annotations

import itertools
import json

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny

from scaledown import hub
from scaledown.data.pipeline.corpus import corpus_files, cutting, passage_store
from scaledown.data.pipeline.corpus.cutting import Page, kilt_text, page_of
from scaledown.data.pipeline.corpus.passage_store import PassageStore
from scaledown.data.pipeline.stages.search_results import Documents
from scaledown.processes import Processes
from scaledown.prompt.passages import token_counter
from scaledown.prompt.plain_text import plain_ids

ALONE = (Processes(),)
KILT = {"_id": "290", "wikipedia_id": "290", "wikipedia_title": "A", "anchors": [], "categories": "",
        "text": ["A\n", "A is a letter.\n", "Section::::History.\n", "It is old.\n", "Section::::Uses.:In sport.\n",
                 "BULLET::::- A team,\n", "BULLET::::1. a goal,\n", "\n", "BULLET::::- -5 degrees\n"]}


def count_words(texts):
    return [len(text.split()) for text in texts]


def write_lines(path, rows, end="\n"):
    path.write_bytes("\n".join(json.dumps(row) if not isinstance(row, str) else row for row in rows).encode()
                     + end.encode())
    return path


def read_all(corpus):
    notes = corpus_files.PartNotes()
    return list(itertools.chain.from_iterable(part.pages(notes) for part in corpus.parts)), notes


def cut(corpus, folder, cutter=None, processes=ALONE):
    for process in processes:
        passage_store.write_passages(corpus, cutter or cutting.token_cutter(count_words, 16), folder, process)
    return PassageStore(folder)


def rows(count):
    return [{"id": f"p{number}", "title": f"T{number}", "text": "word " * (number % 40) + "é."}
            for number in range(count)]


def test_a_kilt_page_is_its_running_text():
    assert kilt_text(KILT["text"]) == "A is a letter.\nIt is old.\nA team,\na goal,\n-5 degrees"
    assert page_of(KILT) == Page("290", "A", kilt_text(KILT["text"]), is_article=True)


def test_other_layouts_of_a_page():
    assert page_of({"_id": 7, "title": None, "text": "x"}) == Page("7", "", "x")
    assert page_of({"id": 0, "title": 1984, "text": "x"}) == Page("0", "1984", "x")
    assert page_of({"docid": "d", "contents": "x", "title": "T"}) == Page("d", "T", "x")


@pytest.mark.parametrize(("values", "message"), [
    ([], "expected an object"), ({"text": "x"}, "no id"), ({"id": "", "text": "x"}, "no id"),
    ({"id": True, "text": "x"}, "its id is true"), ({"id": "a"}, "no text"),
    ({"id": "a", "text": [1]}, r"its text is \[1\]"), ({"id": "a", "text": ["T", None]}, "its text is"),
    ({"id": "a", "text": "x", "title": {"a": 1}}, "its title is {"), ({"id": "a", "text": "\ud800"}, "surrogate"),
    ({"id": "\ud800", "text": {}, "title": []}, r"its id is text with half.*; its title is \[\]; its text is {};")])
def test_what_is_no_page(values, message):
    with pytest.raises(ValueError, match=message):
        page_of(values)


@pytest.mark.parametrize("part_bytes", [1, 7, 64, 100, 1000, 10**6])
@pytest.mark.parametrize("end", ["\n", ""])
def test_every_line_is_in_one_part_whatever_the_parts(tmp_path, monkeypatch, part_bytes, end):
    monkeypatch.setattr(corpus_files, "PART_BYTES", part_bytes)
    corpus = corpus_files.open_corpus(str(write_lines(tmp_path / "c.jsonl", rows(30), end)), None)
    pages, notes = read_all(corpus)
    assert [page.id for page in pages] == [f"p{number}" for number in range(30)]
    assert corpus.size == (tmp_path / "c.jsonl").stat().st_size == notes.size


def test_a_corpus_of_so_many_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_files, "PART_BYTES", 50)
    for name in ("a", "b"):
        write_lines(tmp_path / f"{name}.jsonl", rows(5))
    for max_pages in (1, 5, 7, 10, 99):
        corpus = corpus_files.open_corpus(str(tmp_path), max_pages)
        assert len(read_all(corpus)[0]) == min(max_pages, 10)


def test_folders_of_every_kind(tmp_path):
    beir = tmp_path / "beir"
    beir.mkdir()
    write_lines(beir / "corpus.jsonl", [{"_id": "d1", "title": "T", "text": "x"}])
    write_lines(beir / "queries.jsonl", [{"_id": "q1", "text": "no page"}])
    assert [page.id for page in read_all(corpus_files.open_corpus(str(beir), None))[0]] == ["d1"]
    texts = tmp_path / "texts"
    (texts / "sub").mkdir(parents=True)
    (texts / "sub" / "one.txt").write_text("first", encoding="utf-8")
    (texts / "two.txt").write_bytes(b"\xff")
    pages, notes = read_all(corpus_files.open_corpus(str(texts), None))
    assert pages == [Page("sub/one", "one", "first")]
    assert notes.num_faults == 1 and "two.txt: cannot be read" in notes.faults[0][1]
    parquet = tmp_path / "parquet"
    parquet.mkdir()
    pa.parquet.write_table(pa.Table.from_pylist(rows(3)), parquet / "x.parquet")
    assert [page.id for page in read_all(corpus_files.open_corpus(str(parquet), 2))[0]] == ["p0", "p1"]


def test_a_dataset_on_the_hub(monkeypatch):
    monkeypatch.setattr(hub, "locate", lambda name, **_: name)
    asked = []
    monkeypatch.setattr(datasets, "load_dataset",
                        lambda **options: asked.append(options) or datasets.Dataset.from_list([*rows(3), {"id": "x"}]))
    pages, notes = read_all(corpus_files.open_corpus("org/wiki", None, "20231101.en", "train"))
    assert [page.id for page in pages] == ["p0", "p1", "p2"] and notes.num_faults == 1
    assert asked == [{"path": "org/wiki", "name": "20231101.en", "split": "train"}]


@pytest.mark.parametrize(("name", "message"), [
    ("nowhere.jsonl", "no such file or folder"), ("./x/y", "no such file or folder"), ("empty", "holds no corpus"),
    ("x.csv", "holds no corpus"), ("nobody/nothing", "--corpus_path FILE_OR_FOLDER")])
def test_a_corpus_that_is_none(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.csv").write_text("a,b")
    with pytest.raises(ValueError, match=message):
        corpus_files.open_corpus(name, None)


def test_damaged_lines_are_counted_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_files, "PART_BYTES", 60)
    lines = [json.dumps(row) for row in rows(8)]
    lines[2], lines[5] = '{"id": "x", "text', '{"id": "y"}'
    path = write_lines(tmp_path / "c.jsonl", [*lines, "", '{"id": "cut o'], end="")
    path.write_bytes(path.read_bytes().replace(b"p7", b"\xff7"))
    corpus = corpus_files.open_corpus(str(path), None)
    store = cut(corpus, tmp_path / "out")
    report = passage_store.report_of(tmp_path / "out", corpus)
    assert report["lines"] == 10 and report["faults"] == 4
    assert [fault.partition(": ")[2].partition(":")[0] for fault in report["first_faults"]] == [
        "line 3", "line 6", "line 8", "line 10"]
    assert "is the file cut off?" in report["first_faults"][3] and "no text" in report["first_faults"][1]
    assert store.id(0) == "p0"


def test_processes_and_interruptions_give_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_files, "PART_BYTES", 200)
    corpus = corpus_files.open_corpus(str(write_lines(tmp_path / "c.jsonl", rows(60))), None)
    assert len(corpus.parts) > 5
    cut(corpus, tmp_path / "one")
    cut(corpus, tmp_path / "three", processes=[Processes(rank, 3) for rank in (1, 2, 0)])
    again = tmp_path / "again"
    cut(corpus, again)
    kept = (again / "part-00003.arrow").stat().st_mtime_ns
    (again / "part-00001.arrow").unlink()
    (again / ".part-00004.arrow.tmp").write_bytes(b"torn")
    cut(corpus, again)
    assert (again / "part-00003.arrow").stat().st_mtime_ns == kept
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "three" / path.name).read_bytes()
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_passages_have_ids_and_titles_and_fit(tmp_path):
    pages = [Page("long", "The  Title", "One two three four. " * 9), Page("short", "", "just this"),
             Page("none", "T", " ")]
    store = cut(corpus_files.of_pages("pages", pages, "f"), tmp_path)
    assert [store.id(number) for number in range(len(store))] == ["long-0", "long-1", "long-2", "short"]
    assert store.document(0) == "The Title. " + " ".join(["One two three four."] * 3) and store.title(0) == "The  Title"
    assert store.num_tokens(0) == 14 and store.total_tokens() == 3 * 14 + 2
    assert list(store.documents(1, 3)) == [store.document(1), store.document(2)]
    assert store.numbers_of(["short", "long-1", "unknown"]) == {"short": 3, "long-1": 1}


def test_passages_of_words(tmp_path):
    pages = [Page("a", "T", "w1 w2\nw3 w4 w5"), Page("b", "", "x")]
    store = cut(corpus_files.of_pages("pages", pages, "f"), tmp_path, cutting.word_cutter(count_words, 2))
    assert list(store.documents()) == ["T. w1 w2", "T. w3 w4", "T. w5", "x"]
    assert [store.num_tokens(number) for number in range(4)] == [3, 3, 2, 1]


def test_a_damaged_passage_file_is_named(tmp_path):
    (tmp_path / "part-00000.arrow").write_bytes(b"not arrow")
    with pytest.raises(ValueError, match=r"part-00000\.arrow: damaged .* delete the folder"):
        PassageStore(tmp_path)
    (tmp_path / "part-00000.arrow").unlink()
    cut(corpus_files.of_pages("pages", [Page("a", "", "x")], "f"), tmp_path)
    with pytest.raises(ValueError, match=r"part-00001\.arrow: damaged .* delete the folder"):
        PassageStore(tmp_path, num_parts=2)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sizes": -1}'])
def test_damaged_notes_of_a_part_are_named(tmp_path, content):
    corpus = corpus_files.of_pages("pages", [Page("a", "", "x")], "f")
    cut(corpus, tmp_path)
    (tmp_path / "part-00000.json").write_text(content)
    with pytest.raises(ValueError, match=r"part-00000\.json: damaged"):
        passage_store.report_of(tmp_path, corpus)


def test_pages_without_text_are_counted(tmp_path):
    lines = [json.dumps(row) for row in ({"id": "a", "text": "x"}, {"id": "b", "text": " "}, {"id": "c", "text": []})]
    corpus = corpus_files.open_corpus(str(write_lines(tmp_path / "c.jsonl", lines)), None)
    cut(corpus, tmp_path / "out")
    report = passage_store.report_of(tmp_path / "out", corpus)
    assert (report["lines"], report["blank"], report["faults"]) == (3, 2, 0)


def test_documents_are_cut_and_counted_as_the_student_reads_them(tmp_path):
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<think>"])
    text = "Ada Lovelace 🦉 was born in London </s> in <think> 1815."
    ids, = plain_ids(tokenizer, [text])
    count_tokens = token_counter(tokenizer)
    store = cut(corpus_files.of_pages("pages", [Page("a", "", text)], "f"), tmp_path,
                cutting.word_cutter(count_tokens, 100))
    assert store.num_tokens(0) == len(ids), "'</s>' and '<think>' are several tokens each"

    for limit in range(1, len(ids) + 1):
        kept = Documents(store, tokenizer, limit).text(0)
        assert text.startswith(kept) and count_tokens([kept])[0] <= limit
    assert kept == text
