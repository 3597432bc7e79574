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
STEPS = 10
TRAIN = """
import sys
import neuron_device
library = neuron_device.register()
import train
from torch.utils._pytree import tree_iter
from scaledown.models.model import ScaleDownModel
from scaledown.training.trainer import ScaleDownTrainer

forward, compute_loss, save = ScaleDownModel.forward, ScaleDownTrainer.compute_loss, ScaleDownTrainer._save_checkpoint

def seen_forward(model, batch):
    tensors = [batch["answer_targets"], batch["documents"].ids, batch["prompts"].packing.position]
    print("DEVICES batch", *{tensor.device.type for tensor in tensors})
    print("DEVICES model", *{tensor.device.type for tensor in [*model.parameters(), *model.buffers()]})
    return forward(model, batch)

def seen_loss(trainer, *given, **settings):
    loss = compute_loss(trainer, *given, **settings)
    print("DEVICES loss", loss.device.type, type(loss).__name__)
    return loss

def seen_save(trainer, *given):
    states = [each for each in tree_iter(trainer.optimizer.state_dict()) if hasattr(each, "dim") and each.dim()]
    print("DEVICES trainer", trainer.args.device.type, trainer.accelerator.device.type)
    print("DEVICES optimizer", *{state.device.type for state in states})
    save(trainer, *given)

ScaleDownModel.forward, ScaleDownTrainer.compute_loss = seen_forward, seen_loss
ScaleDownTrainer._save_checkpoint = seen_save
sys.exit(train.main(sys.argv[1:]))
"""


def run_there(code: str, *arguments: str) -> str:
    """Run ``code`` in a process that has the stand-in, and return what it printed."""
    ended = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True,
                           check=False, env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"})
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


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
    printed = run_there(TRAIN, *argv, "--device", "trainium", "--output_dir", str(tmp_path / "neuron"))
    assert "on neuron" in printed
    # Weights, batch, loss, gradients and optimizer, in each of the steps: nothing was moved on the way.
    seen = {line for line in printed.splitlines() if line.startswith("DEVICES")}
    assert seen == {"DEVICES batch neuron", "DEVICES model neuron", "DEVICES loss neuron DeviceTensor",
                    "DEVICES trainer neuron neuron", "DEVICES optimizer neuron"}
    assert train.main([*argv, "--device", "cpu", "--output_dir", str(tmp_path / "cpu")]) == 0
    assert len(losses(tmp_path / "cpu")) == STEPS
    assert losses(tmp_path / "neuron") == pytest.approx(losses(tmp_path / "cpu"), abs=1e-5)
    assert train.main([*argv, "--device", "cpu", "--output_dir", str(tmp_path / "on"), "--max_steps", "1",
                       "--init_compressor", str(tmp_path / "neuron" / "final")]) == 0
