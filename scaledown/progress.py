"""Progress bars on standard error where no terminal shows them: a line every half minute instead of a redrawn bar.

tqdm redraws a bar ten times a second, by a carriage return, and so do the libraries that bring bars of their own
(transformers' Trainer, datasets, bm25s). In a log file each redraw would be a line.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from time import monotonic
from typing import Any, TextIO

SECONDS_A_LINE = 30
UP = "\x1b[A"
"""Moves the cursor up a line, as a bar below another one does when it is drawn."""
_CURSOR_MOVES = re.compile(r"(\r\n|\r|\n|\x1b\[A)")


@contextlib.contextmanager
def as_lines() -> Iterator[None]:
    """Let bars be drawn as lines inside, unless standard error is a terminal."""
    if sys.stderr is None or sys.stderr.isatty():
        yield
        return
    lines = _BarLines(sys.stderr)
    try:
        with contextlib.redirect_stderr(lines):
            yield
    finally:
        lines.end()


class _BarLines:
    """A text stream that passes on everything but bars, of which it shows what a terminal would, now and then.

    What follows a carriage return is held as the bar. It becomes a line when its own line ends, as that of a finished
    bar does, or when ``SECONDS_A_LINE`` have passed since the last one. A bar that is wiped out leaves none.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: str | None = None
        self._above, self._has_two_bars = "", False
        self._last_line, self._last_time = "", monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Pass ``text`` on, or hold it."""
        if text.strip() and not _CURSOR_MOVES.match(text):
            # A message gets a line of its own; the bar will be drawn again.
            self._bar = None
            self.end()

        for part in _CURSOR_MOVES.split(text):
            if part == "\r":
                self._bar = ""
            elif part == UP:
                self._above, self._has_two_bars = "", True
            elif self._bar is None:
                self._stream.write(part)
            elif part not in ("\n", "\r\n"):
                self._bar += part
            elif self._has_two_bars and not self._above:
                # The end of this bar, or the way down to the one below it: the next move tells.
                self._above, self._bar = self._bar, ""
            else:
                self.end()

        if self._bar and monotonic() - self._last_time >= SECONDS_A_LINE:
            self.end()
            self._bar = ""
        return len(text)

    def end(self) -> None:
        """End the bar's line."""
        for bar in (self._above, self._bar or ""):
            line = bar.rstrip()
            if line and line != self._last_line:
                self._stream.write(line + "\n")
                self._last_line, self._last_time = line, monotonic()
        self._bar = None
        self._above, self._has_two_bars = "", False
        self._stream.flush()
