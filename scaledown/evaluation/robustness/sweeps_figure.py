"""The figure of the robustness sweeps: one panel for each thing that varies, quality up, systems as lines."""

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
"""Panels whose values grow by factors: there they stand at even distances."""
LABELS = {"scaledown": "ScaleDown", "full_text": "full text", "truncated_text": "truncated text, same budget"}


def plot_robustness(path: Path, rows: Rows, metric: str = "exact_match") -> None:
    """Draw every sweep that has rows.

    Args:
        path: where the PNG goes.
        rows: ``sweep``, ``value``, ``system``, and averages and intervals as the evaluator gives them.
        metric: which one is drawn.
    """
    sweeps = [name for name in PANELS if any(row["sweep"] == name for row in rows)]
    figure = style.new_figure(4.2 * min(3, len(sweeps)), 1.0 + 3.5 * ((len(sweeps) + 2) // 3))
    grid = figure.subplots((len(sweeps) + 2) // 3, min(3, len(sweeps)), squeeze=False)
    for axes in grid.flat[len(sweeps):]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, sweeps, strict=False):
        _panel(axes, name, [row for row in rows if row["sweep"] == name], metric)
    _legend(grid.flat[len(sweeps)] if len(sweeps) < grid.size else grid.flat[0], {row["system"] for row in rows})
    usual = [row for row in rows if row["sweep"] == "num_documents" and row["system"] == "scaledown"]
    few, many = usual[0], usual[-1]
    style.head(figure, f"{metric.replace('_', ' ').capitalize()} of ScaleDown: {few[f'{metric}_avg']:.2f} with "
               f"{few['value']:g} document, {many[f'{metric}_avg']:.2f} with {many['value']:g}",
               f"n = {few['n']} questions, the same at every point. Bars: 95% bootstrap interval; up is better.")
    style.save(figure, path)


def _panel(axes: Axes, name: str, rows: Rows, metric: str) -> None:
    title, unit = PANELS[name]
    style.quiet(axes, grid="y")
    values = sorted({row["value"] for row in rows})
    places = {value: place if name in EVEN_PANELS else value for place, value in enumerate(values)}
    for system in LABELS:
        line = sorted((row for row in rows if row["system"] == system), key=lambda row: row["value"])
        if not line:
            continue
        at = [places[row["value"]] for row in line]
        axes.plot(at, [row[f"{metric}_avg"] for row in line], color=style.COLOURS[system], linewidth=2, marker="o",
                  markersize=4.5, zorder=3)
        axes.vlines(at, *zip(*(row[f"{metric}_ci95"] for row in line), strict=True), color=style.COLOURS[system],
                    linewidth=1.2, alpha=0.45)
    axes.set_ylim(-0.02, 1.04)
    labels = [f"{value:g}" if value or name != "document_tokens" else "as is" for value in values]
    axes.set_xticks(list(places.values()), labels, fontsize=9)
    axes.margins(x=0.08)
    axes.set_title(title, loc="left", fontsize=12, color=style.INK)
    axes.set_xlabel(unit, fontsize=9, color=style.QUIET)


def _legend(axes: Axes, systems: set[str]) -> None:
    """Names of the lines, in the free place of the grid."""
    for number, system in enumerate(name for name in LABELS if name in systems):
        axes.text(0.06, 0.8 - 0.13 * number, f"\N{BLACK CIRCLE} {LABELS[system]}", color=style.COLOURS[system],
                  fontsize=12, fontweight="bold", transform=axes.transAxes, va="center")
