"""Answers that read text where the generator is unsure: who is asked again, with what, and what it costs."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch
from transformers import LogitsProcessorList

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.data.records import Record, write_records
from scaledown.evaluation.answering import __main__ as answering
from scaledown.evaluation.answering.text_beside_memory import expanding, with_text_of
from scaledown.evaluation.calibration import __main__ as calibration
from scaledown.evaluation.calibration.unsure import judged_answers, summary, unsure_threshold
from scaledown.evaluation.evaluator import answer_batch
from scaledown.models.serving.expanding import FirstTokenProbability

QUESTIONS = ["Who was born in London?", "where", "What is the capital of Norway?"]
DOCUMENTS = [["Ada Lovelace was born in London.", "Oslo", "Paris is a town", "1815"], [],
             ["The capital is Oslo.", "no"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(tiny.generator_folder(root / "generator"), num_layers=2, num_memory_tokens=3,
                                           enable_reranking=True))
    tiny.move_adapter(model)
    model.save_pretrained(root / "checkpoint")
    return root / "checkpoint"


@pytest.fixture
def model(folder):
    return ScaleDownModel.from_pretrained(folder)


def test_a_sure_generator_answers_from_memory_alone(model):
    found = model.answer_expanding(QUESTIONS, DOCUMENTS, threshold=0.0, max_new_tokens=5, batch_size=2)
    memory = model.compress(QUESTIONS, DOCUMENTS)
    prompts = model.prefill(QUESTIONS, memory)
    texts = model.decode(prompts, 5)
    assert [answer.text for answer in found] == [answer.first_text for answer in found] == texts
    for number, answer in enumerate(found):
        assert answer.text_documents == answer.document_ids == ()
        assert answer.num_prompt_tokens == (prompts.num_prompt_tokens[number],)
        assert answer.num_new_tokens == (prompts.num_new_tokens[number],)


def test_the_probability_is_that_of_the_first_token(model):
    found = model.answer_expanding(QUESTIONS, DOCUMENTS, threshold=0.0, max_new_tokens=5, batch_size=3)
    logits = tiny.first_logits(model.generator, model.prompts(QUESTIONS, model.compress(QUESTIONS, DOCUMENTS)))
    wanted = logits.softmax(-1).max(-1).values.tolist()
    assert [answer.probability for answer in found] == pytest.approx(wanted, rel=1e-4)


def test_an_unsure_one_reads_the_best_documents(model):
    """All are unsure here; a question without documents has nothing to read."""
    found = model.answer_expanding(QUESTIONS, DOCUMENTS, threshold=1.0, text_documents=2, max_new_tokens=5,
                                   batch_size=2)
    expected = model.answer_with_sources(QUESTIONS, DOCUMENTS, text_documents=2, max_new_tokens=5)
    first = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=5)
    assert [answer.text for answer in found] == [answer.text for answer in expected]
    assert [answer.first_text for answer in found] == first and first != [answer.text for answer in found]
    assert [answer.text_documents for answer in found] == [answer.text_documents for answer in expected]
    assert found[0].document_ids == tuple(expected[0].document_ids[number] for number in found[0].text_documents)
    assert [len(answer.num_prompt_tokens) for answer in found] == [2, 1, 2]
    whole = model.prefill_text(QUESTIONS[2], DOCUMENTS[2], with_adapter=True).num_prompt_tokens
    assert found[2].num_prompt_tokens[1:] == tuple(whole)


def test_only_those_below_the_threshold_are_asked_again(model):
    sure = model.answer_expanding(QUESTIONS, DOCUMENTS, threshold=0.0, max_new_tokens=5)
    low, high = sorted((sure[0].probability, sure[2].probability))
    model.config = dataclasses.replace(model.config, expand_threshold=(low + high) / 2)
    memory = model.compress(QUESTIONS, DOCUMENTS)
    for found in (model.answer_expanding(QUESTIONS, DOCUMENTS, max_new_tokens=5),
                  model.answer_expanding(QUESTIONS, DOCUMENTS, memory, max_new_tokens=5)):
        assert [bool(answer.text_documents) for answer in found] == [
            sure[0].probability == low, False, sure[2].probability == low]
    one = model.answer_expanding(QUESTIONS[0], DOCUMENTS[0], max_new_tokens=5)
    assert one.text == found[0].text and one.text_documents == found[0].text_documents


def test_a_processor_of_the_user_s_is_kept(model):
    class Noted(FirstTokenProbability):
        pass

    noted = Noted()
    model.answer_expanding(QUESTIONS[0], DOCUMENTS[0], threshold=0.0, max_new_tokens=2,
                           logits_processor=LogitsProcessorList([noted]))
    assert noted.probabilities.shape == (1,)


def test_what_cannot_be_expanded_is_refused(model, folder):
    with pytest.raises(ValueError, match="--find expand_threshold"):
        model.answer_expanding(QUESTIONS, DOCUMENTS)
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        model.answer_expanding(QUESTIONS, DOCUMENTS, threshold=2)
    with pytest.raises(ValueError, match="text_documents must be a whole number above 0"):
        model.answer_expanding(QUESTIONS, DOCUMENTS, threshold=0.5, text_documents=0)
    with pytest.raises(ValueError, match="num_beams must be 1"):
        model.answer_expanding(QUESTIONS, DOCUMENTS, threshold=0.5, num_beams=2)
    silent = ScaleDownModel(dataclasses.replace(model.config, enable_reranking=False))
    with pytest.raises(ValueError, match="--enable_reranking"):
        silent.answer_expanding(QUESTIONS, DOCUMENTS, threshold=0.5)


def test_the_threshold_is_the_lowest_that_catches_enough():
    judged = [(0.9, True), (0.2, False), (0.5, False), (0.6, True), (0.7, False), (0.3, True)]
    assert unsure_threshold(judged, 0.3) == pytest.approx(0.25), "between the wrong 0.2 and the right 0.3"
    assert unsure_threshold(judged, 0.5) == pytest.approx(0.55)
    assert unsure_threshold(judged, 1.0) == pytest.approx(0.8)
    assert unsure_threshold([(0.4, False)], 1.0) == pytest.approx(0.7), "halfway to certainty"
    assert "2 of 3 wrong answers, and 1 of 3 right ones: 50%" in summary(judged, 0.55)
    with pytest.raises(ValueError, match="all 1 answers are right"):
        unsure_threshold([(0.9, True)], 0.8)


def test_a_recall_that_no_threshold_meets_is_told():
    judged = [(1.0, False), (0.5, False), (0.4, False), (0.9, True)]
    assert unsure_threshold(judged, 0.6) == pytest.approx(0.7)
    with pytest.raises(ValueError, match="1 of 3 have a probability of 1; the highest --recall to ask for is 0.666"):
        unsure_threshold(judged, 0.9)


def test_a_recall_is_counted_without_errors_of_floating_point():
    judged = [(number / 1000, False) for number in range(100)]
    assert unsure_threshold(judged, 0.55) == pytest.approx(0.0545), "between the 55th wrong answer and the 56th"


def test_answers_are_judged_by_what_they_hold(model):
    said = model.answer_expanding(QUESTIONS[0], DOCUMENTS[0], threshold=0.0)
    records = [Record("a", QUESTIONS[0], tuple(DOCUMENTS[0]), said.text),
               Record("b", QUESTIONS[0], tuple(DOCUMENTS[0]), "something else")]
    assert judged_answers(model, records) == [(pytest.approx(said.probability), True),
                                              (pytest.approx(said.probability), False)]


def test_the_command_writes_the_threshold_beside_the_other(folder, capsys):
    argv = ["--checkpoint", str(folder), "--eval_examples", "3", "--find", "expand_threshold"]
    before = ScaleDownConfig.load(folder)
    assert calibration.main([*argv, "--corpus_path", "x", "--queries_file", "y", "--qrels_file", "z"]) == 2
    assert "--corpus_path, --queries_file, --qrels_file gives queries without answers" in capsys.readouterr().err
    assert calibration.main(argv) == 0
    found = ScaleDownConfig.load(folder)
    assert found == dataclasses.replace(before, expand_threshold=found.expand_threshold)
    assert 0 < found.expand_threshold < 1 and "3 of 3 wrong answers" in capsys.readouterr().out
    model = ScaleDownModel.from_pretrained(folder)
    assert model.answer_expanding(QUESTIONS, DOCUMENTS, max_new_tokens=2)


# The answering command


def test_systems_give_the_model_s_answers_and_count_all_prompts(model):
    records = [Record(f"r{number}", QUESTIONS[number], tuple(DOCUMENTS[number]), "x") for number in (0, 2)]
    asked, documents = [QUESTIONS[0], QUESTIONS[2]], [DOCUMENTS[0], DOCUMENTS[2]]
    texts, state = answer_batch(model, with_text_of(1), records, 5)
    assert texts == model.answer(asked, documents, text_documents=1, max_new_tokens=5)
    model.config = dataclasses.replace(model.config, expand_threshold=1.0)
    texts, state = answer_batch(model, expanding(1), records, 5)
    found = model.answer_expanding(asked, documents, max_new_tokens=5)
    assert texts == [answer.text for answer in found]
    assert state.num_prompt_tokens == [sum(answer.num_prompt_tokens) for answer in found]
    assert state.num_new_tokens == [sum(answer.num_new_tokens) for answer in found]


def test_the_command_measures_texts_and_numbers(folder, tmp_path, capsys):
    records = [Record("a", "who came?", ("Ada came", "Bob left"), "Ada"),
               Record("b", "when?", ("in 1815", "no"), "1815")]
    write_records(tmp_path / "records.json", records)
    argv = ["--checkpoint", str(folder), "--eval_data", str(tmp_path / "records.json"), "--no-baselines", "--device",
            "cpu", "--max_new_tokens", "3", "--bootstrap_resamples", "20"]
    config = dataclasses.replace(ScaleDownConfig.load(folder), expand_threshold=None)
    config.save(folder)
    assert answering.main([*argv, "--expand", "1"]) == 2
    assert f"--expand with --checkpoint {folder}: answer_expanding needs a threshold" in capsys.readouterr().err
    dataclasses.replace(config, expand_threshold=1.0).save(folder)
    assert answering.main([*argv, "--numeric", "--text_documents", "1", "2", "--expand", "1"]) == 0
    said = capsys.readouterr().out
    assert "1 questions of" in said and "with numbers in their answers" in said
    assert all(f"({label})" in said for label in ("text of 1", "text of 2", "text of 1 if unsure"))
    write_records(tmp_path / "records.json", records[:1])
    assert answering.main([*argv, "--numeric"]) == 2
    assert "none of the first 500 questions has an answer with a digit" in capsys.readouterr().err
