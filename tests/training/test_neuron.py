"""Training on a device named ``neuron`` gives the CPU's losses. A stand-in: not yet run on Trainium hardware."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import train
from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records

ROOT = Path(train.__file__).parent
STEPS = 20


def losses(folder: Path) -> list[float]:
    state = json.loads((folder / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    return [row["loss"] for row in state["log_history"] if "loss" in row]


def test_a_device_named_neuron_trains_with_the_cpu_s_losses(tmp_path):
    """Padded to fixed shapes there by itself, and ragged on the CPU; the checkpoint loads on the CPU."""
    tiny.generator_folder(tmp_path / "generator")
    write_records(tmp_path / "data.json", list(synthetic_records(22, seed=5)))
    argv = ["--train_data", str(tmp_path / "data.json"), "--generator_model", str(tmp_path / "generator"),
            "--batch_size", "2", "--max_steps", str(STEPS), "--num_epochs", "9", "--num_memory_tokens", "2",
            "--lora_dropout", "0", "--logging_steps", "1", "--enable_reranking", "--dtype", "float32",
            "--learning_rate_compressor", "1e-3"]
    there = [*argv, "--device", "trainium", "--output_dir", str(tmp_path / "neuron")]
    code = ("import sys, neuron_device\nlibrary = neuron_device.register()\nimport train\n"
            f"sys.exit(train.main({there!r}))")
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
                           env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"})
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "on neuron" in ended.stdout
    assert train.main([*argv, "--device", "cpu", "--output_dir", str(tmp_path / "cpu")]) == 0
    assert len(losses(tmp_path / "cpu")) == STEPS
    assert losses(tmp_path / "neuron") == pytest.approx(losses(tmp_path / "cpu"), abs=1e-5)
    assert train.main([*argv, "--device", "cpu", "--output_dir", str(tmp_path / "on"), "--max_steps", "1",
                       "--init_compressor", str(tmp_path / "neuron" / "final")]) == 0
