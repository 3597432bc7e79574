"""Files that are written whole or not at all, one or several together; JSON that is read with one kind of error.

Faults of the disk become messages that name the file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from filelock import FileLock

WHAT_TO_DO = "what is finished is kept: mend that, and run the same command again"
_HALF_SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = ".replacement"
"""The ending of the hidden folder whose files are whole, and are to replace old ones together."""


@contextmanager
def disk_faults(path: Path, advice: str = "") -> Iterator[None]:
    """Turn an ``OSError`` while ``path`` is written, such as a full disk, into a ``ValueError`` that names it.

    ``advice`` stands behind the message: what the user can do.
    """
    try:
        yield
    except OSError as fault:
        message = f"{path}: cannot be written ({fault.strerror or fault})"
        raise ValueError(f"{message}; {advice}" if advice else message) from fault


@contextmanager
def whole_file(path: Path, advice: str = "") -> Iterator[Path]:
    """Yield a path to write to; the file written there replaces ``path`` at the end, and only then.

    A process that is killed before leaves at most a hidden file beside ``path``, which the next one overwrites.

    Raises:
        ValueError: if the disk cannot take it.
    """
    draft = path.with_name(f".{path.name}.tmp")
    with disk_faults(path, advice):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield draft

            # The one moment at which readers see the new file instead of the old one.
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        ValueError: if the disk cannot take it.
    """
    with whole_file(path) as draft:
        # A lone surrogate in a record cannot be UTF-8; written as its escape it is valid JSON and readable text.
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, values: Any) -> None:
    """Write JSON whole or not at all.

    Raises:
        ValueError: for NaN and infinities, which are not JSON; if the disk cannot take it.
    """
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def whole_files(paths: Sequence[Path], advice: str = "") -> Iterator[list[Path]]:
    """Yield paths to write to; the files written there replace all of ``paths``, files of one folder, together.

    They are written into a hidden folder beside them. From the moment at which that is renamed the new files count: a
    process that is killed before leaves the old ones untouched, and after one that is killed later, the next process
    that reads or writes such files there calls :func:`finish_replacements`.

    Raises:
        ValueError: if the disk cannot take them, or something that is no file lies in the place of one.
    """
    folder, name = paths[0].parent, paths[0].name
    drafts, replacement = folder / f".{name}.drafts", folder / f".{name}{REPLACEMENT}"
    with disk_faults(paths[0], advice):
        folder.mkdir(parents=True, exist_ok=True)
        finish_replacements(folder)
        try:
            # A killed process may have left drafts.
            shutil.rmtree(drafts, ignore_errors=True)
            drafts.mkdir()
            yield [drafts / path.name for path in paths]

            # No file can replace a folder; found later, it would stop the replacement half way.
            for path in paths:
                if path.is_dir():
                    raise OSError(errno.EISDIR, f"{path} is a folder")
            os.rename(drafts, replacement)
        finally:
            shutil.rmtree(drafts, ignore_errors=True)
        finish_replacements(folder)


def finish_replacements(folder: Path) -> None:
    """Finish the replacements that a killed :func:`whole_files` left: move the new files to the places of the old.

    All old files but one are deleted first. So there is never a new file beside an old one, not even for a reader that
    knows nothing of this.

    Raises:
        ValueError: if ``folder`` may not be written to.
    """
    for replacement in sorted(folder.glob(f".*{REPLACEMENT}")):
        lock = replacement.with_name(f"{replacement.name}.lock")
        # Several processes of a run may call this at once: all but one find nothing left to do.
        with disk_faults(replacement), FileLock(lock):
            new_files = sorted(replacement.glob("*"))
            for path in new_files[1:]:
                (folder / path.name).unlink(missing_ok=True)
            for path in new_files:
                os.replace(path, folder / path.name)

            # Only then the lock: as long as there are files to move, all processes must wait for the same one.
            with contextlib.suppress(FileNotFoundError):
                replacement.rmdir()
            lock.unlink(missing_ok=True)


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        JSONDecodeError: for text that is not JSON, and for text that is nested deeper, or has a longer number, than
            Python reads; for these ``json.loads`` has errors of other kinds.
        UnicodeDecodeError: for bytes that are no text.
    """
    try:
        return json.loads(text)
    except (JSONDecodeError, UnicodeDecodeError):
        raise
    # Callers then have one kind of error to catch.
    except RecursionError:
        raise JSONDecodeError("nested too deeply", "", 0) from None
    except ValueError:
        raise JSONDecodeError("a number with too many digits", "", 0) from None


def has_half_surrogate(text: str) -> bool:
    """Return whether ``text`` holds half of a surrogate pair: JSON's escapes can write it, UTF-8 cannot."""
    return _HALF_SURROGATE.search(text) is not None


def make_folder(folder: Path, flag: str = "--output_dir") -> None:
    """Create ``folder`` if it does not exist.

    Raises:
        ValueError: naming ``flag``, if it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ValueError(f"{flag} {folder}: this folder cannot be made ({fault.strerror})") from None


def output_file(name: str | None, flag: str = "--output_file") -> Path | None:
    """Return the path of an output, checked before there is anything to write; None if there is none.

    Raises:
        ValueError: naming ``flag``, if it is a folder, or its folder cannot be created.
    """
    if name is None:
        return None
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"{flag} {name}: Is a directory; give a file in it")
    make_folder(path.parent, flag)
    return path
