"""Lessons in which the questions of a step share their passages."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from lab.embedded.real_compressors import main
from lab.embedded.shared_passages import on_all_documents, on_one_passage
from scaledown.data.records import Record, write_records
from scaledown.models.model import ScaleDownModel

PASSAGES = ["The Ner rises at Łódź.", "Giannini restored the tower in 1791.", "Adam drew the bridge."]
RECORDS = [Record(f"r{number}", f"{question}?", (*PASSAGES[place:], *PASSAGES[:place]), answer, (answer,))
           for number, (question, answer, place) in enumerate([
               ("What rises at Łódź", "Ner", 0), ("Where does it rise", "Łódź", 1), ("Who restored it", "Giannini", 2),
               ("When", "1791", 0), ("Who drew it", "Adam", 1), ("Is the sea salt", "yes", 2), ("Why", "Nobody", 0)])]


@pytest.mark.parametrize("make", [on_one_passage, on_all_documents])
def test_every_step_has_its_questions_and_the_seed_decides_which(make) -> None:
    found = make(RECORDS, 40, 6, 1)
    assert len(found) == 240 and len({record.id for record in found}) == 240
    assert {record.query for record in found} == {record.query for record in RECORDS[:5]}
    assert all(any(record.stated_answers) for record in found)
    assert found == make(RECORDS, 40, 6, 1) != make(RECORDS, 40, 6, 2)


def test_half_of_the_questions_on_one_passage_stand_beside_one_that_does_not_know() -> None:
    found = on_one_passage(RECORDS, 40, 6, 1)
    assert 80 <= sum(len(record.documents) == 2 for record in found) <= 130
    assert all(sum(map(bool, record.stated_answers)) == 1 and len(record.documents) <= 2 for record in found)
    both = [record for record in found if len(record.documents) == 2]
    assert {bool(record.stated_answers[0]) for record in both} == {True, False}


def test_a_step_is_about_one_passage_and_those_near_it() -> None:
    apart = [Record(f"{number}", f"Who is {number}?", (f"Person{number} came.",), f"Person{number}")
             for number in range(50)]
    close = [Record(f"c{number}", f"{number}?", ("Only here is Ada.",), "Ada") for number in range(200)]
    for start in range(0, 80, 8):
        passages = {record.documents for record in on_one_passage([*apart, *close], 10, 8, 3)[start:start + 8]}
        assert len(passages) <= 3


def test_all_documents_come_in_any_order() -> None:
    found = on_all_documents(RECORDS, 40, 6, 1)
    assert all(set(record.documents) == set(PASSAGES) for record in found)
    assert {record.documents.index(PASSAGES[0]) for record in found} == {0, 1, 2}


def test_records_that_state_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="--train_data: no document states the answer"):
        on_one_passage(RECORDS[5:], 1, 2, 1)


@pytest.mark.parametrize("compressor_type", ["n_layers", "llm"])
def test_the_command_trains_a_compressor_of_a_pretrained_generator(compressor_type: str, tmp_path: Path,
                                                                   capsys: pytest.CaptureFixture) -> None:
    write_records(tmp_path / "real.json", RECORDS)
    flags = ["--train_data", str(tmp_path / "real.json"), "--pretrained", "--compressor_type", compressor_type,
             "--generator_model", tiny.generator_folder(tmp_path / "generator"), "--output_dir", str(tmp_path / "out"),
             "--passage_steps", "2", "--question_steps", "1", "--device", "cpu"]
    assert main(flags) == 0
    assert f"done: {tmp_path / 'out' / 'questions' / 'final'}" in capsys.readouterr().out
    model = ScaleDownModel.from_pretrained(tmp_path / "out" / "questions" / "final")
    assert model.config.input_order == "document_first" and model.config.memory_init == "reply"
    assert main(flags) == 0
    assert capsys.readouterr().out.count("done already") == 2


def test_an_encoder_of_a_pretrained_generator_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_records(tmp_path / "real.json", RECORDS)
    assert main(["--train_data", str(tmp_path / "real.json"), "--pretrained", "--compressor_type", "modernbert",
                 "--generator_model", "embedded"]) == 2
    assert "--pretrained is for compressors made of the generator" in capsys.readouterr().err
