"""Records: what is written is read again, and every fault of a file is told at once."""

from __future__ import annotations

import json
import re

import pytest

from scaledown.data.records import Record, eval_path, read_records, write_records, write_records_together

PLAIN = {"query": "Who?", "documents": ["Ada wrote it.", "Nobody did."], "answer": "Ada"}
FULL = Record(id="q1", query="Où ?", documents=("À Paris.", "東京"), answer="Paris", answers=("Paris", "la ville"),
              reranking_scores=(1.5, -2), document_ids=("d1", "d2"), titles=("", "Tokyo"))


def write(path, records):
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def fault_of(path) -> str:
    with pytest.raises(ValueError) as caught:
        read_records(path)
    return str(caught.value)


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_written_records_are_read_again(tmp_path, name):
    records = [FULL, Record(id="q2", query="Why?", documents=(), answer="So.")]
    write_records(tmp_path / name, records)
    assert read_records(tmp_path / name) == records
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_suffix_decides_the_form_and_what_says_nothing_is_left_out(tmp_path):
    record = Record(id="q2", query="Why?", documents=(), answer="So.")
    write_records(tmp_path / "x.json", [record, FULL])
    write_records(tmp_path / "x.jsonl", [record, FULL])
    as_list = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    as_lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert as_list == as_lines
    assert as_list[0] == {"id": "q2", "query": "Why?", "documents": [], "answer": "So."}
    assert as_list[1]["reranking_scores"] == [1.5, -2]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_records(tmp_path / "x.json", [FULL])
    (tmp_path / "taken").write_text("a file, not a folder", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be written"):
        write_records(tmp_path / "taken" / "x.json", [FULL])
    with pytest.raises(AttributeError):
        write_records(tmp_path / "x.json", [FULL, None])
    assert read_records(tmp_path / "x.json") == [FULL]


def test_references_are_the_aliases_or_the_answer():
    assert FULL.references == ("Paris", "la ville")
    assert Record("1", "Who?", (), "Ada").references == ("Ada",)


def test_an_answer_without_spaces_around_it_is_stated():
    record = Record("1", "日本の首都", ("日本の首都は東京です", "The capital, Tokyo.", "Tokyos"), "東京", ("Tokyo",))
    assert record.stated_answers == ("東京", "Tokyo", "")


def test_a_fault_in_records_written_together_names_their_own_file(tmp_path):
    broken = Record("1", "Who?", ("Ada.",), "\ud83d")
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path))}/x_eval.json: 1 fault"):
        write_records_together({tmp_path / "x.json": [FULL], tmp_path / "x_eval.json": [broken]})
    assert not list(tmp_path.iterdir())


def test_the_evaluation_half_lies_beside(tmp_path):
    assert eval_path(tmp_path / "a.b" / "X.json") == tmp_path / "a.b" / "X_eval.json"
    assert str(eval_path("X.jsonl")) == "X_eval.jsonl"


def test_an_id_that_is_not_given_is_the_place_in_the_file(tmp_path):
    records = read_records(write(tmp_path / "x.json", [PLAIN, PLAIN | {"titles": None}]))
    assert [record.id for record in records] == ["1", "2"]
    assert records[1].titles is None


@pytest.mark.parametrize("text", ['{"query": "a", "documents": [], "answer": "b"}\n\n'
                                  '{"query": "c", "documents": [], "answer": "d"}\n'])
def test_lines_are_lines_whatever_the_suffix(tmp_path, text):
    for name in ("x.jsonl", "x.json"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert [record.answer for record in read_records(tmp_path / name)] == ["b", "d"]


def test_every_fault_is_told_with_its_place(tmp_path):
    message = fault_of(write(tmp_path / "x.json", [
        PLAIN,
        {"query": " ", "documents": ["a", None], "answer": 7},
        {"documents": "not a list", "answer": "b", "anwsers": ["c"]},
        PLAIN | {"reranking_scores": [0.5], "document_ids": ["x", "y", "z"], "titles": [1, 2]},
        PLAIN | {"reranking_scores": [float("nan"), True]},
        "text",
    ]))
    assert message.splitlines()[0] == f"{tmp_path / 'x.json'}: 11 faults in its records"
    assert message.splitlines()[1:] == [
        "  record 2: query must be text that is not blank; got \" \"",
        "  record 2: documents must be a list of texts, none blank; got null at entry 2",
        "  record 2: answer must be text that is not blank; got 7",
        "  record 3: query is missing; expected text that is not blank",
        "  record 3: documents must be a list of texts, none blank; got \"not a list\"",
        "  record 3: 'anwsers' is not a field of a record; expected one of id, query, documents, answer, answers, "
        "reranking_scores, document_ids, titles",
        "  record 4: reranking_scores has 1 entries; expected 2, one a document",
        "  record 4: document_ids has 3 entries; expected 2, one a document",
        "  record 4: titles must be a list of texts; got 1 at entry 1",
        "  record 5: reranking_scores must be a list of finite numbers; got NaN at entry 1",
        "  record 6: expected an object with query, documents, answer, got text",
    ]


def test_the_first_twenty_faults_are_shown_and_the_rest_counted(tmp_path):
    lines = fault_of(write(tmp_path / "x.json", [{"query": "a", "answer": "b"}] * 33)).splitlines()
    assert lines[0].endswith("33 faults in its records")
    assert lines[20].startswith("  record 20: documents is missing")
    assert lines[21:] == ["  and 13 more"]


def test_a_repeated_id_is_a_fault(tmp_path):
    message = fault_of(write(tmp_path / "x.json", [PLAIN | {"id": "a"}, PLAIN | {"id": "b"}, PLAIN | {"id": "a"}]))
    assert "record 3: id 'a' is taken by record 1" in message


def test_broken_json_is_told_by_line(tmp_path):
    (tmp_path / "x.json").write_text('[\n{"query": "a"},\n{"query" "b"}\n]', encoding="utf-8")
    assert "not valid JSON (line 3:" in fault_of(tmp_path / "x.json")
    (tmp_path / "x.jsonl").write_text('{"query": "a", "documents": [], "answer": "b"}\n{"query": \n{}\n',
                                      encoding="utf-8")
    message = fault_of(tmp_path / "x.jsonl")
    assert "line 2: not valid JSON" in message and "line 3: query is missing" in message


@pytest.mark.parametrize("name, content, expected", [
    ("x.json", b"", "no records in it"),
    ("x.json", b"[]", "no records in it"),
    ("x.jsonl", b"\n\n", "no records in it"),
    ("x.json", b'[{"query":\n"caf\xe9"}]', "line 2 is not UTF-8 (byte 0xe9)"),
    ("x.json", b'{"data": []}', "'data' is not a field of a record"),
    ("x.json", b'[{"query": "\\ud800", "documents": [], "answer": "b"}]', "query must be text"),
])
def test_a_file_that_holds_no_records(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert expected in fault_of(tmp_path / name)


def test_a_missing_file_and_a_folder(tmp_path):
    assert "no such file" in fault_of(tmp_path / "x.json")
    assert "cannot be read" in fault_of(tmp_path)
