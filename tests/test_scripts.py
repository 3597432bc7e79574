"""Every script's main(), on tiny models and on the embedded one; and what users' mistakes get."""

from __future__ import annotations

import json
import resource
import shlex
from functools import partial

import pytest
import tiny

import example_usage
import test_training
import train
import train_with_evaluation
from scaledown.data.records import eval_path, write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.training import installation_check, presets
from scaledown.training.presets import demo

QUICK = ["--batch_size", "2", "--max_steps", "2", "--logging_steps", "1", "--num_memory_tokens", "2"]
MEASURED = ["--eval_examples", "4", "--eval_steps", "1", "--timed_queries", "2", "--max_new_tokens", "4",
            "--bootstrap_resamples", "50"]
OUTPUT = ("before_after_comparison.png", "training_curves.png", "speed_comparison.png", "metrics_report.json",
          "before_training_results.json", "after_training_results.json", "baseline_results.json", "report.md",
          "report.html", "memory.png", "config.json",
          "checkpoints/final/config.json")


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "records.json"
    write_records(path, list(synthetic_records(6, seed=3)))
    write_records(eval_path(path), list(synthetic_records(4, seed=3, split="eval")))
    return str(path)


def without(report, *names):
    return {key: value for key, value in report.items() if key not in names}


def without_times(report):
    """A report without what a clock, or the place it was written to, changes."""
    report = without(report, "speed_statistics", "run")
    report["baselines"] = {name: without(row, "times") for name, row in report["baselines"].items()}
    report["training"] = report["training"]["steps"]
    return report


def test_the_main_job_writes_everything_and_one_seed_gives_one_report(generator, data, tmp_path, capsys):
    reports = []
    for name in ("a", "b"):
        folder = tmp_path / name
        assert train_with_evaluation.main([
            "--train_data", data, "--generator_model", generator, "--output_dir", str(folder), *QUICK, *MEASURED]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line[:7] for line in lines if line[1:6] == " of 5"] == [f"{phase} of 5:" for phase in range(1, 6)]
        assert len(lines) < 40 and f"report: {folder / 'report.html'}" in lines[-3] and "done in" in "".join(lines)
        assert all((folder / each).is_file() for each in OUTPUT)
        reports.append(json.loads((folder / "metrics_report.json").read_text()))
    assert without_times(reports[0]) == without_times(reports[1])
    assert any("only 2 optimizer steps" in note for note in reports[0]["notes"])
    for key in ("before_training", "after_training", "improvements", "baselines", "speed_statistics", "cost", "run"):
        assert key in reports[0]
    assert reports[0]["run"]["n"] == 4 and reports[0]["run"]["records"] == {"training": 6, "evaluation": 4}
    assert reports[0]["training"]["steps"] == 2 and reports[0]["training"]["seconds"] > 0
    page = (folder / "report.md").read_text()
    assert "2 steps of 2 records in " in page and "- Data: 6 records of " in page, page[:1500]
    assert reports[0]["run"]["settings"]["num_memory_tokens"] == 2


def test_the_main_job_needs_no_arguments_but_patience(tmp_path):
    assert train_with_evaluation.main(["--output_dir", str(tmp_path), *QUICK, *MEASURED]) == 0
    settings = json.loads((tmp_path / "config.json").read_text())["settings"]
    assert settings["generator_model"] == "embedded" and settings["num_layers"] == 4
    assert settings["learning_rate_generator"] == demo.TRAINING["learning_rate_generator"]

    # --resume alone has the settings of this run.
    resumed = vars(presets.parse(train_with_evaluation.build_parser(), ["--resume", "--output_dir", str(tmp_path)]))
    assert {name: settings[name] for name in resumed} == resumed | {"resume": False}


@pytest.mark.parametrize("compressor", ["n_layers", "modernbert", "llm"])
def test_train_writes_checkpoints_that_answer(generator, data, tmp_path, compressor, capsys):
    made = {"modernbert": tiny.encoder_folder, "llm": partial(tiny.generator_folder, family="qwen2", layers=2)}
    own = ["--compressor_model", made[compressor](tmp_path / "own")] if compressor in made else []
    argv = ["--train_data", data, "--generator_model", generator, "--output_dir", str(tmp_path / "run"),
            "--compressor_type", compressor, "--save_steps", "1", "--enable_reranking", *own, *QUICK]
    assert train.main(argv) == 0
    shown = capsys.readouterr().out
    assert "warning: only 2 optimizer steps" in shown and "on the 4 held-out records: answer loss " in shown
    longer = shown.splitlines()[-1].removeprefix("train it longer: python train.py ")
    assert (tmp_path / "run" / "checkpoint-2" / "config.json").is_file()
    assert example_usage.main(["--checkpoint", str(tmp_path / "run" / "final")]) == 0
    assert "from full text" in capsys.readouterr().out
    assert train.main(argv) == 2
    assert "--resume" in capsys.readouterr().err
    assert train.main([*argv, "--resume"]) == 0
    # The command that was offered.
    assert train.main(shlex.split(longer)) == 0
    assert (tmp_path / "run_longer" / "final" / "config.json").is_file()


def test_the_check_of_an_installation_passes(monkeypatch, capsys):
    monkeypatch.setattr(installation_check, "STEPS", 12)
    assert test_training.main(["--num_examples", "2", "--device", "cpu"]) == 0
    assert "7 of 7 checks hold" in capsys.readouterr().out


