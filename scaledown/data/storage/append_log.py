"""Results that are kept one by one as they come: a kill loses what was under way, and nothing that was finished."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scaledown.files import WHAT_TO_DO, disk_faults

SYNC_SECONDS = 5.0
"""A power failure (a kill loses nothing) costs the results of at most so many seconds."""


def key_of(*texts: str) -> str:
    """A name for what a result depends on: 128 bits of a hash over ``texts``, in hexadecimal digits."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.hexdigest()[:32]


class AppendLog:
    """Values by key, in JSON lines ``{"key", "value"}``: a file for each process to write, all for each to read.

    In memory are only the keys and where their lines begin. A line that is torn, since its writer was killed or the
    disk was full, counts as not there; so does one that is damaged.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        with disk_faults(folder, WHAT_TO_DO):
            folder.mkdir(parents=True, exist_ok=True)
            self._own = folder / f"process-{rank:05d}.jsonl"
            _cut_torn_line(self._own)
            self._file = os.open(self._own, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._folder = folder
        self._places: dict[str, tuple[Path, int]] = {}
        self._read_up_to: dict[Path, int] = {}
        self._readers: dict[Path, Any] = {}
        self._synced_at = time.monotonic()
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> Any:
        path, offset = self._places[key]
        if path not in self._readers:
            self._readers[path] = path.open("rb")
        self._readers[path].seek(offset)
        return json.loads(self._readers[path].readline())["value"]

    def append(self, items: Iterable[tuple[str, Any]]) -> None:
        """Keep ``(key, value)`` pairs, in one write; they can be read at once.

        Raises:
            ValueError: where the disk cannot take them; what it took of them is taken back.
        """
        lines = [(key, _line(key, value)) for key, value in items]
        with disk_faults(self._own, WHAT_TO_DO):
            place = os.fstat(self._file).st_size
            try:
                _write_all(self._file, b"".join(line for _, line in lines))
            except OSError:
                os.ftruncate(self._file, place)
                raise
            if time.monotonic() - self._synced_at > SYNC_SECONDS:
                os.fsync(self._file)
                self._synced_at = time.monotonic()
        for key, line in lines:
            self._places.setdefault(key, (self._own, place))
            place += len(line)
        self._read_up_to[self._own] = place

    def refresh(self) -> None:
        """Learn what has been written since, by the other processes too."""
        for path in sorted(self._folder.glob("process-*.jsonl")):
            self._read(path)

    def close(self) -> None:
        """Have all of it on the disk, and close the files."""
        with disk_faults(self._own, WHAT_TO_DO):
            os.fsync(self._file)
        os.close(self._file)
        for reader in self._readers.values():
            reader.close()

    def _read(self, path: Path) -> None:
        place = self._read_up_to.get(path, 0)
        with path.open("rb") as file:
            file.seek(place)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    if "value" in entry:
                        self._places.setdefault(entry["key"], (path, place))
                place += len(line)
        self._read_up_to[path] = place


def _line(key: str, value: Any) -> bytes:
    return json.dumps({"key": key, "value": value}, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _write_all(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content):]


def _cut_torn_line(path: Path) -> None:
    """Take away what stands behind the last line break of ``path``: a line that was never finished."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end and (start := max(0, end - 65536)) < end:
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n")) >= 0:
                end = start + found + 1
                break
            end = start
        file.truncate(end)
