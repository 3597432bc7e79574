"""The metrics against values worked out by hand and against SQuAD's published definitions."""

from __future__ import annotations

import dataclasses
import random
import re
import string

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from scaledown.evaluation.evaluator import AnswerMetric
from scaledown.evaluation.metrics import (
    METRICS,
    AnswerScores,
    UnicodeTokenizer,
    accuracy,
    bootstrap_ci95,
    exact_match,
    normalise,
    rouge_l,
    score_answer,
    summarise,
    token_f1,
)


@pytest.mark.parametrize(("text", "expected"), [
    ("The  Eiffel-Tower!", "eiffeltower"), ("a cat, an owl and the dog", "cat owl and dog"), ("Theatre", "theatre"),
    ("the", ""), (" \n\t", ""), ("U.S.", "us"), ("Ἀθῆναι", "ἀθῆναι"), ("a-b the.c", "ab thec"), ("“Paris”", "“paris”"),
])
def test_normalise_is_squads(text: str, expected: str) -> None:
    assert normalise(text) == expected


def reference_normalise(text: str) -> list[str]:
    """SQuAD's four steps in their order, each spelt out."""
    lowered = "".join(character.lower() for character in text)
    bare = "".join(character for character in lowered if character not in set(string.punctuation))
    return [word for word in re.split(r"\s+", re.sub(r"\b(a|an|the)\b", " ", bare)) if word]


def reference_f1(prediction: str, reference: str) -> float:
    """SQuAD 2.0's F1 from precision and recall, counting shared tokens by crossing them off."""
    predicted, expected = reference_normalise(prediction), reference_normalise(reference)
    if not predicted or not expected:
        return float(predicted == expected)
    left, shared = list(expected), 0
    for token in predicted:
        if token in left:
            left.remove(token)
            shared += 1
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def random_answers(num_pairs: int) -> list[tuple[str, str]]:
    words = ["the", "a", "an", "The", "Rome,", "rome", "x-y", "xy", "!", "", "1889", "été", "北京", "b", "\t", "A.",
             "th"]
    draw = random.Random(7)

    def answer() -> str:
        return " ".join(draw.choices(words, k=draw.randrange(6)))

    return [(answer(), answer()) for _ in range(num_pairs)]


def test_exact_match_and_f1_follow_squads_definitions() -> None:
    for prediction, reference in random_answers(3000):
        assert exact_match(prediction, reference) == (reference_normalise(prediction) == reference_normalise(reference))
        assert token_f1(prediction, reference) == pytest.approx(reference_f1(prediction, reference))


def test_f1_counts_repeated_words() -> None:
    assert token_f1("b b b", "b b c") == pytest.approx(2 / 3)
    assert token_f1("in Paris, France", "Paris") == pytest.approx(0.5)
    assert token_f1("Rome", "Paris") == 0


def test_rouge_l_is_rouge_scores_own_on_ascii() -> None:
    scorer = RougeScorer(["rougeL"])
    words = ["the", "Cat", "sat", "on", "x_y", "mat.", "1,889", "--"]
    draw = random.Random(3)
    for _ in range(300):
        prediction, reference = (" ".join(draw.choices(words, k=draw.randrange(1, 7))) + " end" for _ in range(2))
        assert rouge_l(prediction, reference) == scorer.score(reference, prediction)["rougeL"].fmeasure


def test_rouge_l_by_hand() -> None:
    assert rouge_l("the cat sat", "the dog sat down") == pytest.approx(2 * 2 / (3 + 4))
    assert rouge_l("sat cat the", "the cat sat") == pytest.approx(1 / 3)


@pytest.mark.parametrize("text", ["Ἀθῆναι", "Москва", "北京", "القاهرة", "नई दिल्ली", "Reykjavík", "กรุงเทพ"])
def test_every_script_is_read(text: str) -> None:
    assert score_answer(text, [text]) == AnswerScores(1, 1, 1, 1)
    assert score_answer("x", [text]) == AnswerScores(0, 0, 0, 0)
    assert UnicodeTokenizer().tokenize(text)


def test_rouge_l_keeps_words_of_accented_and_indic_scripts_whole() -> None:
    words = UnicodeTokenizer().tokenize("नई दिल्ली, Café_au-lait 北京")
    assert words == ["नई", "दिल्ली", "café", "au", "lait", "北", "京"]


@pytest.mark.parametrize(("prediction", "reference", "expected"), [
    ("It is in Paris.", "Paris", 1), ("It is the art of war", "Art of War", 1), ("a party", "art", 0),
    ("Paris", "Paris, France", 0), ("12 1889", "188", 0), ("首都是北京。", "北京", 1), ("首都是南京。", "北京", 0),
    ("Paris", "the", 0), ("", "the", 1), ("", "Paris", 0), ("York, New", "New York", 0),
])
def test_accuracy_is_containment_of_whole_words(prediction: str, reference: str, expected: float) -> None:
    assert accuracy(prediction, reference) == expected


