"""TREC runs and qrels, and texts by id: read back as written, and every malformed line named by its number."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from scaledown.data.pipeline.trec import read_qrels, read_run, write_qrels, write_run
from scaledown.evaluation.ranking.ranking_task import read_texts

RUN = {"q2": {"d7": 3.25, "d1": 0.1 + 0.2, "d3": -1e-30}, "q1": {"d1": -7.0, "d9": -7.0}}


def written(tmp_path, text, name="file.txt"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_run_is_read_back_unchanged(tmp_path):
    write_run(tmp_path / "run.trec", RUN)
    found = read_run(tmp_path / "run.trec")
    assert found == RUN
    assert [list(scores) for scores in found.values()] == [["d7", "d1", "d3"], ["d1", "d9"]]
    assert (tmp_path / "run.trec").read_text().splitlines()[0] == "q2 Q0 d7 1 3.25 scaledown"
    assert [path.name for path in tmp_path.iterdir()] == ["run.trec"]


def test_tabs_spaces_and_ranks_that_disagree(tmp_path):
    path = written(tmp_path, "q\tQ0\tlow\t1\t1.5\tother\n\nq  Q0 high   2 2e1 other\n")
    assert list(read_run(path)["q"].items()) == [("high", 20.0), ("low", 1.5)]


@pytest.mark.parametrize("name", ["two words", "", "line\n", "\tq", "a\x0b", "a\u2028", "a\xa0b", "a\x00", "\ufeffq",
                                  "\ud83d", 7], ids=repr)
def test_an_id_that_no_reader_would_read_is_not_written(tmp_path, name):
    for write, values in ((write_run, {"q": {name: 1.0}}), (write_run, {name: {"d": 1.0}}),
                          (write_qrels, {"q": {name: 1}}), (write_qrels, {name: {"d": 1}})):
        with pytest.raises(ValueError, match="is not allowed in a TREC file") as fault:
            write(tmp_path / "file.trec", values)
        assert repr(name) in str(fault.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("score", [np.float32(1.5), np.float64(1.5), torch.tensor(1.5), torch.tensor(1.5).bfloat16(),
                                   Fraction(3, 2)], ids=repr)
def test_any_number_is_written_as_readers_read_it(tmp_path, score):
    write_run(tmp_path / "run.trec", {"q": {"d": score, "e": np.int64(2)}})
    assert (tmp_path / "run.trec").read_text() == "q Q0 e 1 2.0 scaledown\nq Q0 d 2 1.5 scaledown\n"
    write_qrels(tmp_path / "qrels", {"q": {"d": np.int64(2), "e": True, "f": 1.0, "g": np.float32(0)}})
    assert (tmp_path / "qrels").read_text() == "q 0 d 2\nq 0 e 1\nq 0 f 1\nq 0 g 0\n"


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), None, "1.5", 10 ** 400, [1.0]], ids=str)
def test_what_is_no_number_is_not_written(tmp_path, value):
    for write, fault in ((write_run, "finite number"), (write_qrels, "whole number")):
        with pytest.raises(ValueError, match=f"document 'd' of query 'q' has the .*; expected a {fault}"):
            write(tmp_path / "file.trec", {"q": {"d": value}})
    with pytest.raises(ValueError, match="the grade 0.5"):
        write_qrels(tmp_path / "file.trec", {"q": {"d": 0.5}})
    assert not list(tmp_path.iterdir())


def test_qrels_of_trec_and_of_beir(tmp_path):
    qrels = {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": 1}}
    write_qrels(tmp_path / "qrels.txt", qrels)
    assert read_qrels(tmp_path / "qrels.txt") == qrels
    beir = written(tmp_path, "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t1\n", "test.tsv")
    assert read_qrels(beir) == qrels


def test_all_malformed_lines_of_a_run_are_named(tmp_path):
    lines = ["q Q0 d1 1 0.5 tag", "q Q0 d2 2 tag", "q Q0 d3 3 nan tag", "q Q0 d1 4 0.2 tag", "q Q0 d4 x 0.1 tag"]
    with pytest.raises(ValueError, match="3 faults in its lines") as fault:
        read_run(written(tmp_path, "\n".join(lines)))
    told = str(fault.value).splitlines()[1:]
    assert [line.split(":")[0] for line in told] == ["  line 2", "  line 3", "  line 4"]
    assert "query Q0 document rank score tag" in told[0] and "already on line 1" in told[2]


def test_of_many_malformed_lines_twenty_are_shown(tmp_path):
    with pytest.raises(ValueError, match="30 faults") as fault:
        read_qrels(written(tmp_path, "q 0 d high\n" * 30))
    assert len(str(fault.value).splitlines()) == 22 and "and 10 more" in str(fault.value)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_named(tmp_path, text):
    for read in (read_run, read_qrels, read_texts):
        with pytest.raises(ValueError, match="nothing in it"):
            read(written(tmp_path, text))
    with pytest.raises(ValueError, match="no such file"):
        read_run(tmp_path / "nowhere")


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "latin").write_bytes(b"q 0 d 1\nq 0 caf\xe9 1\n")
    with pytest.raises(ValueError, match="not UTF-8 after line"):
        read_qrels(tmp_path / "latin")


def test_texts_by_tabs_and_in_beirs_json(tmp_path):
    assert read_texts(written(tmp_path, "1\tA text\twith a tab\n2\tAnother \n")) == {
        "1": "A text\twith a tab", "2": "Another"}
    lines = '{"_id": "1", "title": "Oslo", "text": "A town."}\n{"_id": "2", "title": "", "text": "No title."}\n'
    assert read_texts(written(tmp_path, lines, "corpus.jsonl")) == {"1": "Oslo. A town.", "2": "No title."}


@pytest.mark.parametrize(("lines", "name", "texts"), [
    ('id\ttext\ttitle\n1\t"Aaron ( or ; ""Ahärôn"") is a prophet"\tAaron\n2\t"Hi" he said\t\n', "psgs_w100.tsv",
     {"1": 'Aaron. Aaron ( or ; "Ahärôn") is a prophet', "2": '"Hi" he said'}),
    ("pid\tpassage\n7\tA town.\n", "collection.tsv", {"7": "A town."}),
    ('docid,title,body\n7,Oslo,"A town,\nand a capital."\n', "corpus.csv", {"7": "Oslo. A town,\nand a capital."}),
    ("query-id\tquery\n7\twho?\n", "queries.tsv", {"7": "who?"}),
    ("7\tid\n8\ttext\n", "queries.tsv", {"7": "id", "8": "text"})])
def test_a_heading_is_no_text(tmp_path, lines, name, texts):
    assert read_texts(written(tmp_path, lines, name)) == texts


@pytest.mark.parametrize(("lines", "message"), [
    ("id\turl\n1\tx\n", r"its heading is id, url; expected columns for the id .* and the text"),
    ("D1\thttps://x\tOslo\tA town.\nD2\thttps://y\tRome\tOne, too.\n", "every line has 4 columns"),
    ("id\ttext\n1\t\n\tx\n1\ty\tz\n", "3 faults"), ("id,text\n", "nothing in it"),
    ("1,A town.\n", "expected an id, a tab and a text")])
def test_columns_that_nobody_names_are_not_guessed(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        read_texts(written(tmp_path, lines))


def test_half_a_surrogate_pair_is_no_text(tmp_path):
    lines = '{"_id": "1", "text": "\\ud83d"}\n{"_id": "2", "text": "\\ud83d\\ude00"}\n'
    with pytest.raises(ValueError, match="1 fault.*\n  line 1: text must be text, got text with half a surrogate"):
        read_texts(written(tmp_path, lines, "corpus.jsonl"))


def test_malformed_texts_are_named(tmp_path):
    with pytest.raises(ValueError, match="2 faults") as fault:
        read_texts(written(tmp_path, "1\tgood\nno tab\n1\tagain\n"))
    assert "line 2" in str(fault.value) and "line 3: id '1' is already on line 1" in str(fault.value)
    with pytest.raises(ValueError, match="3 faults") as fault:
        read_texts(written(tmp_path, '{"_id": 1, "text": "x"}\n[1]\n{"_id"\n', "corpus.jsonl"))
    assert all(f"line {number}" in str(fault.value) for number in (1, 2, 3))
