"""Queries: every form of file, what is left out of it, and all of its faults at once."""

from __future__ import annotations

import json

import datasets
import pytest

from scaledown import hub
from scaledown.data.pipeline.queries import (
    QueriesConfig,
    Query,
    chosen_queries,
    count_queries,
    read_ms_marco,
    read_queries_file,
)
from scaledown.data.pipeline.stages.preparing import synthetic_queries


def read(tmp_path, text):
    path = tmp_path / "queries"
    path.write_text(text, encoding="utf-8")
    return read_queries_file(path)


@pytest.mark.parametrize(("text", "queries"), [
    ("who?\nwhat  is it?\n", [Query("1", "who?"), Query("2", "what is it?")]),
    ("7\twho?\n9\twhat?", [Query("7", "who?"), Query("9", "what?")]),
    ('{"query": "who?", "answers": ["a", "b", "a"]}\n{"question": "what?", "id": 5, "answer": "c"}\n',
     [Query("1", "who?", ("a", "b")), Query("5", "what?", ("c",))]),
    ('{"_id": "q", "text": "who?"}\n', [Query("q", "who?")]),
    ('{"id": "k", "input": "who?", "output": [{"answer": "a"}, {"provenance": []}]}', [Query("k", "who?", ("a",))]),
    ('{"query": "when?", "answers": [1945, "then", 0.5, null]}\n{"query": "how many?", "answer": 0}\n',
     [Query("1", "when?", ("1945", "then", "0.5")), Query("2", "how many?", ("0",))]),
    ('{"query": "who?", "answers": {"value": "a", "aliases": []}}\n{"query": "what?", "answers": [{"text": "b"}]}',
     [Query("1", "who?", ("a",)), Query("2", "what?", ("b",))]),
    ('{"question": "who?", "answers": {"text": ["a"], "answer_start": [1]}}', [Query("1", "who?", ("a",))]),
    ("who wrote it?\t['Ada Lovelace']\nwhat?\t['a', \"b's\"]\n",
     [Query("1", "who wrote it?", ("Ada Lovelace",)), Query("2", "what?", ("a", "b's"))]),
    ('"who said ""hi""?"\t"[""it\'s""]"\n', [Query("1", 'who said "hi"?', ("it's",))]),
    ("query_id\tquery\n7\twho?\n9\t\"What\" is it?\n", [Query("7", "who?"), Query("9", '"What" is it?')]),
    ("Question\tAnswers\r\nwho?\t['a']\r\nwhat?\tb\r\n", [Query("2", "who?", ("a",)), Query("3", "what?", ("b",))]),
    ("qid\tsource\tquestion\n7\tx\twho?\n", [Query("7", "who?")]),
    ('id,query\n1,"who, or\n\nwhom?"\n\n2,what?\n', [Query("1", "who, or whom?"), Query("2", "what?")]),
    ("query\nwho?\n", [Query("2", "who?")]),
    ("who?\rwhat?\r", [Query("1", "who?"), Query("2", "what?")]),
    ("1,000 metres are how many miles?\n", [Query("1", "1,000 metres are how many miles?")]),
    ("id, please: whose?\n", [Query("1", "id, please: whose?")]),
    ("1\twho?\t\n", [Query("1", "who?")]),
    ("who?\t['a']\nwhat?\t[]\n", [Query("1", "who?", ("a",)), Query("2", "what?")]),
    ('[{"id": "r", "query": "who?", "documents": ["d"], "answer": "t", "answers": ["a"]}]',
     [Query("r", "who?", ("a",))]),
])
def test_every_form(tmp_path, text, queries):
    assert read(tmp_path, text).queries == queries


def test_an_answer_may_have_more_digits_than_a_float(tmp_path):
    digits = "1" * 400
    assert read(tmp_path, f'{{"query": "how many?", "answer": {digits}}}').queries[0].answers == (digits,)


def test_empty_and_repeated_lines_are_left_out_and_counted(tmp_path):
    assert read(tmp_path, "who?\n\n").left_out == {"empty": 1}
    found = read(tmp_path, "who?\n\n  \nwhat?\n who? \n")
    assert [query.id for query in found.queries] == ["1", "4"]
    assert found.left_out == {"empty": 2, "a query that stood before": 1}
    assert found.examples == ["line 2: empty", "line 3: empty", "line 5: a query that stood before"]


