"""A log of results, written one by one as they come: a kill loses only what was not appended yet."""

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
"""A power failure costs the results of at most this many seconds; a kill costs none."""
BLOCK_BYTES = 65536


def key_of(*texts: str) -> str:
    """Return the key of a result that depends on ``texts``: 128 bits of a hash, in hexadecimal digits."""
    digest = hashlib.sha256()
    for text in texts:
        # The length in front keeps ("ab", "c") apart from ("a", "bc").
        encoded = text.encode()
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.hexdigest()[:32]


class AppendLog:
    """Values by key, in JSON lines ``{"key", "value"}``: each process writes a file of its own, and reads all.

    Only the keys and the offsets of their lines are in memory. A line that is torn, because its writer was killed or
    the disk was full, is ignored, and so is one that is damaged.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        with disk_faults(folder, WHAT_TO_DO):
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"process-{rank:05d}.jsonl"

            # What is appended must begin on a line of its own.
            _cut_torn_line(self._path)
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

        self._folder = folder
        self._places: dict[str, tuple[Path, int]] = {}  # of each key: the file, and the offset of its line
        self._read_up_to: dict[Path, int] = {}  # of each file: the offset behind the last line read
        self._readers: dict[Path, Any] = {}  # files opened for reading
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
        """Store ``(key, value)`` pairs in one write; they can be read immediately.

        Raises:
            ValueError: if the disk cannot take them; a part that was written is removed again.
        """
        lines = [(key, _line(key, value)) for key, value in items]
        with disk_faults(self._path, WHAT_TO_DO):
            offset = os.fstat(self._file).st_size
            try:
                _write_all(self._file, b"".join(line for _, line in lines))
            except OSError:
                os.ftruncate(self._file, offset)
                raise

            # A sync takes milliseconds, so not after every answer.
            if time.monotonic() - self._synced_at > SYNC_SECONDS:
                os.fsync(self._file)
                self._synced_at = time.monotonic()

        # The first value of a key counts, here as in reading the file again.
        for key, line in lines:
            self._places.setdefault(key, (self._path, offset))
            offset += len(line)
        self._read_up_to[self._path] = offset

    def refresh(self) -> None:
        """Read the keys that were written since the last time, by the other processes too."""
        for path in sorted(self._folder.glob("process-*.jsonl")):
            self._read(path)

    def close(self) -> None:
        """Sync the log to the disk, and close the files."""
        with disk_faults(self._path, WHAT_TO_DO):
            os.fsync(self._file)
        os.close(self._file)
        for reader in self._readers.values():
            reader.close()

    def _read(self, path: Path) -> None:
        offset = self._read_up_to.get(path, 0)
        with path.open("rb") as file:
            file.seek(offset)
            for line in file:
                # Another process may be writing this line.
                if not line.endswith(b"\n"):
                    break

                with contextlib.suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    if "value" in entry:
                        self._places.setdefault(entry["key"], (path, offset))
                offset += len(line)
        self._read_up_to[path] = offset


def _line(key: str, value: Any) -> bytes:
    """Return one line of the log."""
    # A teacher's answer may hold half a surrogate pair, which only "surrogatepass" can encode.
    return json.dumps({"key": key, "value": value}, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _write_all(file: int, content: bytes) -> None:
    """Write all of ``content``: a single write may take only its beginning."""
    while content:
        content = content[os.write(file, content):]


def _cut_torn_line(path: Path) -> None:
    """Remove the text behind the last line break of ``path``: a line that was never finished."""
    if not path.exists():
        return

    # From the end backwards in blocks: the log may be large, and the line longer than a block.
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - BLOCK_BYTES)
            file.seek(start)
            line_break = file.read(end - start).rfind(b"\n")
            if line_break >= 0:
                end = start + line_break + 1
                break
            end = start

        file.truncate(end)
