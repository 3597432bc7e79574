"""A sign of life on a terminal: while a command says nothing for some seconds, a counter of these seconds, or its bar.

The counter stands on a line of its own, and is erased before the next text.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any, TextIO

from scaledown.progress import open_bars

SILENT_SECONDS = 2.0
"""Silence before the first sign of life, and between two of them one second passes."""
ERASE_LINE = "\r\x1b[K"
"""Move to the start of the line and clear it."""


@contextlib.contextmanager
def beating() -> Iterator[None]:
    """Give signs of life in the ``with`` block, if standard error is a terminal; of several processes, in the first."""
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        yield
        return

    pulse = Pulse(sys.stderr)
    streams = [contextlib.redirect_stderr(_Watched(sys.stderr, pulse))]
    # Output that goes to a file moves no cursor.
    if sys.stdout is not None and sys.stdout.isatty():
        streams.append(contextlib.redirect_stdout(_Watched(sys.stdout, pulse)))
    with contextlib.ExitStack() as stack:
        for stream in streams:
            stack.enter_context(stream)
        stack.callback(pulse.end)
        pulse.start()
        yield


class Pulse:
    """A thread that looks at the terminal every second, and what it has drawn there.

    Args:
        terminal: where to draw.
    """

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._lock = threading.RLock()
        # A process that is forked gets no thread, and perhaps a lock that its parent holds.
        os.register_at_fork(after_in_child=self._forget)
        self._stopped = threading.Event()
        self._last_text, self._is_line_start, self._is_drawn = monotonic(), True, False

    def start(self) -> None:
        """Begin to look."""
        # A daemon does not keep the process from ending.
        threading.Thread(target=self._watch, name="pulse", daemon=True).start()

    def end(self) -> None:
        """Look no more, and leave nothing behind."""
        self._stopped.set()
        with self._lock:
            self._erase()

    def write(self, stream: TextIO, text: str) -> int:
        """Write ``text`` to ``stream``, one of the terminal's, in place of the counter."""
        with self._lock:
            self._erase()
            if text:
                self._last_text, self._is_line_start = monotonic(), text.endswith(("\n", "\r", ERASE_LINE))
            return stream.write(text)

    def beat(self) -> None:
        """Give a sign of life, if it is time for one."""
        silent = monotonic() - self._last_text
        if silent < SILENT_SECONDS or self._stopped.is_set():
            return
        # A bar counts its own seconds when it is drawn again.
        if bars := open_bars():
            for bar in bars:
                bar.refresh()
            return

        with self._lock:
            # In the middle of a line something else is being written, such as a library's bar.
            if self._is_line_start and not self._stopped.is_set():
                self._terminal.write(f"\r  {silent:.0f} s ...")
                self._terminal.flush()
                self._is_drawn = True

    def _watch(self) -> None:
        while not self._stopped.wait(1.0):
            # A terminal that is gone, or a bar that has just been closed, ends the signs and not the command.
            with contextlib.suppress(OSError, ValueError):
                self.beat()

    def _erase(self) -> None:
        if self._is_drawn:
            self._terminal.write(ERASE_LINE)
            self._terminal.flush()
            self._is_drawn = False

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._is_drawn = False


class _Watched:
    """A stream of the terminal that tells a :class:`Pulse` of all that is written to it."""

    def __init__(self, stream: TextIO, pulse: Pulse) -> None:
        self._stream, self._pulse = stream, pulse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text``, after the counter is erased."""
        return self._pulse.write(self._stream, text)
