"""The common ground of all figures: their style, text from data as they show it, and drawing that costs no numbers.

A figure is drawn after the numbers are on disk, and one that fails is left out, so a failure costs no numbers.
"""

from __future__ import annotations

import contextlib
import math
import sys
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scaledown.evaluation.figures import colours
from scaledown.files import whole_file

WIDE_INCHES, NARROW_INCHES = 13, 4.6
"""Widths of the report's figures: on a computer's screen, and on a phone's, where their panels stand one below another.
"""
TITLE_POINTS, SUBTITLE_POINTS, LABEL_POINTS, SMALL_POINTS = 14, 10, 10, 9
LETTER_WIDTH = {TITLE_POINTS: 0.65, SUBTITLE_POINTS: 0.57}
"""Mean width of a letter, as a share of its size in points; titles are bold. A little too wide, so that lines fit."""
POINTS_AN_INCH = 72
MARGIN_INCHES, LINE_HEIGHT = 0.14, 1.35
UNSEEN = ("Cc", "Cs")
"""Unicode's categories of control characters and of lone surrogates, which UTF-8 and fonts do not have."""
AS_IT_IS = {"text.parse_math": False, "text.usetex": False, "axes.formatter.use_mathtext": False}
"""Settings that draw a ``$`` or ``_`` in a text as it is, not as the start of a formula."""
NO_GLYPH = r"(?s)Glyph .* missing from font"
"""Matplotlib's warning about a character that its font lacks, which it draws as a box."""
SHOWN_CHARACTERS = 200
Value = TypeVar("Value")


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Return an empty figure on the Agg canvas: no display and no global state.

    Args:
        width_inches: of the whole figure.
        height_inches: of its panels; :func:`head` adds its own.
    """
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained", facecolor=colours.BACKGROUND)
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    return figure


def panels(num_panels: int, panel_height: float, narrow: bool, columns: int = 4,
           width_inches: float = WIDE_INCHES) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels: up to ``columns`` beside one another, or all in one column if ``narrow``."""
    num_columns = 1 if narrow else min(columns, num_panels)
    num_rows = math.ceil(num_panels / num_columns)
    figure = new_figure(NARROW_INCHES if narrow else width_inches, panel_height * num_rows)

    grid = figure.subplots(num_rows, num_columns, squeeze=False).flat
    for axes in grid[num_panels:]:
        axes.set_axis_off()  # places of the last row that stay empty
    return figure, list(grid[:num_panels])


def head(figure: Figure, title: str, subtitle: str) -> None:
    """Write what the figure shows, and under it how it was measured; both are wrapped, and make the figure taller."""
    blocks = []
    for text, points, weight, colour in ((title, TITLE_POINTS, "bold", colours.INK),
                                         (subtitle, SUBTITLE_POINTS, "normal", colours.QUIET)):
        letters = (figure.get_figwidth() - 2 * MARGIN_INCHES) * POINTS_AN_INCH / (LETTER_WIDTH[points] * points)
        lines = textwrap.wrap(text, int(letters))
        height = len(lines) * points * LINE_HEIGHT / POINTS_AN_INCH
        style = {"fontsize": points, "fontweight": weight, "color": colour, "linespacing": 1.2}
        blocks.append(("\n".join(lines), height, style))

    panels_height = figure.get_figheight()
    total = panels_height + 2 * MARGIN_INCHES + sum(height for _, height, _ in blocks)
    figure.set_figheight(total)

    # From the top down; places are shares of the figure.
    top = total - MARGIN_INCHES
    for text, height, style in blocks:
        figure.text(MARGIN_INCHES / figure.get_figwidth(), top / total, text, ha="left", va="top", **style)
        top -= height + 0.03
    # The panels have the rest: left, bottom, width and height.
    figure.get_layout_engine().set(rect=(0, 0, 1, panels_height / total))


def quiet(axes: Axes, grid: str) -> None:
    """Leave only what is read: a light grid along ``grid`` ("x" or "y") and the lines of the axes."""
    # With a grid along x bars lie beside their names, and need no line on the left.
    hidden = ("top", "right") if grid == "y" else ("top", "right", "left")
    for side in hidden:
        axes.spines[side].set_visible(False)

    for side in ("left", "bottom"):
        axes.spines[side].set_color(colours.QUIET)
    axes.grid(axis=grid, color=colours.GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=colours.QUIET, length=0)


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move label positions apart to at least ``gap``, in their order, and no further than needed.

    Labels that meet become one block around their common middle, as far as the range 0 to 1 allows.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])  # from the lowest up

    blocks: list[list[int]] = []
    for index in order:
        blocks.append([index])
        # A block that grew may now meet the one below it, too.
        while len(blocks) > 1 and _start(blocks[-1], positions, gap) < _end(blocks[-2], positions, gap) + gap - 1e-9:
            upper = blocks.pop()
            blocks[-1].extend(upper)

    moved = list(positions)
    for block in blocks:
        start = _start(block, positions, gap)
        for step, index in enumerate(block):
            moved[index] = start + step * gap
    return moved


def _start(block: list[int], positions: Sequence[float], gap: float) -> float:
    """Return the lowest position of a block of labels that are ``gap`` apart."""
    height = gap * (len(block) - 1)
    middle = sum(positions[index] for index in block) / len(block)
    return max(0.0, min(middle - height / 2, 1.0 - height))


def _end(block: list[int], positions: Sequence[float], gap: float) -> float:
    return _start(block, positions, gap) + gap * (len(block) - 1)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with whole_file(path) as draft:
        figure.savefig(draft, format="png", dpi=150)


def printable(text: str) -> str:
    r"""Return ``text`` with invisible characters as escapes such as ``\x1b``; line breaks stay."""
    shown = []
    for character in text:
        is_unseen = unicodedata.category(character) in UNSEEN and character != "\n"
        shown.append(repr(character)[1:-1] if is_unseen else character)  # repr without its quotes

    return "".join(shown)


def one_line(text: str) -> str:
    """Return ``text`` on one line, printable."""
    return printable(" ".join(text.split()))


def two_lines(system_label: str) -> str:
    """Return a system's label as an axis has it, with what follows the comma below."""
    return system_label.replace(", ", ",\n")


def label(text: str, columns: int) -> str:
    """Return ``text`` on one line of at most ``columns``; wide characters such as Chinese ones take two."""
    line, width = one_line(text), 0
    for place, character in enumerate(line):
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1  # wide or full width
        if width > columns:
            return line[:place].rstrip() + "…"
    return line


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
