"""Lessons made of real records, and the compressor that goes through them."""

from __future__ import annotations

import pytest

from lab.embedded.real_compressors import main
from lab.embedded.real_lessons import passages, phrases, sentences
from scaledown.data.answers import holds_answer, padded
from scaledown.data.records import Record, write_records
from scaledown.models.model import ScaleDownModel

RIVERS = ("The river Ner rises in the hills of Łódź and flows past nine mills. Boats have not used it since 1911. "
          "Its largest tributary is the Dobrzynka, which freezes in most winters.")
TOWERS = ("The Tower of Hercules was built by the Romans at A Coruña. Sailors still steer by its lamp today. "
          "It was restored by the engineer Eustaquio Giannini in 1791.")
BRIDGES = ("Two stone bridges cross the Avon near the abbey of Bath. One of them carries shops on both of its sides. "
           "The architect Robert Adam finished the drawings for it in 1770.")
RECORDS = [Record("rivers", "When did boats last use the Ner?", (RIVERS, TOWERS, BRIDGES), "1911", ("1911",)),
           Record("towers", "Who restored the Tower of Hercules?", (BRIDGES, TOWERS, RIVERS), "Eustaquio Giannini",
                  ("Eustaquio Giannini", "Giannini")),
           Record("yes", "Is the sea salt?", (BRIDGES, RIVERS), "yes", ("yes",)),
           Record("bare", "Is the sea blue?", (), "yes", ("yes",))]


def holding(record: Record) -> list[str]:
    return [document for document in record.documents if holds_answer(padded(document), [padded(record.answer)])]


def test_passages_keep_the_other_wordings_of_an_answer():
    own = [each for each in passages(RECORDS, 50, 1, (1, 3), 0.0) if each.query == RECORDS[1].query]
    assert own and all(each.answers == RECORDS[1].answers for each in own)


def test_phrases_ask_for_the_words_that_follow_in_the_one_that_has_them():
    for record in phrases(RECORDS, 200, seed=1):
        assert 1 <= len(record.documents) <= 4 and all(3 <= len(each.split()) <= 9 for each in record.documents)
        assert sum(f"{record.query} {record.answer}" in document for document in record.documents) == 1
        assert 1 <= len(record.query.split()) <= 2 and 1 <= len(record.answer.split()) <= 4


def test_sentences_are_of_one_records_documents_and_one_answers():
    found = sentences(RECORDS, 200, seed=1)
    text = f"{RIVERS} {TOWERS} {BRIDGES}"
    assert all(2 <= len(record.documents) <= 4 for record in found)
    assert all(document in text for record in found for document in record.documents)
    assert all(holding(record) for record in found)
    asked = [record.query.endswith("?") for record in found]
    assert 60 <= sum(asked) <= 140
    assert all(len(holding(record)) == 1 for record, is_blank in zip(found, asked, strict=True) if is_blank)
    assert not any(record.query.endswith("?") for record in sentences(RECORDS, 50, seed=1, blank_share=0.0))


def test_passages_ask_blanks_or_the_records_own_questions():
    found = passages(RECORDS, 200, seed=1, num_documents=(1, 3), blank_share=0.5)
    own = [record for record in found if record.query in {each.query for each in RECORDS}]
    assert 60 <= len(own) <= 140 and {record.query for record in own} == {RECORDS[0].query, RECORDS[1].query}
    assert {len(record.documents) for record in found} == {1, 2, 3}
    assert all(len(set(record.documents)) == len(record.documents) and holding(record) for record in found)
    assert {record.documents.index(holding(record)[0]) for record in own} == {0, 1, 2}
    assert not any(record.query == own[0].query for record in passages(RECORDS, 50, 1, (1, 3), blank_share=1.0))


@pytest.mark.parametrize("make", [phrases, sentences, lambda *args: passages(*args, (1, 3), 0.5)])
def test_lessons_depend_on_the_seed_alone(make):
    assert make(RECORDS, 30, 4) == make(RECORDS, 30, 4) != make(RECORDS, 30, 5)


@pytest.mark.parametrize("make", [phrases, sentences, lambda *args: passages(*args, (1, 3), 0.5)])
def test_records_that_make_no_question_are_refused(make):
    with pytest.raises(ValueError, match="--train_data"):
        make([Record("short", "Is it?", ("Yes.", "No."), "perhaps")], 3, 1)


FEW = ["--phrase_steps", "1", "--sentence_steps", "1", "--passage_steps", "1", "--question_steps", "1"]


@pytest.mark.parametrize(("compressor_type", "order"), [("n_layers", "document_first"), ("modernbert", "query_first"),
                                                      ("llm", "document_first")])
def test_the_command_takes_a_compressor_through_the_lessons_and_goes_on(tmp_path, capsys, compressor_type, order):
    write_records(tmp_path / "real.json", RECORDS)
    flags = ["--train_data", str(tmp_path / "real.json"), "--generator_model", "embedded", "--compressor_type",
             compressor_type, "--device", "cpu", "--output_dir", str(tmp_path / "out"), *FEW]
    assert main(flags) == 0
    assert f"done: {tmp_path / 'out' / 'questions' / 'final'}" in capsys.readouterr().out
    model = ScaleDownModel.from_pretrained(tmp_path / "out" / "questions" / "final")
    assert model.config.input_order == order and model.config.memory_init == "reply"
    assert len(model.answer(["Who?"], [[RIVERS, TOWERS]], max_new_tokens=2)) == 1
    assert main(flags) == 0
    assert capsys.readouterr().out.count("done already") == 4
    assert main([*flags, "--seed", "7"]) == 2


@pytest.mark.parametrize("flag", FEW[::2])
def test_steps_below_one_are_refused(flag, tmp_path, capsys):
    assert main(["--train_data", str(tmp_path / "x.json"), "--generator_model", "embedded", flag, "0"]) == 2
    assert flag in capsys.readouterr().err
