"""Times in words, and progress bars in a log file: a line now and then instead of a bar that is redrawn.

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
from weakref import WeakSet

from tqdm import tqdm

SECONDS_A_LINE = 30
"""The shortest time between two lines of a log file about the same work."""
LONGEST_SILENCE_SECONDS = 600
UP = "\x1b[A"
"""The escape sequence that moves the cursor up a line: written by a bar below another one when it is drawn."""
_CURSOR_MOVES = re.compile(r"(\r\n|\r|\n|\x1b\[A)")
_BLOCKS = re.compile(r"(?<=%)\|[^|]*\|")


def duration(seconds: float) -> str:
    """Return a time in words, to two units at most, such as "40 s", "12 min" or "3 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"

    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h"


class Bar(tqdm):
    """tqdm's bar; while it is open, it is among :func:`open_bars`."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        if not self.disable:
            _open.add(self)

    def close(self) -> None:
        """End the bar."""
        _open.discard(self)
        super().close()


_open: WeakSet[Bar] = WeakSet()


def open_bars() -> list[Bar]:
    """Return the bars of this project that are drawn now."""
    return list(_open)


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

    The text after a carriage return is held as the bar. It is written ``SECONDS_A_LINE`` after the bar's start, then
    after twice the time, and so on up to ``LONGEST_SILENCE_SECONDS``: an hour comes to ten lines. A bar that was
    written is written once more when it is finished, which ends its line. So a bar of a few seconds leaves no line, nor
    does one that is erased.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # The bar as it is drawn so far; None if the stream is not in a bar.
        self._bar: str | None = None
        # The bar above, if two are drawn at once.
        self._above, self._has_two_bars = "", False
        # The time of the bar's last line; as long as it has none, that of its start; and the wait for the next one.
        self._last_line, self._last_time, self._has_line = "", monotonic(), False
        self._wait = SECONDS_A_LINE

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Pass ``text`` on, or hold it as part of a bar."""
        if text.strip() and not _CURSOR_MOVES.match(text):
            # A message gets its own line; the bar will be drawn again.
            self._bar = None
            self._leave_bars()

        for part in _CURSOR_MOVES.split(text):
            if part == "\r":
                if self._bar is None and not self._has_line:
                    self._last_time, self._wait = monotonic(), SECONDS_A_LINE
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

        if self._bar and monotonic() - self._last_time >= self._wait:
            self._has_line, self._wait = True, min(2 * self._wait, LONGEST_SILENCE_SECONDS)
            self._leave_bars()
            self._bar = ""
        return len(text)

    def end(self) -> None:
        """Write the bars that are held and were written before, each as a line."""
        self._leave_bars()
        self._has_line = False

    def _leave_bars(self) -> None:
        for bar in (self._above, self._bar or ""):
            # Blocks are for the eye that sees them grow; the percentage stays.
            line = _BLOCKS.sub("", bar).rstrip()
            # The same line twice in a row would say nothing new.
            if self._has_line and line and line != self._last_line:
                self._stream.write(line + "\n")
                self._last_line, self._last_time = line, monotonic()

        self._bar = None
        self._above, self._has_two_bars = "", False
        self._stream.flush()
