"""Choosing documents by their scores: which are kept, in which order, and that only those shape the answer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.data.world.candidates import ranking_records
from scaledown.data.world.synthetic import GOLD_SCORE
from scaledown.evaluation.calibration import __main__ as calibration
from scaledown.evaluation.calibration.__main__ import mean_kept, threshold_for
from scaledown.models.memory import Memory
from scaledown.models.serving.choosing import documents_to_keep

QUESTIONS = ["Who was born in London?", "where", "What is the capital of Norway?"]
DOCUMENTS = [["Ada Lovelace was born in London.", "Oslo", "Paris is a town", "1815"], [],
             ["The capital is Oslo.", "no"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    config = ScaleDownConfig(tiny.generator_folder(root / "generator"), num_layers=2, num_memory_tokens=3,
                             enable_reranking=True)
    torch.manual_seed(0)
    ScaleDownModel(config).save_pretrained(root / "checkpoint")
    return root / "checkpoint"


@pytest.fixture
def model(folder):
    return ScaleDownModel.from_pretrained(folder)


def memory(scores):
    counts = torch.tensor([len(row) - row.count(None) for row in scores])
    rows = []
    for row in scores:
        rows.append([-torch.inf if score is None else score for score in row])
    padded = torch.tensor(rows)
    return Memory(torch.arange(padded.numel()).float().view(*padded.shape, 1, 1), padded, counts)


HAND_MADE = memory([[0.5, 2.0, -1.0, 2.0], [None] * 4, [-3.0, -2.0, None, None]])


@pytest.mark.parametrize(("keep", "wanted"), [
    (None, [[0, 1, 2, 3], [], [0, 1]]), (1, [[1], [], [1]]), (3, [[1, 3, 0], [], [1, 0]]),
    (9, [[1, 3, 0, 2], [], [1, 0]]), ("auto", [[1, 3, 0], [], [1]])])
def test_which_are_kept(keep, wanted):
    assert documents_to_keep(HAND_MADE, keep, threshold=0.5) == wanted


def test_memory_keeps_what_is_named_in_that_order():
    found = HAND_MADE.keep([[3, 1], [], [0]])
    assert found.embeddings.flatten(1).tolist() == [[3, 1], [0, 0], [8, 0]]
    assert found.scores.tolist() == [[2.0, 2.0], [-torch.inf] * 2, [-3.0, -torch.inf]]
    assert found.num_documents.tolist() == [2, 0, 1]


@pytest.mark.parametrize(("documents", "message"), [
    ([[-1], [], [0]], r"question 0 has no documents \[-1\], only 4 of them, counted from 0"),
    ([[4], [0], [9]], r"question 0 has no documents \[4\].*; question 2 has no documents \[9\]"),
    ([[0]], "3 questions, but documents to keep for 1"),
    ([0, 1, 2], "must be a list of numbers for each question"),
    ([["0"], [], []], "must be a list of numbers for each question"),
])
def test_memory_refuses_numbers_that_it_does_not_have(documents, message):
    with pytest.raises(ValueError, match=message):
        HAND_MADE.keep(documents)


def test_numbers_may_be_arrays_as_a_search_gives_them():
    of_lists, of_arrays = HAND_MADE.keep([[3], [], [0]]), HAND_MADE.keep([torch.tensor([3]), [], np.array([0])])
    assert torch.equal(of_lists.embeddings, of_arrays.embeddings)


@pytest.mark.parametrize("keep", [1, 2, "auto"])
def test_only_the_best_documents_shape_the_answer(model, keep):
    scores = [model.rerank(question, each)[1] for question, each in zip(QUESTIONS, DOCUMENTS, strict=True)]
    model.config = dataclasses.replace(model.config, keep_threshold=sum(sorted(scores[0])[:2]) / 2)
    answers = model.answer_with_sources(QUESTIONS, DOCUMENTS, keep_documents=keep, max_new_tokens=6, batch_size=2)
    for question, documents, known, answer in zip(QUESTIONS, DOCUMENTS, scores, answers, strict=True):
        chosen = [documents[number] for number in answer.documents]
        assert answer.text == model.answer([question], [chosen], max_new_tokens=6)[0]
        assert answer.scores == pytest.approx([known[number] for number in answer.documents], abs=1e-5)
        assert list(answer.scores) == sorted(answer.scores, reverse=True)
    assert [len(answer.documents) for answer in answers][:2] == [{1: 1, 2: 2, "auto": 3}[keep], 0]
    texts = [answer.text for answer in answers]
    assert model.answer(QUESTIONS, DOCUMENTS, keep_documents=keep, max_new_tokens=6) == texts
    compressed = model.compress(QUESTIONS, DOCUMENTS)
    assert model.answer(QUESTIONS, memory=compressed, keep_documents=keep, max_new_tokens=6) == texts


def test_without_a_limit_documents_stay_in_the_order_given(model):
    first, second, _ = model.answer_with_sources(QUESTIONS, DOCUMENTS, max_new_tokens=2)
    assert first.documents == (0, 1, 2, 3) and second == dataclasses.replace(second, documents=(), scores=())
    assert first.scores == pytest.approx(model.rerank(QUESTIONS[0], DOCUMENTS[0])[1], abs=1e-5)


@pytest.mark.parametrize("keep", [0, -1, "all", True])
def test_what_cannot_be_kept_is_refused(model, keep):
    with pytest.raises(ValueError, match="keep_documents must be a whole number above 0 or 'auto'"):
        model.answer(QUESTIONS, DOCUMENTS, keep_documents=keep)


def test_a_model_that_cannot_choose_says_so(model, folder):
    with pytest.raises(ValueError, match=r"scaledown\.evaluation\.calibration"):
        model.answer(QUESTIONS, DOCUMENTS, keep_documents="auto")
    config = dataclasses.replace(model.config, enable_reranking=False)
    with pytest.raises(ValueError, match="--enable_reranking"):
        ScaleDownModel(config).answer(QUESTIONS, DOCUMENTS, keep_documents=2)


def test_the_threshold_is_the_highest_that_keeps_enough():
    run = {"a": {"x": 3.0, "y": 1.0, "z": 2.0}, "b": {"x": 0.0, "y": -5.0}, "c": {}}
    qrels = {"a": {"x": 1, "y": 2, "z": 0}, "b": {"x": 1, "lost": 1}}
    assert threshold_for(run, qrels, 1.0) == 0.0
    assert threshold_for(run, qrels, 0.66) == 1.0
    assert threshold_for(run, qrels, 0.3) == 3.0
    assert mean_kept(run, 1.0) == 2.0, "three of a's, and one of b's because one is always kept"
    with pytest.raises(ValueError, match="nothing to calibrate"):
        threshold_for(run, {"a": {"x": 0}}, 0.9)


def test_the_command_writes_the_threshold_into_the_checkpoint(folder, capsys):
    argv = ["--checkpoint", str(folder), "--eval_examples", "3", "--num_candidates", "4"]
    assert calibration.main([*argv, "--recall", "0"]) == 2
    assert "--recall" in capsys.readouterr().err
    assert ScaleDownConfig.load(folder).keep_threshold is None
    before = ScaleDownConfig.load(folder)
    assert calibration.main([*argv, "--recall", "1"]) == 0
    found = ScaleDownConfig.load(folder)
    assert found == dataclasses.replace(before, keep_threshold=found.keep_threshold)
    model = ScaleDownModel.from_pretrained(folder)
    assert model.answer(QUESTIONS, DOCUMENTS, keep_documents="auto", max_new_tokens=2)


def test_the_checkpoint_that_ships_finds_what_answers():
    """A relevant one is the first for 99 of 100 questions, by chance it would be for 7, and it answers 97."""
    model = ScaleDownModel.from_pretrained("embedded")
    records = list(ranking_records(10, 5, "eval"))
    best = [model.rerank(record.query, record.documents)[0][0] for record in records]
    assert sum(record.reranking_scores[place] == GOLD_SCORE
               for record, place in zip(records, best, strict=True)) >= 8
    answers = model.answer([record.query for record in records], [record.documents for record in records],
                           keep_documents="auto", max_new_tokens=16)
    assert sum(answer == record.answer for answer, record in zip(answers, records, strict=True)) >= 8
