"""The figures of a command: each is drawn by itself after the numbers are on disk, so a failure costs no numbers."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import matplotlib

AS_IT_IS = {"text.parse_math": False, "text.usetex": False, "axes.formatter.use_mathtext": False}
"""Settings that draw a ``$`` or ``_`` in a text as it is, not as the start of a formula."""
NO_GLYPH = r"(?s)Glyph .* missing from font"
"""Matplotlib's warning about a character that its font lacks, which it draws as a box."""
SHOWN_CHARACTERS = 200
Value = TypeVar("Value")


class Figures:
    """The figures of ``folder``: one that fails for any reason is left out with a warning, and the command goes on.

    Attributes:
        drawn: names of the files that were written.
        left_out: by the names of the others, why they were not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drawn: list[str] = []
        self.left_out: dict[str, str] = {}

    def draw(self, name: str, plot: Callable[..., None], *data: Any) -> None:
        """Draw the figure ``name`` by ``plot(path, *data)``."""
        path = self.folder / name

        def plot_whole() -> None:
            with matplotlib.rc_context(AS_IT_IS), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=NO_GLYPH)
                plot(path, *data)
            self.drawn.append(name)  # not reached if the plot fails

        self.attempt(name, plot_whole)

    def attempt(self, name: str, find: Callable[..., Value], *data: Any) -> Value | None:
        """Return ``find(*data)``, which only the figure ``name`` needs; None if that fails."""
        try:
            return find(*data)
        except Exception as fault:  # noqa: BLE001 - a picture is not worth a run, whatever went wrong in it
            self._leave_out(name, fault)
            return None

    def _leave_out(self, name: str, fault: Exception) -> None:
        path = self.folder / name
        # The message's first line, without the path, which the warning and the page say themselves.
        message = str(fault).strip().removeprefix(f"{path}: ").partition("\n")[0][:SHOWN_CHARACTERS] or "no message"
        # A ValueError is worded for users; of others the type says more than the message.
        self.left_out[name] = message if isinstance(fault, ValueError) else f"{type(fault).__name__}: {message}"
        print(f"warning: {path}: this figure is left out ({self.left_out[name]})", file=sys.stderr)
        with contextlib.suppress(OSError):
            # An earlier run's figure would show other numbers.
            path.unlink(missing_ok=True)
