"""Training killed with SIGKILL, at steps and in the middle of saving: the resumed run ends as an undisturbed one.

``RELIABILITY=full python -m pytest tests/training/test_kills.py`` kills ten times for each optimizer, otherwise twice.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records

ROOT = Path(__file__).resolve().parents[2]
NUM_KILLS, SAVE_STEPS = 10 if os.environ.get("RELIABILITY") == "full" else 2, 4
NUM_STEPS = SAVE_STEPS * (3 * NUM_KILLS + 4)
"""A start comes three checkpoints further at most before it is killed, so that the last one too has steps to go."""
KILLED = """
import os, signal, sys
import train
from scaledown.models import model
from scaledown.training import checkpoints, trainer

where, number = sys.argv[1], int(sys.argv[2])
place, name = {"step": (trainer.ScaleDownTrainer, "compute_loss"), "weights": (model.checkpoint, "save_weights"),
               "seal": (checkpoints, "seal")}[where]
real, calls = getattr(place, name), []

def killed(*arguments, **settings):
    calls.append(1)
    if len(calls) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **settings)

setattr(place, name, killed)
sys.exit(train.main(sys.argv[3:]))
"""


def run(flags: list[str], where: str = "step", number: int = 0) -> int:
    """Train in a process of its own, which kills itself at call ``number`` of what ``where`` names; 0 for never."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED, where, str(number), *flags], cwd=ROOT, env=environment,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("data")
    write_records(root / "data.json", list(synthetic_records(24, seed=3)))
    return ["--train_data", str(root / "data.json"), "--generator_model", tiny.generator_folder(root / "generator"),
            "--num_memory_tokens", "2", "--compression_rate", "8", "--batch_size", "2", "--device", "cpu",
            "--max_steps", str(NUM_STEPS), "--save_steps", str(SAVE_STEPS), "--logging_steps", "5"]


@pytest.mark.parametrize("optimizer", tiny.OF_TORCH if NUM_KILLS > 2 else tiny.OF_TORCH[1:])
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(flags: list[str], optimizer: str,
                                                                  tmp_path: Path) -> None:
    flags = [*flags, "--optimizer", optimizer]
    assert run([*flags, "--output_dir", str(tmp_path / "whole")]) == 0
    rng, killed = random.Random(f"kills-{optimizer}"), [*flags, "--output_dir", str(tmp_path / "killed")]
    kills = [("step", rng.randint(2, 8))] + [(rng.choice(("step", "weights", "seal")), rng.randint(2, 4))
                                             for _ in range(NUM_KILLS - 1)]
    for number, (where, call) in enumerate(kills):
        assert run(killed + ["--resume"] * (number > 0), where, call) == -signal.SIGKILL
    assert run([*killed, "--resume"]) == 0
    for name in ("compressor", "generator"):
        one, other = (load_file(tmp_path / run_ / "final" / f"{name}.safetensors") for run_ in ("whole", "killed"))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert not list(tmp_path.rglob(".saving")) and len(list((tmp_path / "killed").glob("checkpoint-*"))) == 2


def test_an_interrupted_run_saves_and_says_how_to_go_on(flags: list[str], tmp_path: Path) -> None:
    program = ("import signal, sys, train; from scaledown.training.trainer import ScaleDownTrainer as T; "
               "real = T.compute_loss; calls = []\n"
               "def interrupted(*arguments, **settings):\n"
               "    calls.append(1); len(calls) == 7 and signal.raise_signal(signal.SIGINT)\n"
               "    return real(*arguments, **settings)\n"
               "T.compute_loss = interrupted; sys.exit(train.main(sys.argv[1:]))")
    folder = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", program, *flags, "--output_dir", str(folder)], cwd=ROOT, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=300)
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert "saved at step 7: --resume goes on from there" in done.stdout and (folder / "checkpoint-7").is_dir()
