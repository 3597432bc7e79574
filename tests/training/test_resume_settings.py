"""--resume alone: the settings come from the run's own config.json, and flags that contradict it are refused."""

from __future__ import annotations

import json

import pytest

import train
import train_with_evaluation
from scaledown.training import presets

OWN = {"train_data": "x.json", "batch_size": 6, "num_layers": 3, "seed": 5, "device": "cpu", "preset": "laptop",
       "generator_model": "embedded", "resume": False, "overwrite": True, "learning_rate": None,
       "learning_rate_generator": 0.5, "train_memory_tokens": [4, 8], "generator_revision": "0123abc"}


@pytest.fixture
def folder(tmp_path):
    """The folder of a run, which had another name when it was begun."""
    own = OWN | {"output_dir": str(tmp_path / "earlier")}
    (tmp_path / "config.json").write_text(json.dumps({"settings": own, "command": ["train.py"]}))
    return tmp_path


def parse(folder, *flags, script=train):
    return presets.parse(script.build_parser(), ["--resume", "--output_dir", str(folder), *flags])


@pytest.mark.parametrize("script", [train, train_with_evaluation])
def test_the_runs_own_settings_are_taken(folder, script):
    args = parse(folder, script=script)
    taken = {name: getattr(args, name) for name in OWN}
    assert taken == OWN | {"resume": True, "overwrite": False}
    assert args.output_dir == str(folder)


@pytest.mark.parametrize("script", [train, train_with_evaluation])
def test_the_folder_is_the_scripts_own_unless_it_is_named(folder, script, monkeypatch):
    monkeypatch.chdir(folder)
    default = script.build_parser().get_default("output_dir")
    (folder / default).mkdir()
    (folder / "config.json").rename(folder / default / "config.json")
    assert presets.parse(script.build_parser(), ["--resume"]).batch_size == 6


def test_the_same_flags_again_may_be_given(folder):
    args = parse(folder, "--preset", "laptop", "--batch_size", "6", "--train_memory_tokens", "4", "8")
    assert (args.batch_size, args.query_tokens) == (6, presets.PRESETS["laptop"]["query_tokens"])


def test_flags_that_change_no_result_may_be_given(folder):
    args = parse(folder, "--device", "cuda", "--num_workers", "3", "--gradient_accumulation_steps", "2",
                 "--logging_steps", "7")
    assert (args.device, args.num_workers, args.gradient_accumulation_steps, args.logging_steps) == ("cuda", 3, 2, 7)
    assert args.batch_size == 6


def test_flags_that_contradict_the_run_are_refused_together(folder, tmp_path):
    with pytest.raises(ValueError, match="--batch_size was 6, is 7; --preset was 'laptop', is 'paper'. Leave them out"):
        parse(folder, "--batch_size", "7", "--preset", "paper", "--device", "cuda")
    with pytest.raises(ValueError, match="--learning_rate was None, is 0.1"):
        parse(folder, "--learning_rate", "0.1")


def test_a_file_of_settings_that_contradicts_the_run_is_refused(folder, tmp_path):
    (tmp_path / "own.yaml").write_text("seed: 6\nnum_workers: 3\n")
    with pytest.raises(ValueError, match="--seed was 5, is 6"):
        parse(folder, "--config", str(tmp_path / "own.yaml"))
    (tmp_path / "own.yaml").write_text("seed: 5\nnum_workers: 3\n")
    assert parse(folder, "--config", str(tmp_path / "own.yaml")).num_workers == 3


def test_a_branch_is_compared_when_its_commit_is_known(folder):
    assert parse(folder, "--generator_revision", "main").generator_revision == "main"


def test_a_run_that_is_not_there_and_a_damaged_one_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"--resume: no run in .*/nowhere \(it has no config.json\)"):
        parse(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="--resume .*config.json: not valid JSON"):
        parse(tmp_path)
