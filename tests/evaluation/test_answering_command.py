"""The command that measures checkpoints: the same figures as the evaluator's, and what it leaves when it is stopped."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import tiny
import torch

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.config import EvaluationConfig
from scaledown.data.records import Record, write_records
from scaledown.evaluation.answering import __main__ as answering
from scaledown.evaluation.answering import comparison_table, pairs_table
from scaledown.evaluation.answering.tuned_text import TUNED, best_passage
from scaledown.evaluation.evaluator import AnsweredQuestion, SystemResult, evaluate_system
from scaledown.evaluation.metrics import AnswerScores
from scaledown.evaluation.systems import FULL_TEXT, SCALEDOWN, WITHOUT_QUERY, keeping
from scaledown.training import run

RECORDS = [Record("a", "who came?", ("Ada came", "Bob left"), "Ada"), Record("b", "where?", ("in Oslo",), "Oslo"),
           Record("c", "when?", ("in May", "in June"), "June")]
SETTINGS = EvaluationConfig(eval_examples=2, max_new_tokens=3, bootstrap_resamples=20)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    folder, names = tiny.generator_folder(root / "generator"), []
    for number in (1, 2):
        torch.manual_seed(number)
        names.append(str(root / f"checkpoint-{number}"))
        ScaleDownModel(ScaleDownConfig(folder, num_layers=number, num_memory_tokens=2)).save_pretrained(names[-1])
    return names


def argv(checkpoints, tmp_path, *flags):
    write_records(tmp_path / "records.json", RECORDS)
    return ["--checkpoint", *checkpoints, "--eval_data", str(tmp_path / "records.json"), "--eval_examples", "2",
            "--max_new_tokens", "3", "--bootstrap_resamples", "20", "--device", "cpu",
            "--output_file", str(tmp_path / "figures.json"), *flags]


def test_figures_are_the_evaluator_s(checkpoints, tmp_path, capsys):
    assert answering.main(argv(checkpoints, tmp_path, "--untrained")) == 0
    found = json.loads((tmp_path / "figures.json").read_text())["systems"]
    one, other = checkpoints
    assert list(found) == ["no_documents", "truncated_text", "full_text", f"{one} (not trained)", one,
                           f"{other} (not trained)", other]
    model = ScaleDownModel.from_pretrained(one, device="cpu")
    for name, system in (("full_text", FULL_TEXT), (one, SCALEDOWN)):
        assert found[name] == evaluate_system(model, system, RECORDS[:2], SETTINGS, progress=False).summary()
    new = run.build_model(ScaleDownModel.from_pretrained(other).config, "cpu", 42)
    expected = evaluate_system(new, SCALEDOWN, RECORDS[:2], SETTINGS, progress=False).summary()
    assert found[f"{other} (not trained)"] == expected
    lines = capsys.readouterr().out.splitlines()
    assert "2 questions" in lines[0] and "1.5 documents each" in lines[0]
    labels = [comparison_table.LABELS.get(name, name) for name in found]
    assert labels[:3] == ["no documents, untuned", "cut text, untuned", "full text, untuned"]
    starts = [line.split("  ")[0] for line in lines]
    places = [starts.index(label) for label in labels]
    assert places == sorted(places), "each system's row begins with its whole name"


@pytest.fixture(scope="module")
def tuned_text(checkpoints):
    root = Path(checkpoints[0]).parent
    model = ScaleDownModel(ScaleDownConfig(str(root / "generator"), compressor_type="none", num_memory_tokens=2))
    tiny.move_adapter(model)
    model.save_pretrained(root / "tuned")
    return str(root / "tuned")


def test_text_read_by_a_tuned_generator_stands_beside_scaledown(checkpoints, tuned_text, tmp_path, capsys):
    flags = argv([checkpoints[0], tuned_text], tmp_path, "--untrained")
    assert answering.main(flags) == 0
    written = json.loads((tmp_path / "figures.json").read_text())
    tuned = [f"{tuned_text} ({label})" for label in ("full text, tuned", "cut text, tuned", "best passage, tuned")]
    assert list(written["systems"]) == ["no_documents", "truncated_text", "full_text",
                                        f"{checkpoints[0]} (not trained)", checkpoints[0], *tuned]
    said = capsys.readouterr().out
    assert all(name in said for name in tuned)
    lengths = [written["systems"][name]["mean_prompt_tokens"] for name in ("truncated_text", "full_text", *tuned)]
    cut, whole, tuned_whole, tuned_cut, tuned_best = lengths
    assert (tuned_whole, tuned_cut) == (whole, cut) and cut < tuned_best < whole


def test_tuned_text_is_read_with_the_adapter_and_untuned_without(tuned_text):
    model = ScaleDownModel.from_pretrained(tuned_text)
    questions, documents = [record.query for record in RECORDS], [list(record.documents) for record in RECORDS]
    system = TUNED["full text, tuned"]
    assert model.decode(system.prefill(model, questions, documents, None), 3) == model.answer(
        questions, documents, max_new_tokens=3)
    untuned = model.decode(FULL_TEXT.prefill(model, questions, documents, None), 3)
    assert untuned != model.answer(questions, documents, max_new_tokens=3)


def test_the_best_passage_has_the_question_s_words():
    texts = ["Bob left for Paris.", "Ada came to Oslo in May.", "Nobody came."]
    assert best_passage("Who came to Oslo?", texts) == ["Ada came to Oslo in May."]
    assert best_passage("Why?", texts) == texts[:1] and best_passage("Why?", []) == []


def test_every_pair_of_systems_is_compared_once(checkpoints, tmp_path, capsys):
    assert answering.main(argv(checkpoints, tmp_path)) == 0
    written, said = json.loads((tmp_path / "figures.json").read_text()), capsys.readouterr().out
    names = list(written["systems"])
    assert {frozenset((pair["system"], pair["other"])) for pair in written["pairs"]} == set(
        map(frozenset, itertools.combinations(names, 2)))
    assert len(written["pairs"]) == len(names) * (len(names) - 1) // 2
    for pair in written["pairs"]:
        means = [written["systems"][pair[side]]["token_f1_avg"] for side in ("system", "other")]
        assert pair["token_f1"]["difference"] == pytest.approx(means[0] - means[1])
    assert f"{checkpoints[0]} against full text, untuned" in said and "cut text, untuned against full" not in said


def test_a_system_by_itself_has_no_pairs(checkpoints, tmp_path, capsys):
    assert answering.main(argv(checkpoints[:1], tmp_path, "--no-baselines")) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["pairs"] == []
    assert "all pairs" not in capsys.readouterr().out


def answered(name, scores):
    """A system's answers with these exact matches, in the order of the questions."""
    questions = tuple(AnsweredQuestion(str(number), "who?", ("x",), "x", AnswerScores(score, score, score, score), 9, 1)
                      for number, score in enumerate(scores))
    return SystemResult(name, {}, questions)


