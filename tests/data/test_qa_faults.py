"""Faulty values in the files of the four QA datasets: all of them told at once, each with its place."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_qa_datasets import hub_rows, squad_file
from test_qa_layouts import HOTPOT, SQUAD, nq_row, trivia_folder

from scaledown.data.qa.reading import read_questions
from scaledown.data.qa.sources import open_local

HALF = "\ud83d"
BAD_VALUES = (None, True, -1, 1.5, 10**30, "", HALF, [], {}, [None], {"a": None}, [[1, 2]], "text")
NQ_ROW = nq_row() | {"document_title": "Ada Rossi"}
QED_ROW = {"example_id": 9, "question_text": "whose friend", "title_text": "Levi", "paragraph_text": "He is Levi 's .",
           "answer_spans": [[6, 13]]}


def read(dataset: str, path: Path) -> list[Any]:
    return read_questions(open_local(dataset, "validation", path, random.Random(0)), 100, random.Random(0), Counter())


def faults_of(dataset: str, path: Path) -> list[str]:
    with pytest.raises(ValueError) as caught:
        read(dataset, path)
    title, *faults = str(caught.value).splitlines()
    assert str(path) in title and title.partition(" fault")[0].endswith(str(len(faults)))
    return [fault.strip() for fault in faults]


def test_all_faults_of_an_official_squad_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    squad_file(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["data"][1]["title"] = {"of": "it"}
    content["data"][2]["paragraphs"][3]["context"] += HALF
    first, second = content["data"][4]["paragraphs"][0]["qas"]
    first["question"], second["answers"][0]["answer_start"] = None, "12"
    del second["id"]
    content["data"][5]["paragraphs"] = None
    path.write_text(json.dumps(content), encoding="utf-8")
    assert faults_of("squad", path) == [
        'data[1].title: expected text, got {"of": "it"}',
        "data[2].paragraphs[3].context: it holds half a surrogate pair, which is no character and cannot be written "
        "as UTF-8",
        "data[4].paragraphs[0].qas[0].question: expected text, got null",
        "data[4].paragraphs[0].qas[1].id: it is missing",
        'data[4].paragraphs[0].qas[1].answers[0].answer_start: expected a whole number, got "12"',
        "data[5].paragraphs: expected a list, got null"]


def test_all_faults_of_rows_are_told_by_record_or_line(tmp_path: Path) -> None:
    rows = [copy.deepcopy(HOTPOT) for _ in range(4)]
    rows[1]["context"][0] = ["Carl", "Carl is tall."]
    rows[2] |= {"_id": None, "supporting_facts": [["Ada", "1"]]}
    faults = ['context[0][1]: expected a list, got "Carl is tall."',
              "_id: expected text that is not blank, or a whole number, got null",
              'supporting_facts[0][1]: expected a whole number, got "1"']
    (tmp_path / "dev.json").write_text(json.dumps(rows), encoding="utf-8")
    assert faults_of("hotpot_qa", tmp_path / "dev.json") == [
        f"record {number}, {fault}" for number, fault in zip((2, 3, 3), faults, strict=True)]

    lines = [json.dumps(row) for row in rows]
    (tmp_path / "dev.jsonl").write_text("\n".join([*lines[:2], "", "{", *lines[2:]]), encoding="utf-8")
    told = faults_of("hotpot_qa", tmp_path / "dev.jsonl")
    assert told[0] == f"line 2, {faults[0]}" and told[1].startswith("line 4: not valid JSON")
    assert told[2:] == [f"line 5, {fault}" for fault in faults[1:]]


def test_columns_as_the_hub_has_them_are_checked_too(tmp_path: Path) -> None:
    row = hub_rows()["squad"][0] | {"answers": {"text": ["a", None], "answer_start": [0]}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    assert faults_of("squad", tmp_path / "rows.jsonl") == [
        "line 1, answers.text[1]: expected text, got null",
        "line 1, answers: expected lists of one length, got 2 text, 1 answer_start"]


def test_null_in_a_column_of_a_parquet_file_is_told_by_row(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = hub_rows()["squad"]
    Dataset.from_list([rows[0], rows[1] | {"question": None}, rows[2] | {"title": None}]).to_parquet(
        tmp_path / "validation.parquet")
    assert faults_of("squad", tmp_path / "validation.parquet") == [
        "row 2, id 1, question: expected text, got null", "row 3, id 2, title: expected text, got null"]


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Return the path of every value inside ``value``."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, entry in entries:
        found += [(*path, key), *places(entry, (*path, key))]
    return found


def damaged(value: Any, rng: random.Random) -> Any:
    """Return a copy of ``value`` in which something else stands at one place, or nothing."""
    value = copy.deepcopy(value)
    *path, last = rng.choice(places(value))
    inner = value
    for key in path:
        inner = inner[key]
    if rng.random() < 0.2:
        del inner[last]
    else:
        inner[last] = rng.choice(BAD_VALUES)
    return value


@pytest.mark.parametrize("dataset, content", [
    ("squad", SQUAD), ("hotpot_qa", [HOTPOT]), ("natural_questions", [NQ_ROW]), ("natural_questions", [QED_ROW]),
    ("trivia_qa", "official"), *((dataset, rows[:2]) for dataset, rows in hub_rows().items())])
def test_whatever_stands_in_a_file_it_is_read_or_refused(dataset: str, content: Any, tmp_path: Path) -> None:
    path, rng = tmp_path / "dev.json", random.Random(dataset)
    if content == "official":
        trivia_folder(tmp_path)
        path = tmp_path / "qa" / "web-dev.json"
        content = json.loads(path.read_text(encoding="utf-8"))
    num_refused = 0
    for _ in range(150):
        path.write_text(json.dumps(damaged(content, rng)), encoding="utf-8")
        try:
            read(dataset, path)
        except ValueError as fault:
            num_refused += 1
            assert str(path) in str(fault)
            assert not isinstance(fault, UnicodeError)
    assert 20 < num_refused < 150
