"""TREC runs: read, cut to the best, written again; and queries files of every form."""

from __future__ import annotations

import pytest

from scaledown.data.retrieval.trec_run import read_run, write_run


def test_the_best_come_first_and_equal_ones_by_their_id(tmp_path):
    path = tmp_path / "x.run"
    path.write_text("q1 Q0 d3 9 1.5 bm25\nq1 Q0 d1 1 2.5 bm25\n\nq2\tQ0\td9\t1\t-3\tx\nq1 Q0 d2 3 1.5 bm25\n")
    assert read_run(path, 2) == {"q1": [(2.5, "d1"), (1.5, "d2")], "q2": [(-3.0, "d9")]}
    assert read_run(path, 3)["q1"] == [(2.5, "d1"), (1.5, "d2"), (1.5, "d3")]


def test_what_is_written_is_read_again(tmp_path):
    found = {"q1": [(2.5, "d1"), (1.5, "d2")], "q2": [(0.125, "d3")]}
    write_run(tmp_path / "x.run", found.items(), "bm25")
    assert (tmp_path / "x.run").read_text().splitlines()[1] == "q1 Q0 d2 2 1.5 bm25"
    assert read_run(tmp_path / "x.run", 10) == found


@pytest.mark.parametrize(("content", "message"), [
    (b"", "no lines of a TREC run"),
    (b"q1 Q0 d1 1 nan x\nq Q0 d\n", r"2 lines not in the form.*\n  line 1.*\n  line 2"),
    (b"q1 d1 3 4\n" * 30, "and 10 more"), (b"\xff\xfe", "not UTF-8"), (None, "cannot be read")])
def test_what_is_no_run(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x.run").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / "x.run", 5)
