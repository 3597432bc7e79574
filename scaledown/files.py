"""Files that are whole or not there at all, alone or several together, and the disk's faults in plain words."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

WHAT_TO_DO = "what is finished is kept: mend that, and run the same command again"
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