def test_each_metric_takes_its_best_reference() -> None:
    scores = score_answer("the red fox", ["fox", "a red wolf ran", "red Fox"])
    assert scores == AnswerScores(exact_match=1, token_f1=1, rouge_l=pytest.approx(0.8), accuracy=1)
    scores = score_answer("red wolf", ["wolf", "red wolf ran far"])
    assert scores.token_f1 == pytest.approx(2 / 3) and scores.accuracy == 1 and scores.exact_match == 0


def test_empty_answers_follow_squad_2() -> None:
    nothing = AnswerScores(0, 0, 0, 0)
    assert score_answer("", ["Paris"]) == nothing
    assert score_answer("", ["Paris", "the"]) == nothing, "an alias that normalises to nothing is no way to be right"
    assert score_answer("", []) == score_answer("", [""]) == AnswerScores(1, 1, 1, 1)
    assert score_answer("Paris", []) == nothing
    assert score_answer("!", ["?"]) == AnswerScores(1, 1, 1, 1)


def test_an_answer_that_is_an_article_is_right_as_itself() -> None:
    assert score_answer("A", ["A"]) == score_answer("The", ["the"]) == AnswerScores(1, 1, 1, 1)
    assert score_answer("B", ["A"]) == AnswerScores(0, 0, 0, 0)
    assert score_answer("A", ["A", "Vitamin A"]) == AnswerScores(0, 0, 1, 0), "SQuAD leaves out what becomes empty"


@pytest.mark.parametrize(("prediction", "reference"), [
    ("北京。", "北京"), ("「東京」", "東京"), ("القاهرة؟", "القاهرة"), ("दिल्ली।", "दिल्ली"),
    ("\ud83d Oslo", "\ud83d oslo")])
def test_punctuation_of_every_script_is_left_out(prediction: str, reference: str) -> None:
    assert score_answer(prediction, [reference]) == AnswerScores(1, 1, 1, 1)
    assert score_answer(f"x {prediction} y", [reference]).accuracy == 1


@pytest.mark.parametrize(("prediction", "references"), [(None, ["x"]), ("x", [None]), (3, ["x"]), ("x", ["y", b"x"])])
def test_what_is_no_text_is_refused(prediction: object, references: list) -> None:
    with pytest.raises(TypeError, match="must be strings, got"):
        score_answer(prediction, references)


def test_a_string_of_references_is_refused() -> None:
    with pytest.raises(TypeError, match="list of strings"):
        score_answer("Paris", "Paris")


def test_bootstrap_is_seeded_and_near_the_normal_interval() -> None:
    values = np.array([[1.0, 0.5]] * 300 + [[0.0, 0.5]] * 100)
    interval = bootstrap_ci95(values, 2000, seed=1)
    assert interval.shape == (2, 2)
    half_width = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert interval[0] == pytest.approx([0.75 - half_width, 0.75 + half_width], abs=0.006)
    assert interval[1] == pytest.approx([0.5, 0.5])
    spread_out = np.random.default_rng(0).random((400, 1))
    assert (bootstrap_ci95(spread_out, 50, seed=1) == bootstrap_ci95(spread_out, 50, seed=1)).all()
    assert (bootstrap_ci95(spread_out, 50, seed=1) != bootstrap_ci95(spread_out, 50, seed=2)).all()


def test_bootstrap_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((50, 4))
    whole = bootstrap_ci95(values, 100, seed=5)
    monkeypatch.setattr("scaledown.evaluation.metrics.COUNTS_AT_ONCE", 50 * 7)
    assert bootstrap_ci95(values, 100, seed=5) == pytest.approx(whole)


def test_summary_has_the_reports_keys() -> None:
    summary = summarise([AnswerScores(1, 0.5, 0.25, 1), AnswerScores(0, 0.5, 0.75, 1)], 100, seed=0)
    assert [summary[f"{metric}_avg"] for metric in METRICS] == [0.5, 0.5, 0.5, 1]
    assert summary["exact_match_ci95"] == [0, 1] and summary["accuracy_ci95"] == [1, 1] and summary["n"] == 2
    keys = [f"{metric}_avg" for metric in METRICS] + [f"{metric}_ci95" for metric in METRICS]
    assert set(summary) == {"n", *keys}
    with pytest.raises(ValueError, match="empty"):
        summarise([], 100, seed=0)


def test_every_metric_has_its_field_in_the_same_order() -> None:
    assert list(METRICS) == [field.name for field in dataclasses.fields(AnswerScores)]


PREDICTIONS = ["Paris", "in Rome", "x", "Москва", ""]
REFERENCES = [["paris"], ["Rome", "Roma"], ["y"], ["Москва"], ["z"]]


def test_the_metric_of_evaluate_gives_the_summary_and_the_scores(tmp_path) -> None:
    scores = [score_answer(*pair) for pair in zip(PREDICTIONS, REFERENCES, strict=True)]
    metric = AnswerMetric(cache_dir=str(tmp_path))
    for prediction, accepted in zip(PREDICTIONS, REFERENCES, strict=True):
        metric.add_batch(predictions=[prediction], references=[accepted])
    result = metric.compute(num_resamples=60, bootstrap_seed=9)
    assert result.pop("scores") == scores and result == summarise(scores, 60, seed=9)
    assert result["exact_match_avg"] == 0.4 and result["accuracy_avg"] == 0.6
