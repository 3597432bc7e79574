"""The lessons of the checkpoint smollm2, and its command on a generator of a few thousand weights."""

from __future__ import annotations

from collections import Counter

import pytest
import tiny

from lab.smollm2.__main__ import LessonSteps, main, stages
from lab.smollm2.lessons import IRRELEVANT, RELEVANT, Lesson, records_of
from scaledown import ScaleDownModel
from scaledown.data.answers import padded
from scaledown.data.records import Record, write_records
from scaledown.models.processor import UNSTATED

TOWNS = ("Oslo", "Rome", "Lima", "Cairo", "Quito", "Delhi")


def passage(number: int) -> str:
    town = TOWNS[number % len(TOWNS)]
    return f"Person {number} was born in {town} in the year {1900 + number} and sold {number + 2000} clocks."


def question(number: int, kind: str) -> Record:
    near = [passage((number + step) % 12) for step in (1, 2, 3)]
    answer = {"year": str(1900 + number), "clocks": str(number + 2000)}[kind]
    documents = (near[0], passage(number), *near[1:])
    return Record(f"{kind}-{number}", f"Which {kind} of person {number}?", documents, answer)


RECORDS = [question(number // 2, ("year", "clocks")[number % 2]) for number in range(24)]


def original(record: Record) -> str:
    return record.id.rsplit("-", 1)[0]


def test_every_question_comes_once_before_any_comes_again():
    made = records_of(Lesson((1, 2)), RECORDS, num_steps=6, batch_size=8, seed=3)
    assert len(made) == 48 and len({record.id for record in made}) == 48
    assert Counter(map(original, made[:24])) == Counter(record.id for record in RECORDS)
    assert Counter(map(original, made)) == Counter({record.id: 2 for record in RECORDS})
    assert made == records_of(Lesson((1, 2)), RECORDS, 6, 8, 3), "a resumed run gets the same ones"
    assert made[:8] == records_of(Lesson((1, 2)), RECORDS, 1, 8, 3), "a longer run begins like a shorter one"


def test_a_step_reads_few_passages():
    made = records_of(Lesson((1, 2, 3)), RECORDS, num_steps=3, batch_size=8, seed=0)
    for start in range(0, 24, 8):
        read: set[str] = set()
        for record in made[start:start + 8]:
            read.update(record.documents)
        assert len(read) <= 5, "8 questions are about 4 passages, or 5 where a step begins with the rest of one"


def test_each_record_has_its_passage_and_others_that_do_not_answer():
    lesson = Lesson((1, 2, 3, 4), own_share=0.5)
    for record in records_of(lesson, RECORDS, num_steps=6, batch_size=8, seed=1):
        gold = [padded(record.answer) in padded(document) for document in record.documents]
        assert gold.count(True) == 1
        assert record.reranking_scores == tuple(RELEVANT if is_gold else IRRELEVANT for is_gold in gold)
        assert len(set(record.documents)) == len(record.documents) <= 4


def test_without_the_passage_the_answer_is_unknown():
    made = records_of(Lesson((3,), unanswered_share=0.5, own_share=1.0), RECORDS, 6, 8, 2)
    unanswered = [record for record in made if record.answer == UNSTATED]
    assert 10 < len(unanswered) < 38
    by_id = {record.id: record for record in RECORDS}
    for record in unanswered:
        wanted = padded(by_id[original(record)].answer)
        assert record.answers == (UNSTATED,) and not any(wanted in padded(each) for each in record.documents)
        assert set(record.reranking_scores) == {IRRELEVANT} and len(record.documents) == 3


def test_records_without_an_answer_in_their_documents_are_refused():
    with pytest.raises(ValueError, match="no document states the answer"):
        records_of(Lesson((1,)), [Record("1", "Who?", ("Nobody knows.",), "Ada")], 1, 4, 0)


def test_the_first_stage_trains_the_compressor_alone_and_stages_of_no_steps_are_left_out():
    first, second, third = stages(RECORDS, LessonSteps(2, 2, 2))
    assert first.training.readout_steps == 2 and not second.training.readout_steps + third.training.readout_steps
    assert [stage.name for stage in stages(RECORDS, LessonSteps(0, 0, 2))] == ["documents"]
    assert len(first.records(None)) == 2 * first.training.batch_size


def test_the_command_trains_and_a_second_call_goes_on(tmp_path, capsys):
    generator = tiny.generator_folder(tmp_path / "generator", tie_word_embeddings=True)
    write_records(tmp_path / "records.json", RECORDS)
    argv = ["--train_data", str(tmp_path / "records.json"), "--generator_model", generator, "--device", "cpu",
            "--output_dir", str(tmp_path / "run"), "--passage_steps", "1", "--answer_steps", "1",
            "--document_steps", "1"]
    assert main(argv) == 0
    assert main(argv) == 0
    assert "documents: done already" in capsys.readouterr().out
    model = ScaleDownModel.from_pretrained(tmp_path / "run" / "checkpoint")
    assert model.config.soft_tokens and model.progress.num_steps == 3
    assert isinstance(model.answer("Which year of person 1?", [passage(1)]), str)
