"""A reranking head learns from scores: without any it is refused, with few it is told, and a checkpoint counts them."""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
from pathlib import Path

import pytest
import tiny
import tiny_encoders
from huggingface_hub import HfApi, ModelCard

import train
import train_with_evaluation
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import write_records
from scaledown.data.reranking import __main__ as reranking
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.loading import model_card, training_progress
from scaledown.models.loading.training_progress import TrainingProgress
from scaledown.models.model import ScaleDownModel
from scaledown.training import run

QUICK = ["--batch_size", "2", "--max_steps", "4", "--num_memory_tokens", "2", "--compression_rate", "8", "--device",
         "cpu"]
MEASURED = ["--eval_examples", "2", "--timed_queries", "1", "--max_new_tokens", "2", "--bootstrap_resamples", "5"]
RECORDS = list(synthetic_records(4, seed=3))
NUM_SCORES = 2 * sum(len(record.documents) for record in RECORDS)
"""In four steps of two: each record is seen twice."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Records with scores and without, each with an evaluation half, and a generator."""
    others = list(synthetic_records(2, seed=3, split="eval"))
    for name, records in (("scored", RECORDS), ("scored_eval", others)):
        write_records(tmp_path / f"{name}.json", records)
        plain = [dataclasses.replace(record, reranking_scores=None) for record in records]
        write_records(tmp_path / f"{name.replace('scored', 'plain')}.json", plain)
    tiny.generator_folder(tmp_path / "generator")
    return tmp_path


def flags(place: Path, data: str, output: str, *more: str) -> list[str]:
    return ["--train_data", str(place / f"{data}.json"), "--generator_model", str(place / "generator"),
            "--output_dir", str(place / output), *QUICK, *more]


def counted(folder: Path) -> dict[str, int]:
    values = json.loads((folder / training_progress.FILE).read_text())
    return {name: value for name, value in values.items() if name.startswith("num_")}


@pytest.mark.parametrize("script", [train, train_with_evaluation], ids=["train", "train_with_evaluation"])
def test_a_head_without_scores_is_refused_and_the_command_that_is_named_makes_them(
        script: object, place: Path, capsys: pytest.CaptureFixture) -> None:
    argv = flags(place, "plain", "run", "--enable_reranking", *(MEASURED if script is train_with_evaluation else []))
    assert script.main(argv) == 2
    told = capsys.readouterr().err
    assert f"none of the 4 records in {place / 'plain.json'} has reranking_scores" in told
    assert not (place / "run").exists()
    command, = (line for line in told.splitlines() if "scaledown.data.reranking" in line)
    named = shlex.split(command)
    assert named[:3] == ["python", "-m", "scaledown.data.reranking"]
    assert reranking.main([*named[3:], "--reranker_model", tiny_encoders.cross_encoder(place / "reranker")]) == 0
    argv[1] = named[-1]
    assert script.main([*argv, "--eval_data", str(place / "plain_eval.json")]) == 0


@pytest.mark.parametrize(("more", "message"), [
    (["--train_data", "scored.json", "--reranking_loss_weight", "0"], "--reranking_loss_weight 0 contradict"),
    (["--pretrain_steps", "1", "--pretrain_data", "scored.json"], "pretraining has no scores to learn from")])
