"""A run's ``checkpoint-N`` folders: written aside and renamed, sealed with a list of their files, checked before use.

Whoever is killed while saving leaves only the hidden folder that was being filled. What a disk or a copy loses later
shows when the seal is compared: in a file's presence, its size or its hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scaledown import json_text

SEAL = "files.json"
UNFINISHED = ".unfinished"


@contextmanager
def disk_faults(folder: Path) -> Iterator[None]:
    """Turn a disk that cannot take a checkpoint into a message that says where the run can go on.

    Raises:
        ValueError: where the disk is full or cannot be written to. torch tells that as a RuntimeError of its writer.
    """
    try:
        yield
    except (OSError, RuntimeError) as fault:
        if isinstance(fault, RuntimeError) and "inline_container" not in str(fault):
            raise
        last = max(found(folder), key=step_of, default=None)
        kept = f"{last} is whole: mend that, and --resume goes on from there" if last else "there is no earlier one"
        what = getattr(fault, "strerror", None) or str(fault).splitlines()[0]
        raise ValueError(f"{folder}: a checkpoint cannot be written ({what}); {kept}") from fault
    finally:
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def finish(draft: Path, folder: Path) -> None:
    """Seal a checkpoint that lies aside as ``draft``, and put it into ``folder``."""
    files = sorted(path for path in draft.rglob("*") if path.is_file())
    seal = {path.relative_to(draft).as_posix(): {"bytes": path.stat().st_size, "sha256": _hash(path)}
            for path in files}
    (draft / SEAL).write_text(json.dumps(seal, indent=2) + "\n", encoding="utf-8")
    target = folder / draft.name
    if target.exists():
        shutil.rmtree(target)
    os.replace(draft, target)


def found(folder: Path) -> list[Path]:
    """The checkpoints under ``folder``, in it or in its ``checkpoints`` folder; the trainer's state ends one."""
    places = (folder, folder / "checkpoints")
    return [path.parent for place in places for path in place.glob("checkpoint-*/trainer_state.json")]


def last(folder: Path) -> Path | None:
    """The checkpoint of the latest step under ``folder``, or None.

    Raises:
        ValueError: where a file of it is missing, cut short or changed: which, and how to go on from the one before.
    """
    steps = sorted(found(folder), key=step_of)
    if not steps:
        return None
    if faults := _faults(steps[-1]):
        before = (f"--resume then goes on from {steps[-2].name}" if len(steps) > 1
                  else "there is no earlier checkpoint, so start again with --overwrite")
        raise ValueError(f"{steps[-1]} is damaged: {'; '.join(faults)}. Remove that folder: {before}")
    return steps[-1]


def _faults(checkpoint: Path) -> list[str]:
    try:
        seal = json_text.parse((checkpoint / SEAL).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return [f"{SEAL}, the list of its files, is missing or unreadable"]
    faults = []
    for name, entry in seal.items():
        path = checkpoint / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif (size := path.stat().st_size) != entry["bytes"]:
            faults.append(f"{name} has {size} of {entry['bytes']} bytes")
        elif _hash(path) != entry["sha256"]:
            faults.append(f"{name} was changed after it was written")
    return faults


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])
