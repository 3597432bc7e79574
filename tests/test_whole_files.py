"""Files that belong together: whoever is killed, wherever, leaves all old ones or all new ones."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scaledown.data.records import Record, eval_path, read_records, write_records_together
from scaledown.files import finish_replacements

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
KILLED = f"""
import os, signal, sys
import example_dataset_generation as script

number, folder, steps = int(sys.argv[1]), sys.argv[2], []

def killed(event, arguments):
    if event in {STEPS} and str(arguments[0]).startswith(folder):
        steps.append(event)
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(killed)
sys.exit(script.main(sys.argv[3:]))
"""
OLD, NEW = 11, 22
FILES = ("X.json", "X_eval.json", "X_qrels.txt", "X_eval_qrels.txt")


def generate(folder: Path, seed: int, kill_at: int = 0) -> int:
    """Make records of ``seed`` in a process of its own, which kills itself at step ``kill_at`` in ``folder``."""
    flags = ["--ranking", "--num_examples", "2", "--num_documents", "2", "--seed", str(seed), "--output_file",
             str(folder / "X.json")]
    done = subprocess.run([sys.executable, "-c", KILLED, str(kill_at), str(folder), *flags], cwd=ROOT, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def seeds_in(folder: Path) -> list[int | None]:
    """Return the seed that each file was made with, as it lies on the disk; None for one that is not there."""
    seeds = []
    for name in FILES:
        text = (folder / name).read_text(encoding="utf-8") if (folder / name).exists() else ""
        seeds.append(next((seed for seed in (OLD, NEW) if f"-{seed}-" in text), None))
    return seeds


@pytest.mark.parametrize("before", [None, OLD])
def test_killed_at_any_step_all_files_are_old_or_all_are_new(before: int | None, tmp_path: Path) -> None:
    old, folder = tmp_path / "old", tmp_path / "0"
    if before is not None:
        assert generate(old, OLD) == 0
    outcomes, code = [], -signal.SIGKILL
    while code:
        kill_at = len(outcomes) + 1
        folder = tmp_path / str(kill_at)
        shutil.copytree(old, folder) if old.exists() else folder.mkdir()
        code = generate(folder, NEW, kill_at)
        assert len(set(seeds_in(folder)) - {None}) <= 1, f"killed at {kill_at}, old and new lie side by side"

        evaluation = eval_path(folder / "X.json")
        seeds = seeds_in(folder)
        assert len(set(seeds)) == 1, f"killed at {kill_at}, the next process finds {seeds}"
        assert evaluation.exists() == (seeds[1] is not None)
        outcomes.append(seeds[0])
    num_before, num_after = outcomes.count(before), outcomes.count(NEW)
    assert outcomes == [before] * num_before + [NEW] * num_after and num_before > 5 and num_after > 5
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_the_next_writer_goes_on_from_what_a_kill_left(tmp_path: Path) -> None:
    assert generate(tmp_path, OLD) == 0
    assert generate(tmp_path, NEW, kill_at=4) == -signal.SIGKILL
    assert generate(tmp_path, NEW) == 0 and seeds_in(tmp_path) == [NEW] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def record(name: str) -> Record:
    return Record(id=name, query="Who?", documents=("Ada.",), answer="Ada")


def test_what_fails_between_two_halves_leaves_both_old_ones(tmp_path: Path) -> None:
    paths = tmp_path / "X.jsonl", tmp_path / "X_eval.jsonl"
    write_records_together({path: [record("old")] for path in paths})
    faulty = [record("new"), record("\ud83d"), dataclasses.replace(record("other"), documents=("a", None))]
    with pytest.raises(ValueError, match=r"X_eval\.jsonl: .*\n  record 2 \(id .*\): id must be text"):
        write_records_together({paths[0]: [record("new")], paths[1]: faulty})
    (tmp_path / "Y_eval.jsonl").mkdir()
    with pytest.raises(ValueError, match="Y_eval.jsonl is a folder"):
        write_records_together({tmp_path / "Y.jsonl": [record("new")], tmp_path / "Y_eval.jsonl": [record("new")]})
    for path in paths:
        assert [each.id for each in read_records(path)] == ["old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["X.jsonl", "X_eval.jsonl", "Y_eval.jsonl"]


def test_many_processes_may_finish_one_replacement(tmp_path: Path) -> None:
    for number in range(60):
        folder = tmp_path / str(number)
        replacement = folder / ".X.json.replacement"
        replacement.mkdir(parents=True)
        for name in FILES:
            (folder / name).write_text("old")
            (replacement / name).write_text("new")
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(finish_replacements, [folder] * 8))
        assert [(folder / name).read_text() for name in FILES] == ["new"] * 4
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
