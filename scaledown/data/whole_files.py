"""Files that are whole or not there at all, and the disk's faults in plain words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WHAT_TO_DO = "what is finished is kept: mend that, and run the same command again"


@contextmanager
def disk_faults(path: Path, advice: str = "") -> Iterator[None]:
    """Turn an ``OSError`` while ``path`` is written, such as a full disk, into a ``ValueError`` that names it."""
    try:
        yield
    except OSError as fault:
        raise ValueError(f"{path}: cannot be written ({fault.strerror or fault}){advice and '; '}{advice}") from fault


@contextmanager
def whole_file(path: Path, advice: str = "") -> Iterator[Path]:
    """Give a path to write to; what was written takes the place of ``path`` at the end, and only then.

    Whoever is killed on the way leaves at most a hidden file beside ``path``, which the next try writes over.

    Raises:
        ValueError: where the disk cannot take it.
    """
    draft = path.with_name(f".{path.name}.tmp")
    with disk_faults(path, advice):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield draft
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
