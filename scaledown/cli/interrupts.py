"""A command's process: Ctrl-C is one line and exit code 130 at any moment, and the end comes at once.

An interrupt that Python raises in the middle of an import may be swallowed there, or shows the library's inside. So
until a command's ``main`` runs, in any import and after ``main``, Ctrl-C ends the process there and then. In between it
is a KeyboardInterrupt as usual, so that a run can save what it has.

The package imports this module before all others, and it imports next to nothing: only from its end on is Ctrl-C quiet.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

from scaledown.cli.commands import COMMANDS

INTERRUPTED = 130
PACKAGES = ("scaledown", "lab")
"""The packages whose modules are commands, beside the scripts next to them."""
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMPORTING = "<frozen importlib"
"""Begins the file name of a frame in which Python imports something."""


class CommandState:
    """The state of this process's command, as a context in which its ``main`` runs.

    Attributes:
        is_running: whether ``main`` runs; then Ctrl-C is a KeyboardInterrupt.
        exit_code: what ``main`` has returned; None before, and after an error with a traceback.
    """

    def __init__(self) -> None:
        self.is_running = False
        self.exit_code: int | None = None

    def __enter__(self) -> None:
        self.is_running, self.exit_code = True, None

    def __exit__(self, *fault: object) -> None:
        self.is_running = False


state = CommandState()


def _watch() -> None:
    """Take over Ctrl-C and the end of the process, if it runs a command of this project."""
    if not _is_command():
        return
    # A shell that starts a command in the background lets Ctrl-C be ignored; so it stays.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)
    # Registered before those of all libraries, so it runs after them.
    atexit.register(_end_at_once)


def _is_command() -> bool:
    """Return whether this process was started as ``python SCRIPT.py`` or ``python -m`` with one of this project."""
    if sys.argv[:1] == ["-m"]:
        # While the packages above a module are imported, its name stands in the original command line alone.
        words = sys.orig_argv
        place = words.index("-m") + 1 if "-m" in words else len(words)
        return place < len(words) and words[place].split(".")[0] in PACKAGES

    folder, name = os.path.split(os.path.abspath(sys.argv[0] if sys.argv else ""))
    return folder == ROOT and any(name in names for names in COMMANDS.values())


def _on_interrupt(number: int, frame: object) -> None:
    if state.is_running and not _is_in_import(frame):
        raise KeyboardInterrupt
    try:
        sys.stdout.flush()
        # Not print: the interrupted code may be printing.
        # A terminal may show a counter of seconds there, which is erased.
        os.write(2, b"\r\x1b[Kinterrupted\n" if os.isatty(2) else b"interrupted\n")
    finally:
        # Without its last words, if they are in the middle of being written or cannot be.
        os._exit(INTERRUPTED)


def _is_in_import(frame: object) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING):
            return True
        frame = frame.f_back
    return False


def _end_at_once() -> None:
    """End the process with the code of ``main``: torch takes seconds to be taken down piece by piece.

    Not if several processes work together, who take leave of one another, nor after an error with a traceback.
    """
    if state.exit_code is None or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as fault:
        # Whoever reads the output, such as "head", may have read enough; other faults Python itself tells.
        if not isinstance(fault, BrokenPipeError):
            return
    os._exit(state.exit_code)


_watch()
