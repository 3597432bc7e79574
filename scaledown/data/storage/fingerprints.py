"""Fingerprints of what a stage reads: another content gives another fingerprint, another place does not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scaledown import hub

WHOLE_BYTES = 256 * 2**20
"""Files up to this size are read whole; of larger ones the size, the time of change and both ends speak."""
END_BYTES = 2**20


def of_values(values: Any) -> str:
    """The fingerprint of plain values (what JSON can hold), in 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def of_each(values: Iterable[Any]) -> str:
    """As :func:`of_values`, for many values of which one at a time is in memory."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(json.dumps(value, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()[:12]


def of_files(paths: Iterable[Path]) -> str:
    """The fingerprint of files, in their order.

    Raises:
        ValueError: where one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            _add(digest, path)
        except OSError as fault:
            raise ValueError(f"{path}: cannot be read ({fault.strerror})") from None
    return digest.hexdigest()[:12]


def of_model(name: str, revision: str | None, what_works: str | None = None) -> str:
    """The fingerprint of a model: its files where it is a folder, else its commit on the Hub.

    ``what_works`` is advice for where it cannot be had.

    Raises:
        ValueError: where the model cannot be found.
    """
    place = Path(hub.locate(name, revision, what_works=what_works))
    if place.is_dir():
        return of_files(path for path in sorted(place.rglob("*")) if path.is_file())
    return of_values([name, hub.resolve_revision(name, revision)])


def _add(digest: Any, path: Path) -> None:
    size = path.stat().st_size
    digest.update(b"%d:" % size)
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            while block := file.read(END_BYTES):
                digest.update(block)
            return
        digest.update(b"%d:" % path.stat().st_mtime_ns)
        digest.update(file.read(END_BYTES))
        file.seek(-END_BYTES, 2)
        digest.update(file.read(END_BYTES))
