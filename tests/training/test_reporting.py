"""The curves of a training go where ``--report_to`` says, and a launch file does not change what is computed.

wandb and trackio are stand-ins here, which write down each call: they are not among the requirements.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers.integrations import TrackioCallback, WandbCallback

import train
from scaledown.config import TrainingConfig
from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.model import ScaleDownModel

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3
COMMON = """
calls = []


class Settings(dict):
    def update(self, values, allow_val_change=False):
        pass


class Space:
    def get(self):
        return None


class context_vars:
    current_space_id = Space()


class Run:
    summary = {}

    def _label(self, code):
        pass


run, config = None, Settings()


def init(**settings):
    global run
    calls.append(("init", settings["project"]))
    run = Run()


def log(values):
    calls.append(("log", values))


def finish(exit_code=0):
    global run
    calls.append(("finish", exit_code))
    run = None
"""


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    write_records(folder / "data.json", list(synthetic_records(4, seed=3)))
    return ["--train_data", str(folder / "data.json"), "--generator_model", tiny.generator_folder(folder / "generator"),
            "--num_memory_tokens", "2", "--compression_rate", "64", "--batch_size", "2", "--max_steps", str(STEPS),
            "--logging_steps", "1", "--save_steps", "100", "--lora_dropout", "0", "--device", "cpu"]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put stand-ins of both packages where Python, and whoever asks for their versions, finds them."""
    place = tmp_path / "packages"
    for name in ("wandb", "trackio"):
        for folder in (place / name / "sdk" / "lib", place / f"{name}-1.0.dist-info"):
            folder.mkdir(parents=True)
        (place / name / "__init__.py").write_text(COMMON)
        (place / name / "sdk" / "lib" / "config_util.py").write_text("class ConfigError(Exception):\n    pass\n")
        (place / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
        for module in [each for each in sys.modules if each.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(place)
    yield
    for module in [each for each in sys.modules if each.split(".")[0] in ("wandb", "trackio")]:
        del sys.modules[module]


def event_files(folder: Path) -> list[Path]:
    return list(folder.rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_every_logged_loss_is_reported_and_the_run_is_closed(name: str, flags: list[str], programs: None,
                                                             tmp_path: Path) -> None:
    assert train.main([*flags, "--report_to", name, "--output_dir", str(tmp_path / "run")]) == 0
    calls = sys.modules[name].calls
    reported = [values["train/loss"] for kind, values in calls if kind == "log" and "train/loss" in values]
    assert len(reported) == STEPS and all(map(math.isfinite, reported))
    assert calls[0] == ("init", "huggingface") and ("finish", 0) in calls
    assert not event_files(tmp_path)
    # A run may go on and report elsewhere.
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["report_to"] == name
    assert train.main([*flags, "--output_dir", str(tmp_path / "run"), "--resume", "--report_to", "none"]) == 0


@pytest.mark.parametrize(("name", "callback", "code"), [("wandb", WandbCallback, 1), ("trackio", TrackioCallback, 0)])
def test_a_training_that_fails_closes_its_run(name: str, callback: type, code: int, flags: list[str], programs: None,
                                              tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ScaleDownModel, batch: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(ScaleDownModel, "forward", broken)
    with pytest.raises(RuntimeError, match="broken"):
        train.main([*flags, "--report_to", name, "--output_dir", str(tmp_path / "run")])
    assert sys.modules[name].calls[-1] == ("finish", code)


def test_the_curves_go_to_tensorboard_or_nowhere(flags: list[str], tmp_path: Path) -> None:
    assert train.main([*flags, "--output_dir", str(tmp_path / "default")]) == 0
    assert train.main([*flags, "--report_to", "none", "--output_dir", str(tmp_path / "none")]) == 0
    assert event_files(tmp_path / "default") and not event_files(tmp_path / "none")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_program_that_is_not_installed_is_told_before_anything_is_read(name: str, tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch,
                                                                         capsys: pytest.CaptureFixture) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    # The folder that a run of wandb leaves is no package.
    (tmp_path / name).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert train.main(["--train_data", "nowhere.json", "--report_to", name]) == 2
    assert f"--report_to {name} needs {name}: pip install {name}" in capsys.readouterr().err
    TrainingConfig(report_to="none")


def test_a_launch_file_starts_a_training_and_leaves_the_arithmetic_to_dtype(flags: list[str], tmp_path: Path) -> None:
    """A file as ``accelerate config`` writes it, for one process, which asks for another number format."""
    file = tmp_path / "launch.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
    subprocess.run([sys.executable, "-m", "accelerate.commands.accelerate_cli", "config", "default", "--config_file",
                    str(file)], check=True, capture_output=True, cwd=ROOT)
    file.write_text(file.read_text().replace('"mixed_precision": "no"', '"mixed_precision": "bf16"'))
    assert "bf16" in file.read_text()

    assert train.main([*flags, "--output_dir", str(tmp_path / "alone")]) == 0
    done = subprocess.run([*launch, "train.py", *flags, "--output_dir", str(tmp_path / "launched")], cwd=ROOT,
                          capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "mixed_precision bf16 of accelerate's file is left out: --dtype decides, and here it is float32" in (
        done.stdout)
    alone, launched = (load_file(tmp_path / run / "final" / "compressor.safetensors") for run in ("alone", "launched"))
    torch.testing.assert_close(launched, alone, atol=1e-6, rtol=0)
