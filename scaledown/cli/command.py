"""The frame of every command's ``main``: mistakes become one message, and Ctrl-C one line."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from scaledown import progress
from scaledown.cli import interrupts, loading_note, pulse
from scaledown.cli.interrupts import INTERRUPTED

USER_ERROR = 2
OUTPUT_CLOSED = 128 + signal.SIGPIPE
"""As shells say of a program that a closed pipe has ended."""
DISK_FAULTS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EISDIR,
               errno.ENOTDIR}
"""Errors of a disk that is full, that the user may not write to, or that has something else at that place."""
TORCH_WRITER = "inline_container"
"""Named in the RuntimeError that torch raises if the disk cannot take a file."""
Main = Callable[[Sequence[str] | None], int]


def command(main: Main) -> Main:
    """Decorate a script's ``main``: a ``ValueError`` (the user's mistake) becomes one message and exit code 2.

    So does a disk that cannot be written to; any other fault is ours and keeps its traceback. Standard output takes
    any text, warnings are one line, progress bars are lines if standard error is no terminal, and if it is one there
    are signs of life.
    """

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # As on standard error: a character that the encoding lacks, or half of one, is no reason to stop.
            sys.stdout.reconfigure(errors="backslashreplace")

        try:
            with (interrupts.state, _plain_warnings(), progress.as_lines(), pulse.beating(),
                  loading_note.on_import()):
                code = main(argv)
        except (ValueError, OSError, RuntimeError) as fault:
            if isinstance(fault, BrokenPipeError) and _is_output_closed():
                return OUTPUT_CLOSED
            message = _message(fault)
            if message is None:
                raise
            print(f"error: {message}", file=sys.stderr)
            code = USER_ERROR
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = INTERRUPTED
        interrupts.state.exit_code = code
        return code

    return guarded


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show a ``UserWarning`` as its text alone in the ``with`` block: whoever runs a command did not write its code."""
    with_place = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> str:
        return f"warning: {message}\n" if category is UserWarning else with_place(message, category, *place, **more)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = with_place


def _is_output_closed() -> bool:
    """Return whether the reader of standard output, such as "head", has gone; what is left is then written nowhere."""
    output = select.poll()
    # Errors are told without asking for any event.
    output.register(sys.stdout.fileno(), 0)
    if not output.poll(0):
        return False

    # Python flushes once more when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _message(fault: Exception) -> str | None:
    """Return the message for a fault that the user can mend; None for one of ours."""
    if isinstance(fault, ValueError):
        return str(fault)
    if isinstance(fault, OSError) and fault.errno in DISK_FAULTS:
        return f"{fault.filename or 'the disk'}: {fault.strerror}"
    if isinstance(fault, RuntimeError) and TORCH_WRITER in str(fault):
        return ("a checkpoint cannot be written: the disk is full or may not be written to. Mend that; --resume goes "
                "on from the last checkpoint")
    return None
