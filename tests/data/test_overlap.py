"""Evaluation data that training has seen: counted, and told at the start and in the report."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import tiny

import train
import train_with_evaluation
from scaledown.data.overlap import Overlap, overlap
from scaledown.data.records import Record, eval_path, write_records
from scaledown.data.world.synthetic import synthetic_records

QUICK = ["--batch_size", "2", "--max_steps", "1", "--num_memory_tokens", "2", "--compression_rate", "8", "--device",
         "cpu"]
MEASURED = ["--timed_queries", "1", "--max_new_tokens", "2", "--bootstrap_resamples", "5"]


def record(id: str, query: str, *documents: str) -> Record:
    return Record(id, query, documents, "an answer")


def test_questions_and_passages_are_compared_but_for_their_writing() -> None:
    training = [record("1", "Who is the Mayor of Oslo?", "Ada leads\nOslo.", "Nothing."), record("2", "Why?", "A.")]
    evaluation = [record("a", "who is mayor of Oslo", "ada leads  oslo.", "Something else."),
                  record("b", "Who is the mayor of Rome?", "Nothing.", "Something else."),
                  record("c", "who is Mayor of Oslo??", "New.")]
    assert overlap(training, evaluation) == Overlap(2, 3, 2, 4)
    assert overlap(training, evaluation[1:2]).note().startswith("none of the 1 evaluation questions is in training, "
                                                                "but 1 of their 2 passages are")
    assert overlap([], evaluation).note() is None
    assert overlap(training, [record("d", "???", "New.")]) == Overlap(0, 1, 0, 1)


def test_questions_of_signs_alone_are_not_all_one() -> None:
    assert overlap([record("1", "?!", "x")], [record("2", "??", "y")]).num_shared_questions == 0


def test_the_worlds_halves_share_nothing() -> None:
    halves = (list(synthetic_records(200, seed=3, split=split)) for split in ("train", "eval"))
    assert overlap(*halves).note() is None


@pytest.mark.parametrize("script", [train, train_with_evaluation], ids=["train", "train_with_evaluation"])
@pytest.mark.parametrize("is_named", [True, False], ids=["by --eval_data", "by its name"])
def test_evaluation_on_training_data_is_told(script: object, is_named: bool, tmp_path: Path,
                                             capsys: pytest.CaptureFixture) -> None:
    records, path = list(synthetic_records(3, seed=3)), tmp_path / "data.json"
    num_passages = len(set(itertools.chain.from_iterable(each.documents for each in records)))
    write_records(path, records)
    argv = ["--train_data", str(path), "--generator_model", tiny.generator_folder(tmp_path / "generator"),
            "--output_dir", str(tmp_path / "run"), *QUICK, *(MEASURED if script is train_with_evaluation else [])]
    if is_named:
        argv += ["--eval_data", str(path)]
    else:
        write_records(eval_path(path), records)
    note = f"3 of the 3 evaluation questions are in training too, and {num_passages} of their {num_passages} passages"
    assert script.main(argv) == 0
    assert f"warning: {note}" in capsys.readouterr().out
    if script is train_with_evaluation:
        assert note in (tmp_path / "run" / "report.md").read_text()
        assert note in (tmp_path / "run" / "report.html").read_text()
        assert any(note in each for each in json.loads((tmp_path / "run" / "metrics_report.json").read_text())["notes"])