def test_pairs_are_better_a_tie_or_worse():
    found = {"full_text": answered("full_text", [0.0] * 30), "a": answered("a", [1.0] * 12 + [0.0] * 18),
             "b": answered("b", [0.0] + [1.0] * 12 + [0.0] * 17), "c": answered("c", [0.0] * 29 + [1.0])}
    lines = pairs_table.table(pairs_table.pairs(found, 200, 1), {"full_text": "text"}).splitlines()
    rows = {line[:line.index("  ")]: line.split() for line in lines if " against " in line}
    assert list(rows) == ["a against text", "b against text", "b against a", "c against text", "c against a",
                          "c against b"]
    assert [rows[name][-1] for name in rows] == ["better", "better", "tie", "tie", "worse", "worse"]
    assert rows["a against text"][3:] == ["+0.400", "below", "0.001", "better", "+0.400",
                                            "below", "0.001", "better"]


def test_documents_that_a_checkpoint_keeps_are_measured_beside_all(tmp_path, capsys):
    torch.manual_seed(1)
    scoring = ScaleDownModel(ScaleDownConfig(tiny.generator_folder(tmp_path / "generator"), num_layers=1,
                                             num_memory_tokens=2, enable_reranking=True, keep_threshold=0.0))
    scoring.save_pretrained(tmp_path / "scoring")
    flags = argv([str(tmp_path / "scoring")], tmp_path, "--no-baselines", "--keep_documents", "1", "auto")
    assert answering.main(flags) == 0
    name, found = str(tmp_path / "scoring"), json.loads((tmp_path / "figures.json").read_text())["systems"]
    assert list(found) == [name, f"{name} (1 kept)", f"{name} (auto kept)"]
    assert found[f"{name} (1 kept)"] == evaluate_system(scoring, keeping(1), RECORDS[:2], SETTINGS,
                                                        progress=False).summary()
    assert found[f"{name} (1 kept)"]["mean_prompt_tokens"] < found[name]["mean_prompt_tokens"]
    for wrong in ("0", "two"):
        with pytest.raises(SystemExit):
            answering.main([*flags[:-1], wrong])
        assert "--keep_documents" in (said := capsys.readouterr().err) and "above 0" in said


