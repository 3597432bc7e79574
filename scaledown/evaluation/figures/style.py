"""The common style of all figures: one colour and name for each system, quiet axes, and saving without a display.

The colours are Okabe and Ito's, which colour-blind readers tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from scaledown.files import whole_file

INK = "#222222"
QUIET = "#666666"
GRID = "#e4e4e4"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

COLOURS = {"no_documents": "#999999", "truncated_text": "#E69F00", "before_training": "#56B4E9",
           "scaledown": "#0072B2", "full_text": "#D55E00"}
LABELS = {"no_documents": "No documents", "truncated_text": "Truncated text,\nsame token budget",
          "before_training": "ScaleDown,\nbefore training", "scaledown": "ScaleDown,\nafter training",
          "full_text": "Full text"}


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Return an empty figure on the Agg canvas: no display and no global state."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    return figure


def head(figure: Figure, title: str, subtitle: str) -> None:
    """Write what the figure shows in one line, and under it how it was measured."""
    inch = 1 / figure.get_figheight()  # as a share of the figure's height
    figure.text(0.015, 1 - 0.14 * inch, title, ha="left", va="top", fontsize=14, fontweight="bold", color=INK)
    figure.text(0.015, 1 - 0.46 * inch, subtitle, ha="left", va="top", fontsize=10, color=QUIET)
    # The panels share the rest: left, bottom, width and height of the figure.
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.72 * inch))


def quiet(axes: Axes, grid: str) -> None:
    """Leave only what is read: a light grid along ``grid`` ("x" or "y") and the lines of the axes."""
    # With a grid along x bars lie beside their names, and need no line on the left.
    hidden = ("top", "right") if grid == "y" else ("top", "right", "left")
    for side in hidden:
        axes.spines[side].set_visible(False)

    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, length=0)


def shade(colour: str, strength: float) -> tuple[float, float, float]:
    """Return ``colour`` mixed with white: 1 is the colour itself, 0 is white."""
    red, green, blue = (1 - strength * (1 - channel) for channel in to_rgb(colour))
    return red, green, blue


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


def short(value: float) -> str:
    """Return a number as a label: three significant digits, or all digits before the point from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
