"""The embedded world's reranking teacher: how it reads a pair, that it trains, and that it serves as a teacher."""

from __future__ import annotations

import pytest

from lab.embedded import reranker
from scaledown.data.reranking.cross_encoder import Reranker, RerankerConfig
from scaledown.hub import load_tokenizer
from scaledown.prompt import Prompt

SMALL = ["--num_name_questions", "4", "--num_questions", "4", "--num_candidates", "3", "--batch_size", "4"]


def test_lessons_are_questions_with_each_of_their_documents():
    config = reranker.RerankerTrainingConfig(num_name_questions=3, num_questions=5, num_candidates=4)
    names, found = reranker.lessons(config)
    assert [names, found] == list(reranker.lessons(config))
    assert 2 * 3 <= len(names) <= 4 * 3 and sum(pair["label"] for pair in names) == 3
    assert len(found) == 20 and 5 <= sum(pair["label"] for pair in found) <= 10
    assert len({pair["query"] for pair in found}) == 5
    assert max(len(pair["document"].split()) for pair in names) < min(len(pair["document"].split()) for pair in found)


def test_it_trains_and_scores_as_a_teacher(tmp_path, capsys):
    folder = tmp_path / "teacher"
    assert reranker.main(["--output_dir", str(folder), *SMALL]) == 0
    shown = capsys.readouterr().out
    assert f"--reranker_model {folder}" in shown and "trained up to step" in shown and "{" not in shown
    teacher = Reranker(RerankerConfig(str(folder)))
    read = teacher.cross_encoder.tokenizer("Who?", "Ada did.").input_ids
    plain = load_tokenizer("embedded")
    question, line_end, document = (plain(part).input_ids for part in ("Who?", "\n", "Ada did."))
    assert read == [*question, *line_end, *document, *Prompt(plain).reply]
    long, short = ("Who is the mayor of Garwick?", "Garwick elected Ada. " * 9), ("Who?", "Ada")
    alone = [dict(teacher.scores([pair]))[0] for pair in (long, short)]
    assert [dict(teacher.scores([long, short]))[number] for number in (0, 1)] == pytest.approx(alone, abs=1e-4)
    assert reranker.main(["--output_dir", str(folder), *SMALL]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["num_name_questions", "num_questions", "num_candidates", "batch_size",
                                  "learning_rate"])
def test_a_setting_that_cannot_be_is_refused(flag, tmp_path, capsys):
    assert reranker.main(["--output_dir", str(tmp_path / "x"), f"--{flag}", "0"]) == 2
    assert f"--{flag}" in capsys.readouterr().err and not (tmp_path / "x").exists()