@pytest.mark.parametrize("flags", [("--keep_documents", "1"), ("--text_documents", "1"), ("--expand", "1")])
def test_a_later_checkpoint_s_fault_is_told_before_any_answers(checkpoints, tmp_path, capsys, flags):
    torch.manual_seed(1)
    able = ScaleDownModel(ScaleDownConfig(tiny.generator_folder(tmp_path / "generator"), num_memory_tokens=2,
                                          enable_reranking=True, keep_threshold=0.0, expand_threshold=0.5))
    able.save_pretrained(tmp_path / "able")
    assert answering.main(argv([str(tmp_path / "able"), checkpoints[0]], tmp_path, *flags)) == 2
    said = capsys.readouterr().err
    assert f"{flags[0]} with --checkpoint {checkpoints[0]}" in said and "reranking head" in said
    assert not (tmp_path / "figures.json").exists(), "nothing was measured"


def test_what_the_query_is_worth_is_measured_on_the_same_questions(checkpoints, tmp_path, capsys):
    """Beside the memory that has read the query, with the paired difference; the prompts are equally long."""
    name = checkpoints[0]
    assert answering.main(argv([name], tmp_path, "--no-baselines", "--without_query")) == 0
    written = json.loads((tmp_path / "figures.json").read_text())
    assert list(written["systems"]) == [name, f"{name} (without query)"]
    model = ScaleDownModel.from_pretrained(name, device="cpu")
    found = evaluate_system(model, WITHOUT_QUERY, RECORDS[:2], SETTINGS, progress=False)
    assert written["systems"][f"{name} (without query)"] == found.summary()
    documents = [list(record.documents) for record in RECORDS[:2]]
    assert [question.prediction for question in found.questions] == model.answer(
        [record.query for record in RECORDS[:2]], memory=model.compress(None, documents), max_new_tokens=3)
    assert found.mean_prompt_tokens == written["systems"][name]["mean_prompt_tokens"]
    pair, = written["pairs"]
    assert (pair["system"], pair["other"]) == (f"{name} (without query)", name)
    assert f"{name} (without query) against {name}" in capsys.readouterr().out


def test_a_checkpoint_that_does_not_score_keeps_nothing(checkpoints, tmp_path, capsys):
    assert answering.main(argv(checkpoints, tmp_path, "--keep_documents", "1")) == 2
    assert "--enable_reranking" in (said := capsys.readouterr().err) and checkpoints[0] in said


def test_what_is_measured_is_written_at_once(checkpoints, tmp_path, monkeypatch):
    evaluate = comparison_table.evaluate_system

    def stopped(model, system, *rest):
        if system is FULL_TEXT:
            raise KeyboardInterrupt
        return evaluate(model, system, *rest)

    monkeypatch.setattr(comparison_table, "evaluate_system", stopped)
    assert answering.main(argv(checkpoints, tmp_path)) == 130
    assert list(json.loads((tmp_path / "figures.json").read_text())["systems"]) == ["no_documents", "truncated_text"]


def test_questions_of_the_embedded_world():
    standard, hard, ten, long = (answering.load_records(None, name, 4, 1) for name in answering.WORLD)
    assert {len(record.documents) for record in standard} == {5} and {len(record.documents) for record in ten} == {10}
    assert [record.query for record in long] == [record.query for record in standard]
    for record, filled in zip(standard, long, strict=True):
        assert all(text in other for text, other in zip(record.documents, filled.documents, strict=True))
    assert hard != standard


@pytest.mark.parametrize(("flags", "message"), [
    (["--checkpoint", "nobody/nothing"], "nobody/nothing"), (["--eval_data", "none.json"], "none.json"),
    (["--eval_examples", "0"], "--eval_examples"),
    (["--output_file", "."], "--output_file .: Is a directory"),
    (["--output_file", f"{__file__}/x"], "--output_file")])
def test_a_mistake_is_told(flags, message, capsys):
    assert answering.main(flags) == 2
    assert message in capsys.readouterr().err
