"""Fingerprints of the inputs of a stage: they change with the content, not with its place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scaledown import hub

WHOLE_BYTES = 256 * 2**20
"""Files up to this size are hashed whole; larger ones by their size, time of change, and both ends."""
END_BYTES = 2**20


def of_values(values: Any) -> str:
    """Return the fingerprint of plain values (those that JSON can hold), in 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def of_each(values: Iterable[Any]) -> str:
    """Return one fingerprint of many values, of which one at a time is in memory."""
    digest = hashlib.sha256()

    # A line break after each value, which JSON text holds nowhere else, keeps their boundaries apart.
    for value in values:
        digest.update(json.dumps(value, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()[:12]


def of_files(paths: Iterable[Path]) -> str:
    """Return the fingerprint of the content of files, in their order.

    Raises:
        ValueError: if one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            _add(digest, path)
        except OSError as fault:
            raise ValueError(f"{path}: cannot be read ({fault.strerror})") from None
    return digest.hexdigest()[:12]


def of_model(name: str, revision: str | None, what_works: str | None = None) -> str:
    """Return the fingerprint of a model: of its files if it is a folder, else of its commit on the Hub.

    ``what_works`` is the advice in the message if the model cannot be found.

    Raises:
        ValueError: if the model cannot be found.
    """
    folder = Path(hub.locate(name, revision, what_works=what_works))
    if folder.is_dir():
        return of_files(path for path in sorted(folder.rglob("*")) if path.is_file())

    # A branch or tag moves; the commit that it stands for now does not.
    return of_values([name, hub.resolve_revision(name, revision)])


def _add(digest: Any, path: Path) -> None:
    """Add a file to the digest."""
    # The size in front keeps "ab" + "c" apart from "a" + "bc".
    size = path.stat().st_size
    digest.update(b"%d:" % size)

    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            while block := file.read(END_BYTES):
                digest.update(block)
            return

        # Reading a dump of Wikipedia takes minutes; a change in its middle shows in the time of change.
        digest.update(b"%d:" % path.stat().st_mtime_ns)
        digest.update(file.read(END_BYTES))
        file.seek(-END_BYTES, 2)
        digest.update(file.read(END_BYTES))
