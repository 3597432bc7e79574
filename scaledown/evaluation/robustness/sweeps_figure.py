"""The figure of the robustness sweeps: one panel per sweep, one line per system, higher is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from scaledown.evaluation.figures import style
from scaledown.evaluation.robustness.sweeps import NUM_DOCUMENTS, PLACES_AMONG

Rows = Sequence[Mapping[str, Any]]
PANELS = {
    "num_documents": ("More documents", "documents of a question"),
    "gold_place": ("Where the right one stands", f"place of the right document, of {PLACES_AMONG}"),
    "alike_share": ("Documents that look like it", f"share of look-alikes among the {NUM_DOCUMENTS - 1} wrong ones"),
    "document_tokens": ("Longer documents", "tokens of a document, filled up with other text"),
    "num_memory_tokens": ("Fewer embeddings", "memory tokens of a document"),
}
EVEN_PANELS = ("num_documents", "num_memory_tokens")
"""Panels whose values grow by factors, which are drawn at even distances."""
LABELS = {"scaledown": "ScaleDown", "full_text": "full text", "truncated_text": "truncated text, same budget"}


def plot_robustness(path: Path, rows: Rows, metric: str = "exact_match") -> None:
    """Draw every sweep that has rows.

    Args:
        path: the PNG's path.
        rows: ``sweep``, ``value``, ``system``, and averages and intervals as the evaluator gives them.
        metric: the one to draw.
    """
    measured = {row["sweep"] for row in rows}
    sweeps = [name for name in PANELS if name in measured]
    num_lines, num_columns = (len(sweeps) + 2) // 3, min(3, len(sweeps))  # three panels beside one another
    figure = style.new_figure(4.2 * num_columns, 1.0 + 3.5 * num_lines)
    grid = figure.subplots(num_lines, num_columns, squeeze=False)
    for axes in grid.flat[len(sweeps):]:
        axes.set_axis_off()

    for axes, name in zip(grid.flat, sweeps, strict=False):
        sweep_rows = [row for row in rows if row["sweep"] == name]
        _panel(axes, name, sweep_rows, metric)

    # The legend has a place of the grid to itself if one is free.
    legend_axes = grid.flat[len(sweeps)] if len(sweeps) < grid.size else grid.flat[0]
    _legend(legend_axes, {row["system"] for row in rows})

    by_number = [row for row in rows if row["sweep"] == "num_documents" and row["system"] == "scaledown"]
    few, many = by_number[0], by_number[-1]  # measured in rising order
    style.head(figure, f"{metric.replace('_', ' ').capitalize()} of ScaleDown: {few[f'{metric}_avg']:.2f} with "
               f"{few['value']:g} document, {many[f'{metric}_avg']:.2f} with {many['value']:g}",
               f"n = {few['n']} questions, the same at every point. Bars: 95% bootstrap interval; up is better.")
    style.save(figure, path)


def _panel(axes: Axes, name: str, rows: Rows, metric: str) -> None:
    title, unit = PANELS[name]
    style.quiet(axes, grid="y")
    values = sorted({row["value"] for row in rows})
    positions = {value: number if name in EVEN_PANELS else value for number, value in enumerate(values)}

    for system in LABELS:
        line = sorted((row for row in rows if row["system"] == system), key=lambda row: row["value"])
        if not line:
            continue
        x = [positions[row["value"]] for row in line]
        means = [row[f"{metric}_avg"] for row in line]
        lows, highs = zip(*(row[f"{metric}_ci95"] for row in line), strict=True)
        # The means in front; the intervals of three systems may cross.
        axes.plot(x, means, color=style.COLOURS[system], linewidth=2, marker="o", markersize=4.5, zorder=3)
        axes.vlines(x, lows, highs, color=style.COLOURS[system], linewidth=1.2, alpha=0.45)

    axes.set_ylim(-0.02, 1.04)
    labels = [f"{value:g}" for value in values]
    if name == "document_tokens" and values[0] == 0:
        labels[0] = "as is"  # not lengthened
    axes.set_xticks(list(positions.values()), labels, fontsize=9)
    axes.margins(x=0.08)
    axes.set_title(title, loc="left", fontsize=12, color=style.INK)
    axes.set_xlabel(unit, fontsize=9, color=style.QUIET)


def _legend(axes: Axes, systems: set[str]) -> None:
    """Write the names of the lines, in their colours."""
    drawn = [name for name in LABELS if name in systems]  # in the labels' order
    for number, system in enumerate(drawn):
        axes.text(0.06, 0.8 - 0.13 * number, f"\N{BLACK CIRCLE} {LABELS[system]}", color=style.COLOURS[system],
                  fontsize=12, fontweight="bold", transform=axes.transAxes, va="center")
