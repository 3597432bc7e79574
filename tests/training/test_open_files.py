"""What a run opens it closes: a process that trains many times holds no more files at the end than after the first."""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from pathlib import Path

import pytest
import tiny

import train
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.evaluation.robustness import __main__ as robustness
from scaledown.models.model import ScaleDownModel
from scaledown.training import run

PROC = Path("/proc/self/fd")
pytestmark = pytest.mark.skipif(not PROC.is_dir(), reason="this system has no /proc")


def open_files(below: Path) -> Counter[str]:
    """The files below a folder that this process holds open, and its pipes and sockets, each with their number."""
    # A queue to a worker is closed by a thread of its own, which may still be about to when the run has ended.
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":
            thread.join(timeout=60)

    held: Counter[str] = Counter()
    for link in PROC.iterdir():
        try:
            target = os.readlink(link)
        except FileNotFoundError:  # the listing's own
            continue
        if target.startswith(("pipe:", "socket:")):
            held["pipes and sockets"] += 1
        elif target.startswith(str(below)):
            held[target] += 1
    return held


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    # What earlier tests left would otherwise be closed at some time while this one counts: two pipes fewer were seen.
    gc.collect()
    write_records(tmp_path / "data.json", list(synthetic_records(4, seed=3)))
    return ["--train_data", str(tmp_path / "data.json"), "--generator_model",
            tiny.generator_folder(tmp_path / "generator"), "--num_memory_tokens", "2", "--batch_size", "2",
            "--compression_rate", "128", "--max_steps", "2", "--save_steps", "1", "--device", "cpu"]


def test_a_finished_run_holds_no_file(flags: list[str], tmp_path: Path) -> None:
    before = open_files(tmp_path)
    for number in range(2):
        assert train.main([*flags, "--output_dir", str(tmp_path / f"run{number}")]) == 0
    assert robustness.main(["--checkpoint", str(tmp_path / "run0" / "final"), "--eval_data",
                            str(tmp_path / "data.json"), "--output_dir", str(tmp_path / "robust"), "--eval_examples",
                            "1", "--max_new_tokens", "1", "--bootstrap_resamples", "5", "--device", "cpu"]) == 0
    assert open_files(tmp_path) == before


def test_a_run_with_workers_leaves_no_pipe_to_them(flags: list[str], tmp_path: Path) -> None:
    # The first one starts what Python keeps for all processes that it will ever start.
    assert train.main([*flags, "--num_workers", "1", "--output_dir", str(tmp_path / "first")]) == 0
    before = open_files(tmp_path)
    assert train.main([*flags, "--num_workers", "1", "--output_dir", str(tmp_path / "second")]) == 0
    assert open_files(tmp_path) == before


def test_a_run_that_is_refused_or_fails_holds_no_file(flags: list[str], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    before, argv = open_files(tmp_path), [*flags, "--output_dir", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(ScaleDownModel, "forward", broken)
        with pytest.raises(RuntimeError, match="broken"):
            train.main(argv)
        assert open_files(tmp_path) == before
    assert train.main(argv) == 2
    assert train.main([*argv, "--resume"]) == 0
    assert open_files(tmp_path) == before


def broken(self: ScaleDownModel, batch: object) -> None:
    raise RuntimeError("broken")


def test_a_log_is_closed_while_its_fault_is_still_looked_at(flags: list[str], tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.build_model(ScaleDownConfig(generator_model=flags[3], num_memory_tokens=2), "cpu", seed=1)
    before, threads = open_files(tmp_path), threading.active_count()
    monkeypatch.setattr(ScaleDownModel, "forward", broken)
    with pytest.raises(RuntimeError, match="broken") as fault:
        run.train(model, TrainingConfig(batch_size=2, max_steps=1), list(synthetic_records(2)), tmp_path / "run")
    assert list((tmp_path / "run" / "runs").rglob("events.*")), "there is a log"
    assert open_files(tmp_path) == before and threading.active_count() == threads and fault.traceback
