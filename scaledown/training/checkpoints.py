"""Checkpoints of a run on disk: each appears whole, under its own name, or not at all.

A checkpoint is written aside, with a list of its files, and renamed. So a folder ``checkpoint-N`` was once complete;
whether it still is, its list tells.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

DRAFT = ".saving"
FILES = "files.json"
PLACES = ("", "checkpoints")


def seal(draft: Path, checkpoint: Path) -> None:
    """Give a finished ``draft`` its list of files and its name."""
    sizes = {str(path.relative_to(draft)): path.stat().st_size for path in sorted(draft.rglob("*")) if path.is_file()}
    with (draft / FILES).open("w", encoding="utf-8") as file:
        json.dump(sizes, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, checkpoint)


def found(folder: Path) -> list[Path]:
    """The checkpoints under ``folder``, in it or in its ``checkpoints`` folder, by step."""
    paths = [path.parent for place in PLACES for path in (folder / place).glob(f"checkpoint-*/{FILES}")]
    return sorted(paths, key=step_of)


def last(folder: Path) -> Path | None:
    """The checkpoint of the latest step under ``folder``; None where there is none.

    Raises:
        ValueError: where a file of it is missing or was cut short; the one before it is offered.
    """
    paths = found(folder)
    if not paths:
        return None
    if faults := _faults(paths[-1]):
        other = f" to go on from {paths[-2].name}" if len(paths) > 1 else "; there is no earlier one"
        raise ValueError(f"{paths[-1]} is damaged: {'; '.join(faults)}. Restore it, or delete it{other}")
    return paths[-1]


def step_of(checkpoint: Path) -> int:
    """The step after which it was written."""
    return int(checkpoint.name.rpartition("-")[2])


def _faults(checkpoint: Path) -> list[str]:
    try:
        sizes = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
        expected = {checkpoint / name: int(size) for name, size in sizes.items()}
    except (json.JSONDecodeError, AttributeError, TypeError, ValueError):
        return [f"{FILES} cannot be read"]
    faults = []
    for path, size in expected.items():
        if not path.is_file():
            faults.append(f"{path.name} is missing")
        elif path.stat().st_size != size:
            faults.append(f"{path.name} has {path.stat().st_size} bytes, expected {size}")
    return faults
