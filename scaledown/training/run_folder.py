"""One folder, one run: claimed before anything is computed, so that no run writes over another."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from scaledown import processes
from scaledown.training import checkpoints, inputs

RUN_FILE = "config.json"
SETTINGS = "settings"
INPUTS = "inputs"
LOCK_FILE = ".lock"
PRETRAINING = "pretraining"
"""Folder of a run's first stage, which has checkpoints of its own."""
PARTS = ("checkpoints", "final", "runs", PRETRAINING)
NOT_PART_OF_THE_RUN = {"resume", "overwrite", "output_dir", "device", "logging_steps", "num_workers",
                       "gradient_checkpointing", "shard", "gradient_accumulation_steps"}
"""Settings that may differ when a run goes on: they change no result beyond rounding."""


@contextmanager
def claimed(folder: Path | str, run: Mapping[str, Any], overwrite: bool = False,
            resume: bool = False) -> Iterator[Path | None]:
    """Take ``folder`` for a run while it lasts, and write ``config.json`` into it.

    Of several processes one does, and all wait for it.

    Args:
        folder: made if need be.
        run: what ``config.json`` shall say; ``run["settings"]`` holds every setting by name, ``run["inputs"]`` what
            the run reads (:mod:`scaledown.training.inputs`).
        overwrite: remove what another run left there.
        resume: go on with the run that is there.

    Yields:
        The last whole checkpoint to go on from, or None for a run that starts anew.

    Raises:
        ValueError: where another run is there and neither flag was given, or both were; where there is nothing to
            resume, or the run to resume had other settings or inputs; where the folder cannot be made, or a run is at
            work in it.
    """
    folder = Path(folder)
    with ExitStack() as held:
        processes.once(lambda: _claim(folder, run, overwrite, resume, held))
        yield checkpoints.last(folder) if resume else None


def _claim(folder: Path, run: Mapping[str, Any], overwrite: bool, resume: bool, held: ExitStack) -> None:
    if resume and overwrite:
        raise ValueError("--resume goes on with the run in --output_dir and --overwrite removes it: give one of them")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir {folder}: is a file; give a folder")
    is_taken = (folder / RUN_FILE).exists() or any(checkpoints.found(folder))
    if is_taken and not (overwrite or resume):
        raise ValueError(f"--output_dir {folder} holds another run: give --resume to go on with it, --overwrite to "
                         "replace it, or another folder")
    if resume:
        _check_same(folder, run)
    else:
        make(folder)
    held.enter_context(_lock(folder))
    if resume:
        return
    if overwrite and is_taken:
        remove_run(folder)
    draft = folder / f"{RUN_FILE}.tmp"
    draft.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    os.replace(draft, folder / RUN_FILE)


def _lock(folder: Path) -> AcquireReturnProxy:
    """Hold ``folder`` until what is returned is left, or this process ends, however it ends."""
    try:
        return FileLock(folder / LOCK_FILE).acquire(timeout=0)
    except Timeout:
        raise ValueError(f"--output_dir {folder}: another run is at work in it; wait for its end, or give another "
                         "folder") from None


def make(folder: Path, flag: str = "--output_dir") -> None:
    """Make ``folder`` where it does not exist.

    Raises:
        ValueError: naming ``flag``, where that cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ValueError(f"{flag} {folder}: this folder cannot be made ({fault.strerror})") from None


def output_file(name: str | None) -> Path | None:
    """The path of ``--output_file``, made sure of before there is anything to write; None where none is asked for.

    Raises:
        ValueError: where it is a folder, or the one that it is to lie in cannot be made.
    """
    if name is None:
        return None
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"--output_file {name}: Is a directory; give a file in it")
    make(path.parent, "--output_file")
    return path


def remove_run(folder: Path) -> None:
    """Remove a run's checkpoints and its config; results are written over one by one."""
    for path in (*folder.glob("checkpoint-*"), folder / checkpoints.DRAFT, *(folder / name for name in PARTS)):
        shutil.rmtree(path, ignore_errors=True)
    (folder / RUN_FILE).unlink(missing_ok=True)


def _check_same(folder: Path, run: Mapping[str, Any]) -> None:
    path = folder / RUN_FILE
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        settings, read = earlier[SETTINGS], earlier.get(INPUTS)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"--resume: no run in {folder} (it has no {RUN_FILE})") from None
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError):
        raise ValueError(f"--resume: {path} is damaged; start again with --overwrite") from None
    now = json.loads(json.dumps(run[SETTINGS]))
    differing = [f"--{name} was {settings.get(name)!r}, is {now.get(name)!r}"
                 for name in sorted(set(settings) | set(now) - NOT_PART_OF_THE_RUN)
                 if name not in NOT_PART_OF_THE_RUN and settings.get(name) != now.get(name)]
    # A run of an older version did not write down what it read.
    changed = inputs.differences(read, run[INPUTS]) if read is not None and INPUTS in run else []
    others = [f"other {what}: {'; '.join(faults)}" for what, faults in (("settings", differing), ("inputs", changed))
              if faults]
    if others:
        raise ValueError(f"--resume: the run in {folder} had {'. It had '.join(others)}. Go on with what it had, or "
                         "start anew in another --output_dir")