def test_the_check_of_an_installation_fails_where_something_is_wrong(monkeypatch, capsys):
    monkeypatch.setattr(installation_check, "STEPS", 2)
    monkeypatch.setattr(installation_check, "_is_alone_as_in_a_batch", lambda model, records: False)
    assert test_training.main(["--num_examples", "2", "--device", "cpu"]) == 1
    assert "neighbours and padding" in capsys.readouterr().out.splitlines()[-1]


def test_a_full_disk_gets_a_message_and_leaves_no_half_checkpoint(generator, data, tmp_path, capsys):
    folder, unlimited = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, unlimited[1]))
    try:
        assert train.main(["--train_data", data, "--generator_model", generator, "--output_dir", str(folder), *QUICK]
                          ) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert "the weights cannot be written" in capsys.readouterr().err
    assert not list(folder.rglob("*.safetensors"))


def broken(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(("flags", "message"), [
    (["--num_layers", "9"], "--num_layers 9"),
    (["--generator_model", "nobody/nothing"], "embedded"),
    (["--device", "gpu"], "--device gpu"),
    (["--batch_size", "0"], "--batch_size"),
    (["--compression_rate", "0"], "--compression_rate"),
    (["--eval_data", "nowhere.json"], "nowhere.json"),
    (["--learning_rate_generator", "nan"], "--learning_rate_generator"),
    (["--seed", "-1"], "--seed"),
    (["--init_compressor", "embedded", "--num_layers", "2"], "--init_compressor embedded is another model"),
    (["--init_compressor", "embedded", "--lora_rank", "3", "--mlp_width", "5", "--query_tokens", "9"],
     "--lora_rank is 3 but 16 there; --mlp_width is 5 but 8096 there; --query_tokens is 9 but 128 there"),
    (["--init_compressor", "embedded", "--compressor_lora_rank", "2"], "--compressor_lora_rank is 2 but None there"),
    (["--init_compressor", "GENERATOR"], "no ScaleDown checkpoint"),
    (["--resume", "--overwrite"], "give one of them"),
    (["--output_dir", "DATA/run"], "this folder cannot be made"),
    (["--eval_steps", "0"], "--eval_steps must be above 0"),
    (["--learning_rate", "-1"], "--learning_rate must be above 0"),
])
@pytest.mark.parametrize("script", [train, train_with_evaluation], ids=["train", "train_with_evaluation"])
def test_a_users_mistake_gets_a_message_and_leaves_nothing(script, flags, message, generator, data, tmp_path, capsys):
    folder = tmp_path / "run"
    flags = [flag.replace("GENERATOR", generator).replace("DATA", data) for flag in flags]
    argv = ["--train_data", data, "--generator_model", generator, "--output_dir", str(folder), *flags]
    assert script.main(argv) == 2
    assert message in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("script", [train, train_with_evaluation], ids=["train", "train_with_evaluation"])
@pytest.mark.parametrize("flags", [["--eval_steps", "x"], ["--device", "quantum"], ["--pad_to_max"]])
def test_a_flag_that_cannot_be_read_is_named(script, flags, data, capsys):
    with pytest.raises(SystemExit) as end:
        script.main(["--train_data", data, *flags])
    assert end.value.code == 2
    assert flags[0] in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nowhere.json", ".", ""])
def test_training_records_that_are_not_there_are_named_before_the_evaluation_half(name, capsys):
    assert train_with_evaluation.main(["--train_data", name]) == 2
    assert "_eval" not in capsys.readouterr().err


@pytest.mark.parametrize(("text", "message"), [
    ("[{", "line 1"), ("[]", "no records"), ('[{"query": "q", "documents": "d"}]', "2 faults")])
def test_broken_records_get_a_message(text, message, generator, tmp_path, capsys):
    argv = ["--train_data", broken(tmp_path, text), "--generator_model", generator, "--output_dir", str(tmp_path / "x")]
    assert train.main(argv) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_missing_evaluation_half_is_named(generator, tmp_path, capsys):
    path = tmp_path / "alone.json"
    write_records(path, list(synthetic_records(2)))
    assert train_with_evaluation.main(["--train_data", str(path), "--generator_model", generator,
                                       "--output_dir", str(tmp_path / "x")]) == 2
    assert "--eval_data" in capsys.readouterr().err


def test_a_named_evaluation_file_that_is_not_there_is_not_asked_for_again(data, capsys):
    assert train_with_evaluation.main(["--train_data", data, "--eval_data", "nowhere.json"]) == 2
    err = capsys.readouterr().err
    assert "nowhere.json" in err and "give them with --eval_data" not in err


@pytest.mark.parametrize(("script", "flags"), [(train, ["--pretrain_steps", "2"]), (train_with_evaluation, [])],
                         ids=["train", "train_with_evaluation"])
def test_evaluation_records_without_training_records_are_refused(script, flags, data, tmp_path, capsys):
    argv = ["--generator_model", "nobody/nothing", "--output_dir", str(tmp_path / "x"), "--eval_data", data, *flags]
    assert script.main(argv) == 2
    assert f"--eval_data {data} needs --train_data" in capsys.readouterr().err
