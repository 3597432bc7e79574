"""A command's process: Ctrl-C is one line and exit code 130 at any moment, and the end comes at once.

An interrupt that Python raises in the middle of an import may be swallowed there, or shows the library's inside. So
until a command's ``main`` runs, in any import and after ``main``, Ctrl-C ends the process there and then. In between it
is a KeyboardInterrupt as usual, so that a run can save what it has.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from scaledown.cli import commands

INTERRUPTED = 130
PACKAGES = ("scaledown", "lab")
"""The packages whose modules are commands, beside the scripts next to them."""
ROOT = Path(__file__).resolve().parents[2]
IMPORTING = "<frozen importlib"
"""Begins the file name of a frame in which Python imports something."""


class _State:
    """The state of this process's command: whether ``main`` runs, and the exit code that it has returned."""

    is_running = False
    exit_code: int | None = None


def watch() -> None:
    """Take over Ctrl-C and the end of the process, if it runs a command of this project.

    Called as the package is imported, which is the first thing that a command does.
    """
    if not _is_command() or threading.current_thread() is not threading.main_thread():
        return
    # A shell that starts a command in the background lets Ctrl-C be ignored; so it stays.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)
    # Registered before those of all libraries, so it runs after them.
    atexit.register(_end_at_once)


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt in the ``with`` block, which is a command's ``main``."""
    _State.is_running = True
    try:
        yield
    finally:
        _State.is_running = False


def note_exit_code(code: int) -> None:
    """Remember what ``main`` has returned, with which the process is about to end."""
    _State.exit_code = code


def _is_command() -> bool:
    """Return whether this process was started as ``python SCRIPT.py`` or ``python -m`` with one of this project."""
    if sys.argv[:1] == ["-m"]:
        # While the packages above a module are imported, its name stands in the original command line alone.
        place = sys.orig_argv.index("-m") if "-m" in sys.orig_argv else len(sys.orig_argv)
        return "".join(sys.orig_argv[place + 1:place + 2]).split(".")[0] in PACKAGES

    script = Path(sys.argv[0] if sys.argv else "").resolve()
    return script.parent == ROOT and script.name in commands.all_names()


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    if _State.is_running and not _is_in_import(frame):
        raise KeyboardInterrupt
    _quit(INTERRUPTED, "interrupted\n")


def _is_in_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING):
            return True
        frame = frame.f_back
    return False


def _end_at_once() -> None:
    """End the process with the code of ``main``: torch takes seconds to be taken down piece by piece.

    Not if several processes work together, who take leave of one another, nor after an error with a traceback.
    """
    if _State.exit_code is None or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        # Python itself tells that the output could not be written.
        return
    _quit(_State.exit_code)


def _quit(code: int, message: str = "") -> NoReturn:
    # What was printed before the interrupt may be in the middle of being written; then it cannot be flushed.
    with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
        sys.stdout.flush()
    # Not print: the interrupted code may be printing.
    with contextlib.suppress(OSError):
        os.write(2, message.encode())
    os._exit(code)
