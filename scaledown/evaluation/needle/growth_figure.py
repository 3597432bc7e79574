"""The growth of time and memory with the length of a document: a line for each system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from scaledown.evaluation.figures import colours, style
from scaledown.evaluation.figures.text_tables import short

LABELS = {"scaledown": "ScaleDown", "full_text": "Full text", "cut_text": "Cut text"}
COLOURS = {"scaledown": colours.SYSTEMS["scaledown"], "full_text": colours.SYSTEMS["full_text"],
           "cut_text": colours.SYSTEMS["truncated_text"]}
PANEL_HEIGHT, MEBIBYTE = 3.8, 2**20

Row = Mapping[str, Any]


def plot_growth(path: Path, rows: Sequence[Row]) -> None:
    """Draw time to the first token and memory against the length, on scales of equal factors.

    Args:
        path: the PNG's path.
        rows: ``length_tokens``, ``system``, ``first_token_ms`` with ``median_ms``, and ``peak_bytes`` or None.
    """
    times, sizes = [], []
    for row in rows:
        times.append((row["system"], row["length_tokens"], row["first_token_ms"]["median_ms"]))
        # The system may not tell, and a call that needs next to nothing has no place on such a scale.
        if row["peak_bytes"]:
            sizes.append((row["system"], row["length_tokens"], row["peak_bytes"] / MEBIBYTE))

    figure, (left, right) = style.panels(2, PANEL_HEIGHT, narrow=False, columns=2)
    _lines(left, times, "Time to the first token", "ms, median")
    _lines(right, sizes, "Memory that a question takes", "MiB, at its peak")
    style.head(figure, title(rows), f"One question with one document, {rows[0]['num_queries']} timed at each length, "
               "systems in turns. Both scales have equal distances for equal factors.")
    style.save(figure, path)


def title(rows: Sequence[Row]) -> str:
    """Return the first token's times at the greatest length at which full text was timed too, and how they compare."""
    times = {(row["length_tokens"], row["system"]): row["first_token_ms"]["median_ms"] for row in rows}
    both = [length for length, system in times if system == "full_text" and (length, "scaledown") in times]
    if not both:
        longest = max(row["length_tokens"] for row in rows)
        return f"The first token after {longest:,} tokens: {short(times[longest, 'scaledown'])} ms"
    ours, text = times[max(both), "scaledown"], times[max(both), "full_text"]
    return (f"The first token after {max(both):,} tokens: {short(ours)} ms, {short(text)} ms from full text, "
            f"{text / ours:.1f} times as long")


def _lines(axes: Axes, points: Sequence[tuple[str, int, float]], heading: str, unit: str) -> None:
    style.quiet(axes, grid="y")
    for number, (system, label) in enumerate(LABELS.items()):
        line = sorted((length, value) for name, length, value in points if name == system)
        if line:
            lengths, values = zip(*line, strict=True)
            axes.plot(lengths, values, color=COLOURS[system], linewidth=2, marker="o", markersize=4.5)
        axes.text(0.02, 0.95 - 0.08 * number, f"\N{BLACK CIRCLE} {label}", transform=axes.transAxes, va="top",
                  fontsize=style.LABEL_POINTS, fontweight="bold", color=colours.for_text(COLOURS[system]))

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    lengths = sorted({length for _, length, _ in points})
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths], fontsize=style.SMALL_POINTS)
    axes.xaxis.set_minor_locator(NullLocator())
    # Plain numbers, not powers of ten.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title(heading, loc="left", fontsize=12, color=colours.INK)
    axes.set_xlabel("tokens of the document", fontsize=style.SMALL_POINTS, color=colours.QUIET)
    axes.set_ylabel(unit, fontsize=style.SMALL_POINTS, color=colours.QUIET)
