"""What comes in: the text of the documents' box, files of documents, and the samples."""

from __future__ import annotations

import json

import pytest

from scaledown.demo.box_text import box_text, documents_in
from scaledown.demo.document_file import MOST_FILE_BYTES, documents_of_file
from scaledown.demo.samples import REAL_QUESTIONS, samples_for
from scaledown.models.serving.inputs.user_input import read_documents, texts_of


def texts(box: str) -> list[str]:
    return texts_of(read_documents(documents_in(box)))


@pytest.mark.parametrize(("box", "read"), [
    ("", []),
    (" \n\n \n", []),
    ("one", ["one"]),
    ("one\ntwo", ["one\ntwo"]),
    ("one\n\ntwo\n \t\nthree", ["one", "two", "three"]),
    ("one\r\n\r\ntwo", ["one", "two"]),
    ("one\n\nstill one\n---\ntwo", ["one\n\nstill one", "two"]),
    ("one\n\nstill one\n---", ["one\n\nstill one"]),
    ("# Canal\nIt opened.\n\n# Lake\nIt is deep.", ["Canal. It opened.", "Lake. It is deep."]),
    ("# a heading alone\n\ntext", ["# a heading alone", "text"]),
    ("#no title\ntext", ["#no title\ntext"]),
])
def test_the_box_is_read_as_it_is_explained_beside_it(box, read):
    assert texts(box) == read


@pytest.mark.parametrize("documents", [
    ["one", "two"],
    ["one line\nand another"],
    ["a paragraph\n\nand another"],
    [{"title": "Canal", "text": "It opened."}, "no title"],
    [{"title": "Canal", "text": "It opened.\n\nIt was dug."}, "no title"],
])
def test_what_is_written_into_the_box_is_read_from_it(documents):
    read = read_documents(documents)
    assert texts(box_text(read)) == texts_of(read)


def test_a_separator_inside_a_document_separates_nothing():
    assert texts(box_text(read_documents(["above\n---\nbelow", "other"]))) == ["above\n----\nbelow", "other"]


def test_a_heading_inside_a_document_is_no_title():
    for text in ("# Canal\nIt opened.", "# Canal\n\nIt opened.", "# \nIt opened."):
        assert texts(box_text(read_documents([text, "other"]))) == [f"#{text}", "other"]
    for document in ("# Canal", {"title": "Kel", "text": "# Canal\nIt opened."}):
        read = read_documents([document])
        assert texts(box_text(read)) == texts_of(read)


def file_texts(name: str, content: str | bytes) -> list[str]:
    content = content.encode() if isinstance(content, str) else content
    return texts_of(documents_of_file(name, content))


def test_each_kind_of_file_is_read():
    values = ["one", {"title": "Canal", "text": "It opened.", "id": 7}]
    as_read = ["one", "Canal. It opened."]
    assert file_texts("a.txt", "one\n\n# Canal\nIt opened.") == as_read
    assert file_texts("a.json", json.dumps(values)) == as_read
    assert file_texts("A.JSONL", "\n".join(map(json.dumps, values)) + "\n\n") == as_read
    assert file_texts("mark.txt", b"\xef\xbb\xbfone") == ["one"]
    assert documents_of_file("a.json", json.dumps(values).encode())[1].id == "7"


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.pdf", b"%PDF", "a.pdf: a file of documents ends in .txt, .json or .jsonl"),
    ("a", b"text", "ends in .txt"),
    ("a.txt", b"good \xff", "a.txt: not UTF-8 text (byte 6)"),
    ("a.txt", b" \n\n", "there is no document in it"),
    ("a.json", b"[]", "there is no document in it"),
    ("a.json", b"{", "a.json: no JSON"),
    ("a.json", b"[" * 100_000, "nested too deeply"),
    ("a.json", b"{}", "must be a list of documents"),
    ("a.json", b"[3]", "document 0: must be a string"),
    ("a.json", b'["a", {"name": "b"}]', "document 1: must have its text under one of text"),
    ("a.json", b'["a", "", {"title": "b", "text": " "}]', "2 faults in its documents\n  document 1: its text is"),
    ("a.json", b'["a", "", {"title": "b", "text": " "}]', "\n  document 2: its text is empty"),
    ("a.jsonl", b'"a"\n\n""', "line 3: its text is empty"),
    ("a.json", b'["\\ud800"]', "half a character"),
    ("a.jsonl", b'"one"\n\n{"text": ', "line 3: not valid JSON"),
    ("a.jsonl", b'7\n\n{"name": "b"}\n"two"', "a.jsonl: 2 faults in its lines\n  line 1: must be a string"),
    ("a.jsonl", b'7\n\n{"name": "b"}\n"two"', "\n  line 3: must have its text under one of text"),
    ("a.txt", b"x" * (MOST_FILE_BYTES + 1), "longer than 1 MiB"),
])
def test_a_bad_file_is_named_with_its_fault(name, content, message):
    with pytest.raises(ValueError) as fault:
        documents_of_file(name, content)
    assert message in str(fault.value) and name in str(fault.value)


def test_a_file_of_just_the_longest_size_is_read():
    assert len(file_texts("a.txt", b"x" * MOST_FILE_BYTES)) == 1


@pytest.mark.parametrize("generator", ["embedded", "smollm2", "some/other"])
def test_each_sample_states_its_answer(generator):
    samples = samples_for(generator)
    assert len({sample.question for sample in samples}) == len(samples) >= 4
    for sample in samples:
        assert any(sample.answer.removeprefix("the ") in text for text in texts(sample.box)), sample.question
    # The last one has one long document, whose blank lines are inside it.
    assert len(texts(samples[-1].box)) == 1 and "\n\n" in texts(samples[-1].box)[0]
    assert (samples[0].question in REAL_QUESTIONS) is (generator != "embedded")
