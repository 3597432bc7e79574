"""Files: written whole or not at all, alone or several together; JSON read with one kind of error.

The disk's faults become messages in plain words, and whatever is wrong with a user's JSON shows with its place.
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
"""How the hidden folder ends that holds files which are whole and take the places of old ones together."""


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
    """Give paths to write to; what was written takes the place of all of ``paths``, files of one folder, together.

    They are written into a hidden folder beside them. Its renaming is the one moment from which on the new files
    count: whoever is killed before leaves the old ones untouched, and whoever is killed later leaves what
    :func:`finish_replacements` ends, in the next process that reads or writes such files there.

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
            for path in paths:
                if path.is_dir():
                    raise OSError(errno.EISDIR, f"{path} is a folder")
            os.rename(drafts, replacement)
        finally:
            shutil.rmtree(drafts, ignore_errors=True)
        finish_replacements(folder)


def finish_replacements(folder: Path) -> None:
    """Finish what :func:`whole_files` was killed in the middle of: move the new files to the places of the old.

    All old files but one are deleted first. So at no moment do a new and an old file lie side by side, not even for
    a reader that does not know of this.

    Raises:
        ValueError: if ``folder`` may not be written to.
    """
    for replacement in sorted(folder.glob(f".*{REPLACEMENT}")):
        lock = replacement.with_name(f"{replacement.name}.lock")
        # Several processes of a run may come here at once: who comes second finds nothing left to do.
        with disk_faults(replacement), FileLock(lock):
            new_files = sorted(replacement.glob("*"))
            for path in new_files[1:]:
                (folder / path.name).unlink(missing_ok=True)
            for path in new_files:
                os.replace(path, folder / path.name)
            # Only then the lock: as long as there is something to move, all must wait for the same one.
            with contextlib.suppress(FileNotFoundError):
                replacement.rmdir()
            lock.unlink(missing_ok=True)


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        JSONDecodeError: for text that is not JSON; also where it is nested deeper, or a number in it longer, than
            Python reads, for which ``json.loads`` has errors of other kinds.
        UnicodeDecodeError: for bytes that are no text.
    """
    try:
        return json.loads(text)
    except (JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        raise JSONDecodeError("nested too deeply", "", 0) from None
    except ValueError:
        raise JSONDecodeError("a number with too many digits", "", 0) from None


def has_half_surrogate(text: str) -> bool:
    """Return whether ``text`` holds half of a surrogate pair: JSON's escapes can write it, UTF-8 cannot."""
    return _HALF_SURROGATE.search(text) is not None
