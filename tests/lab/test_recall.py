"""Recall by each retriever: what counts as found, the comparison of pairs, and the command over a small corpus."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_encoders

from lab.recall import __main__ as recall
from lab.recall import recall_figures

NUM_QUESTIONS = 6


@pytest.fixture
def flags(tmp_path):
    """Six questions about six articles. All answers are also in one page that is about nothing; of half the articles
    that page alone states them."""
    articles, pages = [], []
    for number in range(NUM_QUESTIONS):
        context = f"The keeper of Lighthouse {number} is Ada{number}."
        articles.append({"title": f"Lighthouse_{number}", "paragraphs": [{"context": context, "qas": [
            {"id": f"q{number}", "question": f"Who is the keeper of Lighthouse {number}?",
             "answers": [{"text": f"Ada{number}", "answer_start": context.index("Ada")}]}]}]})
        told = context if number % 2 else f"Lighthouse {number} has a keeper."
        pages.append({"id": f"d{number}", "title": f"Lighthouse {number}", "text": told})
    everyone = " ".join(f"Ada{number}" for number in range(NUM_QUESTIONS))
    pages.append({"id": "all", "title": "Keeper", "text": f"Keeper of keeper names: {everyone}."})

    (tmp_path / "dev.json").write_text(json.dumps({"data": articles}))
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, pages)))
    return ["--source", str(tmp_path / "dev.json"), "--corpus_path", str(tmp_path / "corpus.jsonl"),
            "--retriever_model", tiny_encoders.dense(tmp_path / "model"), "--generator_model", "embedded",
            "--output_dir", str(tmp_path / "out")]


def test_an_answer_counts_in_any_passage_and_more_strictly_in_one_of_the_article(flags, tmp_path, capsys):
    assert recall.main(flags) == 0
    figures = json.loads((tmp_path / "out" / "recall.json").read_text())
    assert figures["num_questions"] == NUM_QUESTIONS and list(figures["recall"]) == ["bm25", "dense", "hybrid"]
    assert list(figures["differences"]) == ["dense - bm25", "hybrid - bm25", "hybrid - dense"]
    for system in figures["recall"].values():
        by_measure = dict(zip(recall.MEASURES, system["means"], strict=True))
        # With 7 passages all are among the first 20.
        assert by_measure["article", 20] == 0.5 and by_measure["anywhere", 20] == 1
    shown = capsys.readouterr().out
    assert "article @5" in shown and "hybrid - dense" in shown

    # A second start finds everything in the work folder.
    assert recall.main(flags) == 0
    again = capsys.readouterr().out
    assert "cutting" not in again and " into " not in again and again.count("6 of them done before") == 3


def test_pairs_are_compared_question_by_question():
    values, others = np.array([[1.0], [1.0], [1.0], [0.0]]), np.array([[0.0], [0.0], [1.0], [0.0]])
    pair = recall_figures.difference(values, others, seed=0)
    # Two questions that only the first finds: each of the four ways to deal them out is as likely, and two are as far.
    assert pair["means"] == [0.5] and pair["p_values"] == [0.5]
    (low, high), = pair["ci95"]
    assert 0 <= low < 0.5 < high <= 1


def test_mistakes_leave_nothing(flags, tmp_path, capsys):
    for wrong, message in ((["--eval_examples", "0"], "--eval_examples must be above 0"),
                           (["--corpus_path", "nowhere.jsonl"], "--corpus_path nowhere.jsonl"),
                           (["--retriever_model", "./nowhere"], "./nowhere")):
        assert recall.main([*flags, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
