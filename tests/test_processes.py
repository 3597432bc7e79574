"""Two processes train as one with the same global batch; a folder is one run's alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import accelerate
import pytest
import tiny
import torch
from safetensors.torch import load_file

import train
from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-6
NUM_STEPS = 6
TWICE = """
import os, sys, train
from torch.nn.parallel import DistributedDataParallel

settings, init = [], DistributedDataParallel.__init__


def noted(self, module, **given):
    settings.append((given.get("find_unused_parameters", False), given.get("gradient_as_bucket_view", False)))
    init(self, module, **given)


DistributedDataParallel.__init__ = noted
assert train.main(sys.argv[1:]) == 0
full = ["--train_data", sys.argv[2].replace("data.json", "full.json"), "--max_steps", "2"]
assert train.main([*sys.argv[1:], *full, "--output_dir", sys.argv[-1] + "_full"]) == 0
assert settings == [(True, True), (False, True)], settings
shared = ["--shard", "--gradient_checkpointing", "--train_memory_tokens", "4", "--output_dir", sys.argv[-1] + "_shared"]
assert train.main([*sys.argv[1:], *shared]) == 0
try:
    code = train.main(sys.argv[1:])
except SystemExit as end:
    code = end.code
sys.stdout.flush(), sys.stderr.flush()
os._exit(code != 2)
"""
"""Trains with DDP, on records of which some have no documents and on others, shared out, and once more into a folder
that is taken: all processes end, and one says why.

DDP looks for weights without a gradient on the first records alone, whose compressor may have nothing to read.

They end without Python's own end: DDP leaks its process group (torch 2.13), whose threads then run on while everything
is taken down, and a process was once seen to abort there ("terminate called without an active exception").
"""


def logged(folder: Path) -> list[dict[str, float]]:
    """The losses of every step, and of the evaluations between them."""
    state = json.loads((folder / f"checkpoint-{NUM_STEPS}" / "trainer_state.json").read_text())
    losses = []
    for row in state["log_history"]:
        losses.append({name: value for name, value in row.items() if name.endswith("loss") and name != "train_loss"})
    return losses


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Records of unlike lengths and numbers of documents, some unscored; an epoch ends with a batch of one of them."""
    root = tmp_path_factory.mktemp("data")
    records = [record if number % 3 else type(record)(id=record.id, query=record.query, answer=record.answer * 4,
                                                      documents=record.documents[:number % 4])
               for number, record in enumerate(synthetic_records(17, seed=3))]
    write_records(root / "data.json", records)
    write_records(root / "data_eval.json", records[:3])
    write_records(root / "full.json", [record for record in records if record.documents])
    return ["--train_data", str(root / "data.json"), "--generator_model", tiny.generator_folder(root / "generator"),
            "--num_memory_tokens", "4", "--train_memory_tokens", "1", "2", "4", "--compression_rate", "8",
            "--batch_size", "8", "--device", "cpu", "--enable_reranking", "--num_epochs", "2", "--save_steps", "3",
            "--logging_steps", "1", "--eval_steps", "2", "--lora_dropout", "0", "--optimizer", "muon",
            "--readout_loss_weight", "0.5",
            "--learning_rate_compressor", "1e-3"]


def test_two_processes_in_several_parts_train_as_one(flags: list[str], tmp_path: Path) -> None:
    """With a model for each or one that is shared out; a last batch of one record leaves one of them nothing."""
    assert train.main([*flags, "--output_dir", str(tmp_path / "one")]) == 0
    assert train.main([*flags, "--train_memory_tokens", "4", "--output_dir", str(tmp_path / "one_shared")]) == 0
    full = ["--train_data", flags[1].replace("data.json", "full.json"), "--max_steps", "2"]
    assert train.main([*flags, *full, "--output_dir", str(tmp_path / "one_full")]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0",
               "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", str(tmp_path / "twice.py"), *flags,
               "--gradient_accumulation_steps", "2"]
    (tmp_path / "twice.py").write_text(TWICE)
    done = subprocess.run([*command, "--output_dir", str(tmp_path / "two")], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done: ") == 3
    assert done.stderr.count("holds another run") == 1 and "Traceback" not in done.stderr
    for kind in ("", "_full", "_shared"):
        for name in ("compressor", "generator"):
            one, two = (load_file(tmp_path / f"{run}{kind}" / "final" / f"{name}.safetensors")
                        for run in ("one", "two"))
            torch.testing.assert_close(two, one, atol=TOLERANCE, rtol=0)
    for kind in ("", "_shared"):
        counts, others = (json.loads((tmp_path / f"{run}{kind}" / "final" / "training.json").read_text())
                          for run in ("one", "two"))
        assert counts == others and counts["num_steps"] == NUM_STEPS and counts["num_scores"] > 0
        rows, others = logged(tmp_path / f"one{kind}"), logged(tmp_path / f"two{kind}")
        # The last check comes after the last checkpoint.
        assert sum("eval_answer_loss" in row for row in rows) == NUM_STEPS // 2 - 1
        assert sum("reranking_loss" in row for row in rows) == NUM_STEPS
        for row, other in zip(rows, others, strict=True):
            assert other == pytest.approx(row, rel=TOLERANCE, abs=TOLERANCE)


class Alone:
    """What accelerate says where it found no other process."""

    num_processes = 1

    def __init__(self, **settings: object) -> None:
        pass


@pytest.mark.parametrize(("environment", "message"), [
    ({"WORLD_SIZE": "2"}, "this one was started on its own (RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set)"),
    ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
     "the launcher started 2 processes, but this one sees 1"),
    ({"ACCELERATE_USE_FSDP": "true"}, "accelerate's own FSDP"),
    ({"ACCELERATE_USE_DEEPSPEED": "true"}, "give --shard"),
    ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "give --shard"),
    ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "give --compile"),
    ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"}, "asked for several processes and started one")])
def test_one_process_that_was_to_be_one_of_several_is_refused(flags: list[str], environment: dict[str, str],
                                                              message: str, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(accelerate, "PartialState", Alone)
    assert train.main([*flags, "--output_dir", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_runs_at_once_cannot_share_a_folder(flags: list[str], tmp_path: Path,
                                                capsys: pytest.CaptureFixture) -> None:
    program = ("import sys, time; from pathlib import Path; from scaledown.training.run_folder import claimed; "
               "held = claimed(sys.argv[1], {'settings': {}}); held.__enter__(); print('claimed', flush=True); "
               "time.sleep(60)")
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"claimed\n"
        assert train.main([*flags, "--output_dir", str(tmp_path), "--overwrite"]) == 2
        assert "another run is at work in it" in capsys.readouterr().err
    finally:
        other.kill()
        other.wait()
    assert train.main([*flags, "--output_dir", str(tmp_path), "--overwrite"]) == 0