@pytest.mark.parametrize(("text", "message"), [
    ("", "no queries in it"), ("\n\n", "no queries in it"), ("[]", "no queries in it"),
    ("1\twho?\nwhat?\n", "1 fault.*\n  line 2: no TAB"),
    ("1\twho?\n1\twhat?\n", "line 2: id '1' is taken by line 1"),
    ('{"query": "who?"}\n{"query": \n{"id": 1}\n[]\n', "3 faults.*\n  line 2: not valid JSON.*\n  line 3: it has"),
    ("<top>\n<num> Number: 1\n", "markup, such as TREC's topics; expected text with one query a line"),
    ('<?xml version="1.0"?>\n<topics>', "markup"), ("<!DOCTYPE html>\nwho?\n", "markup"),
    ("1 Q0 d1 1 0.5 tag\n1 Q0 d2 2 0.25 tag\n", "run or of qrels"), ("1 0 d1 2\n1 0 d2 0\n", "run or of qrels"),
    ("1\t0\td1\t2\n", "4 columns without a heading"), ("1\t17\n2\t18\n", "has a letter"),
    ("7\t1\twho?\ta passage\n", "4 columns without a heading; expected id TAB query"),
    ("1,who?\n2,what?\n", "columns separated by commas"), ("who wrote it\teasy\n", "'who wrote it' is no id"),
    ("id\ttext_en\n1\twho?\n", r"its heading \(id, text_en\) names no query"),
    ("qid\tquery\n1\twho?\textra\n2\n", "2 faults.*\n  line 2: 3 columns; expected 2.*qid, query\n  line 3: 1 col"),
    ('id,query\n1,"who?"x\n2,what?\n', "1 fault.*\n  line 2: not valid CSV"),
    ("who?\t['a']\nwhat?\tb\n", "line 2: .*expected question TAB"), ("who?\n1\twhat?\n", "line 2: a TAB in it"),
    ("who?\t['a']\nwhat?\t[{[]}]\n", "line 2: .*expected question TAB"),
    ("id\tquery\n\twho?\n", "line 2: its id: expected text that is not blank, or a whole number"),
    ('{"id": {"a": 1}, "query": "a?"}\n{"id": true, "query": "b?"}\n{"id": 1.5, "query": "c?"}',
     "3 faults.*\n  line 1: its id: .*got .*\n  line 2: .*got true\n  line 3: .*got 1.5"),
    ('{"query": "a?", "answers": [true]}\n{"query": "b?", "answers": {"a": 1}}\n{"query": "c?", "answers": [["x"]]}\n'
     '{"query": "d?", "answers": NaN}',
     r"4 faults.*\n  line 1: an answer is true; expected text or a number\n  line 2: .*\{\"a\": 1\}.*\n  line 3: "
     r".*\[\"x\"\].*\n  line 4: .*NaN"),
    ('{"query": "\\ud83d?"}\n{"query": "q", "answers": ["\\ud83d"]}', "2 faults.*\n  line 1: it holds half a surr"),
    ("[{]", "not valid JSON"), ('{"id": 1}\n' * 25, "25 faults(.*\n)*  and 5 more")])
def test_faults_are_told_together(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_queries_file(tmp_path / "none")
    (tmp_path / "x").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_queries_file(tmp_path / "x")


def test_a_csv_says_which_column_is_the_query(tmp_path):
    (tmp_path / "q.csv").write_text("who wrote it, and when?\nwhat?\n")
    with pytest.raises(ValueError, match="q.csv: a CSV without a heading that names query"):
        read_queries_file(tmp_path / "q.csv")
    (tmp_path / "qas.csv").write_text("who wrote it?\t['Ada']\n")
    assert read_queries_file(tmp_path / "qas.csv").queries == [Query("1", "who wrote it?", ("Ada",))]


def test_the_order_is_random_but_one_for_a_seed_and_fewer_are_among_more(tmp_path):
    found = read(tmp_path, "".join(f"{number}\tquery {number}\n" for number in range(50)))
    config = QueriesConfig("x")
    everything = chosen_queries(found, config)
    assert sorted(everything, key=lambda query: int(query.id)) == found.queries != everything
    found.queries.reverse()
    assert chosen_queries(found, QueriesConfig("x", max_queries=7)) == everything[:7]
    assert chosen_queries(found, QueriesConfig("x", seed=1)) != everything


def test_ms_marco_from_the_hub(monkeypatch):
    rows = [{"query_id": 1, "query": "who? ", "answers": []}, {"query_id": 2, "query": "who?"}, {"query_id": 3,
            "query": "what?"}]
    monkeypatch.setattr(hub, "locate", lambda name, **_: name)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    found = read_ms_marco("train")
    assert found.queries == [Query("1", "who?"), Query("3", "what?")] and found.left_out.total() == 1


def test_ms_marco_without_the_hub_says_what_works():
    with pytest.raises(ValueError, match="official queries TSV"):
        read_ms_marco("train")


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "not none"), ({"queries_file": "x", "download_ms_marco": True}, "not 2"),
    ({"queries_file": "x", "max_queries": 0}, "--max_queries"), ({"num_synthetic_queries": 0}, "--num_synthetic")])
def test_settings_that_contradict(settings, message):
    with pytest.raises(ValueError, match=message):
        QueriesConfig(**settings)


def test_no_two_pages_of_the_synthetic_corpus_are_about_one_entity():
    queries, pages = synthetic_queries(120, 3)
    assert len(queries) == 120 and len(pages) == 600 and len({page.id for page in pages}) == 600
    assert (queries, pages) == synthetic_queries(120, 3)
    for place, query in enumerate(queries):
        own = " ".join(page.text for page in pages[5 * place:5 * place + 5])
        assert query.answers[0] in own
    assert count_queries(QueriesConfig(num_synthetic_queries=120, max_queries=50)) == 50


def test_a_world_without_names_left_is_told(monkeypatch):
    monkeypatch.setattr("scaledown.data.pipeline.stages.preparing.MOST_VAIN_DRAWS", 0)
    with pytest.raises(ValueError, match="has names for"):
        synthetic_queries(5_000, 3)


def test_json_with_a_byte_order_mark(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([{"query": "who?"}]), encoding="utf-8-sig")
    assert read_queries_file(tmp_path / "x.json").queries == [Query("1", "who?")]
