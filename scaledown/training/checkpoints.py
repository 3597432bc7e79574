"""Checkpoints of a run on disk: a named one is complete.

A checkpoint is written to a draft folder, with a list of its files, and renamed. So a folder ``checkpoint-N`` was
complete once; the list tells whether it still is. Other names, such as that of a copy, ``checkpoint-best``, are the
user's: such folders are neither counted nor deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

DRAFT = ".saving"
FILES = "files.json"
PLACES = ("", "checkpoints")
_NAME = re.compile(r"checkpoint-(\d+)")


def seal(draft: Path, checkpoint: Path) -> None:
    """Rename a finished ``draft`` to ``checkpoint``, after writing the list of its files with their SHA-256."""
    sums = {str(path.relative_to(draft)): _sum(path) for path in sorted(draft.rglob("*")) if path.is_file()}

    # On the disk before the rename, so that a named checkpoint has its list even after a power cut.
    with (draft / FILES).open("w", encoding="utf-8") as file:
        json.dump(sums, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, checkpoint)


def keep(draft: Path, folder: Path, num_kept: int) -> None:
    """Move a finished ``draft`` into ``folder`` under its own name, in place of one that is there.

    Of the complete checkpoints in ``folder`` the last ``num_kept`` stay. The folder of the draft is deleted, with all
    that a killed process may have left there.
    """
    shutil.rmtree(folder / draft.name, ignore_errors=True)
    seal(draft, folder / draft.name)
    for path in complete(folder)[:-num_kept]:
        shutil.rmtree(path)
    shutil.rmtree(draft.parent)


def complete(folder: Path) -> list[Path]:
    """Return the complete checkpoints in ``folder`` or in its ``checkpoints`` folder, by step."""
    paths = []
    for place in PLACES:
        paths += [path for path in named(folder / place) if (path / FILES).exists()]
    return sorted(paths, key=step_of)


def named(folder: Path) -> list[Path]:
    """Return what has the name of a checkpoint in ``folder``, complete or not."""
    return [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)]


def last(folder: Path) -> Path | None:
    """Return the checkpoint of the latest step in ``folder``, or None.

    Raises:
        ValueError: if a file of it is missing or was cut short; the message offers the checkpoint before it.
    """
    paths = complete(folder)
    if not paths:
        return None

    if faults := _faults(paths[-1]):
        other = f" to go on from {paths[-2].name}" if len(paths) > 1 else "; there is no earlier one"
        raise ValueError(f"{paths[-1]} is damaged: {'; '.join(faults)}. Restore it, or delete it{other}")
    return paths[-1]


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(_NAME.fullmatch(checkpoint.name)[1])


def _faults(checkpoint: Path) -> list[str]:
    try:
        sums = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
        expected = {checkpoint / name: known for name, known in sums.items()}
    except (ValueError, AttributeError):
        return [f"{FILES} cannot be read"]

    # Sizes and dates may be right after a crash; only the sums tell.
    faults = []
    for path, known in expected.items():
        if not path.is_file():
            faults.append(f"{path.name} is missing")
        elif _sum(path) != known:
            faults.append(f"{path.name} was changed or cut short")
    return faults


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
