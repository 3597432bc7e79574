"""Progress bars in a log file: a line every half minute instead of a bar that is redrawn.

tqdm redraws a bar ten times a second, by a carriage return, and so do the libraries that have bars (transformers'
Trainer, datasets, bm25s). In a log file each redraw would be a line.
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
"""The escape sequence that moves the cursor up a line: written by a bar below another one when it is drawn."""
_CURSOR_MOVES = re.compile(r"(\r\n|\r|\n|\x1b\[A)")


@contextlib.contextmanager
def as_lines() -> Iterator[None]:
    """Turn bars into lines in the ``with`` block, unless standard error is a terminal."""
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
    """A text stream that passes everything on but bars, of which it writes a line now and then.

    The text after a carriage return is held as the bar. It is written when the bar is finished, which ends its line, or
    when ``SECONDS_A_LINE`` have passed since the last line. A bar that is erased leaves no line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # The bar as it is drawn so far; None if the stream is not in a bar.
        self._bar: str | None = None
        # The bar above, if two are drawn at once.
        self._above, self._has_two_bars = "", False
        self._last_line, self._last_time = "", monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Pass ``text`` on, or hold it as part of a bar."""
        if text.strip() and not _CURSOR_MOVES.match(text):
            # A message gets its own line; the bar will be drawn again.
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
                # Either this bar has ended, or the cursor moves down to the bar below it: the next move tells.
                self._above, self._bar = self._bar, ""
            else:
                self.end()

        if self._bar and monotonic() - self._last_time >= SECONDS_A_LINE:
            self.end()
            self._bar = ""
        return len(text)

    def end(self) -> None:
        """Write the bars that are held, each as a line."""
        # The same line twice in a row would say nothing new.
        for bar in (self._above, self._bar or ""):
            line = bar.rstrip()
            if line and line != self._last_line:
                self._stream.write(line + "\n")
                self._last_line, self._last_time = line, monotonic()

        self._bar = None
        self._above, self._has_two_bars = "", False
        self._stream.flush()
