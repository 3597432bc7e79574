"""The command that measures checkpoints: the same figures as the evaluator's, and what it leaves when it is stopped."""

from __future__ import annotations

import json

import pytest
import tiny
import torch

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.config import EvaluationConfig
from scaledown.data.records import Record, write_records
from scaledown.evaluation.answering import __main__ as answering
from scaledown.evaluation.answering import comparison_table
from scaledown.evaluation.evaluator import evaluate_system
from scaledown.evaluation.systems import FULL_TEXT, SCALEDOWN, keeping
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
    places = [lines.index(next(line for line in lines if line.split("  ")[0] == name)) for name in found]
    assert places == sorted(places), "each system's row begins with its whole name"


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
    assert all(text in other for record, filled in zip(standard, long, strict=True)
               for text, other in zip(record.documents, filled.documents, strict=True))
    assert hard != standard


@pytest.mark.parametrize(("flags", "message"), [
    (["--checkpoint", "nobody/nothing"], "nobody/nothing"), (["--eval_data", "none.json"], "none.json"),
    (["--eval_examples", "0"], "--eval_examples"),
    (["--output_file", "."], "--output_file .: Is a directory"),
    (["--output_file", f"{__file__}/x"], "--output_file")])
def test_a_mistake_is_told(flags, message, capsys):
    assert answering.main(flags) == 2
    assert message in capsys.readouterr().err