def test_other_ways_to_learn_nothing_are_refused(more: list[str], message: str, place: Path,
                                                 monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(place)
    assert train.main(["--generator_model", "generator", "--output_dir", "run", "--enable_reranking", *QUICK, *more]
                      ) == 2
    assert message in capsys.readouterr().err and not (place / "run").exists()


def test_few_scores_are_told_by_the_run_its_report_and_the_card(place: Path, capsys: pytest.CaptureFixture) -> None:
    argv = flags(place, "scored", "run", "--enable_reranking", *MEASURED)
    assert train_with_evaluation.main(argv) == 0
    few = f"the reranking head was trained on {NUM_SCORES} scores, which is few"
    assert f"warning: {few}" in capsys.readouterr().out
    assert few in (place / "run" / "report.md").read_text()
    assert few in (place / "run" / "checkpoints" / "final" / model_card.FILE).read_text()
    report = json.loads((place / "run" / "metrics_report.json").read_text())
    assert any(few in note for note in report["notes"])

    # What was measured stands in the checkpoint that was measured, too, and stays there.
    final = place / "run" / "checkpoints" / "final"
    ScaleDownModel.from_pretrained(final).save_pretrained(place / "copy")
    for folder in (final, place / "copy"):
        card = ModelCard.load(folder / model_card.FILE)
        shown = {result.metric_type: result.metric_value for result in card.data.eval_results}
        assert shown["token_f1"] == pytest.approx(report["after_training"]["token_f1_avg"], abs=1e-4)
        low, high = report["baselines"]["full_text"]["token_f1_ci95"]
        assert f"[{low:.2f}, {high:.2f}]" in card.text and "On 2 questions of scored_eval.json" in card.text
        assert "Data: scored.json." in card.text


def test_enough_scores_are_no_matter(place: Path, monkeypatch: pytest.MonkeyPatch,
                                     capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(training_progress, "FEW_SCORES", NUM_SCORES)
    assert train.main(flags(place, "scored", "run", "--enable_reranking")) == 0
    assert "the reranking head" not in capsys.readouterr().out
    assert "Note" not in (place / "run" / "final" / model_card.FILE).read_text()


@pytest.mark.parametrize("parts", ["1", "2"])
def test_steps_and_scores_are_counted_once_also_by_a_run_that_went_on(parts: str, place: Path) -> None:
    argv = flags(place, "scored", "run", "--enable_reranking", "--save_steps", "1", "--gradient_accumulation_steps",
                 parts)
    assert train.main(argv) == 0
    whole = {"num_steps": 4, "num_scores": NUM_SCORES, "num_steps_since_scores": 0}
    assert counted(place / "run" / "final") == whole
    assert counted(place / "run" / "checkpoint-3")["num_steps"] == 3
    for path in (place / "run" / "final", place / "run" / "checkpoint-4"):
        path.rename(path.with_name("gone-" + path.name))
    assert train.main([*argv, "--resume"]) == 0
    assert counted(place / "run" / "final") == whole


def test_a_head_below_which_the_compressor_moves_is_told(place: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(training_progress, "FEW_SCORES", 1)
    assert train.main(flags(place, "scored", "first", "--enable_reranking")) == 0
    start = str(place / "first" / "final")
    assert train.main(flags(place, "plain", "second", "--init_compressor", start)) == 0
    told = capsys.readouterr().out
    assert "warning: the model has a reranking head, which learns nothing here" in told
    assert "warning: the reranking head was not trained in the last 4 steps" in told
    assert counted(place / "second" / "final") == {"num_steps": 8, "num_scores": NUM_SCORES,
                                                   "num_steps_since_scores": 4}
    assert "in the last 4 steps" in (place / "second" / "final" / model_card.FILE).read_text()
    again = flags(place, "scored", "third", "--init_compressor", str(place / "second" / "final"),
                  "--reranking_loss_weight", "0")
    assert train.main(again) == 0
    assert "learns nothing here" in capsys.readouterr().out
    assert counted(place / "third" / "final")["num_steps_since_scores"] == 8
    assert train.main(flags(place, "plain", "fourth", "--init_compressor", start, "--enable_reranking")) == 2


def test_a_new_head_on_a_trained_model_has_seen_no_scores(place: Path) -> None:
    assert train.main(flags(place, "plain", "first")) == 0
    config = ScaleDownConfig(str(place / "generator"), num_memory_tokens=2, compression_rate=8, enable_reranking=True)
    model = run.build_model(config, "cpu", 1, str(place / "first" / "final"))
    assert model.progress == TrainingProgress(4, 0, 0, ("plain.json",))
    (place / "first" / "final" / training_progress.FILE).unlink()
    assert run.build_model(config, "cpu", 1, str(place / "first" / "final")).progress == TrainingProgress(None, 0, 0)


def test_a_threshold_goes_with_the_scores_that_it_was_found_for(place: Path, capsys: pytest.CaptureFixture) -> None:
    config = ScaleDownConfig("embedded", memory_norm=True, num_layers=4, lora_dropout=0.0)
    assert ScaleDownModel.from_pretrained("embedded").config.keep_threshold is not None
    model = run.build_model(config, "cpu", 1, "embedded")
    assert model.config.keep_threshold is model.processor.config.keep_threshold is None
    assert "the keep_threshold of embedded, 5.252, is left out" in capsys.readouterr().out
    new = run.build_model(dataclasses.replace(config, generator_model=str(place / "generator"), num_layers=2,
                                              keep_threshold=2.5), "cpu", 1)
    assert new.config.keep_threshold is new.processor.config.keep_threshold is None


@pytest.mark.parametrize("script", [train, train_with_evaluation], ids=["train", "train_with_evaluation"])
def test_a_run_from_a_checkpoint_with_a_head_resumes_without_scores(place: Path, tmp_path: Path, script) -> None:
    config = ScaleDownConfig(str(place / "generator"), num_memory_tokens=2, num_layers=1, enable_reranking=True)
    ScaleDownModel(config).save_pretrained(tmp_path / "start")
    records = [dataclasses.replace(record, reranking_scores=None) for record in synthetic_records(4, seed=3)]
    write_records(tmp_path / "data.json", records)
    write_records(tmp_path / "held_out.json", records)
    out = ["--output_dir", str(tmp_path / "run")]
    assert script.main(["--train_data", str(tmp_path / "data.json"), "--eval_data", str(tmp_path / "held_out.json"),
                        "--init_compressor", str(tmp_path / "start"), "--batch_size", "2", "--max_steps", "2",
                        "--device", "cpu", *out]) == 0
    assert script.main(["--resume", *out]) == 0


def test_an_untrained_head_is_told_when_it_is_loaded(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = ScaleDownConfig(str(place / "generator"), num_memory_tokens=2, enable_reranking=True)
    ScaleDownModel(config).save_pretrained(place / "new")
    with caplog.at_level(logging.WARNING):
        ScaleDownModel.from_pretrained(place / "new")
    assert "was trained on no scores: its ranking of documents says little" in caplog.text
    caplog.clear()
    (place / "new" / training_progress.FILE).unlink()  # an older checkpoint: nobody counted
    with caplog.at_level(logging.WARNING):
        assert ScaleDownModel.from_pretrained(place / "new").progress == TrainingProgress(None, None, None)
    assert not caplog.records


@pytest.mark.parametrize("text", ["{", "[]", '{"num_scores": "many"}', '{"num_tokens": 1}', '{"results": 7}',
                                  '{"results": {"eval_data": null, "num_questions": 1, "averages": [["a", "b", 1]]}}'])
def test_a_damaged_count_is_named(text: str, place: Path) -> None:
    ScaleDownModel(ScaleDownConfig(str(place / "generator"), num_memory_tokens=2)).save_pretrained(place / "new")
    (place / "new" / training_progress.FILE).write_text(text)
    with pytest.raises(ValueError, match=training_progress.FILE):
        ScaleDownModel.from_pretrained(place / "new")


def test_the_card_says_on_what_a_checkpoint_stands() -> None:
    config = ScaleDownConfig("me/base", generator_revision="abc", num_layers=3, num_memory_tokens=4)
    card = ModelCard(model_card.card(config, TrainingProgress(12, 0, 0), 3456, {}))
    assert card.data.base_model == "me/base" and card.data.license is None and "licence is not known" in card.text
    assert "`me/base` at `abc`" in card.text and "first 3 layers" in card.text and "64 tokens becomes 4" in card.text
    assert "3,456 weights" in card.text and "Steps: 12." in card.text and "reranking" not in card.text
    local = dataclasses.replace(config, generator_model="./base", generator_revision=None, compressor_type="llm",
                                num_layers=None, compressor_model="embedded", enable_reranking=True)
    card = ModelCard(model_card.card(local, TrainingProgress(None, 0, None), 1, {}))
    assert card.data.base_model is None and "not known" in card.text and "trained on no scores" in card.text
    encoder = model_card.card(dataclasses.replace(local, compressor_type="modernbert"), TrainingProgress(), 1, {})
    assert "an encoder made from the generator's first layers" in encoder


def test_a_card_that_the_hub_has_already_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **options: None)
    monkeypatch.setattr(HfApi, "file_exists", lambda self, repo_id, name: repo_id == "me/old")
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **options: sent.append(options["ignore_patterns"]))
    model = ScaleDownModel(ScaleDownConfig(str(place / "generator"), num_memory_tokens=2))
    for name in ("me/old", "me/new"):
        model.push_to_hub(name)
    assert sent == [["README.md"], None]


def test_a_training_from_python_counts_too(place: Path) -> None:
    model = ScaleDownModel(ScaleDownConfig(str(place / "generator"), num_memory_tokens=2, enable_reranking=True))
    run.train(model, TrainingConfig(batch_size=4, max_steps=1), RECORDS, place / "run")
    assert model.progress == TrainingProgress(1, NUM_SCORES // 2, 0)


@pytest.mark.parametrize(("values", "message"), [
    ({"results": {"averages": [], "eval_data": None, "num_questions": float("inf")}}, "its results are not those"),
    ({"results": {"averages": [["a", "b", 10**400, 1, 1]], "eval_data": None, "num_questions": 1}}, "its results"),
    ({"num_steps": -5, "num_scores": -1}, "num_steps must be at least 0, got -5; num_scores must be at least 0"),
    ({"query_dropout": float("nan")}, "query_dropout must be from 0 to 1, got nan"),
])
def test_progress_that_no_training_wrote_is_told_with_its_file(values, message, tmp_path):
    (tmp_path / "training.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"training.json: {message}"):
        TrainingProgress.load(tmp_path)
