"""The figure of the robustness sweeps: a panel for each sweep, a line for each system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from scaledown.evaluation.figures import colours, style
from scaledown.evaluation.figures.text_tables import score
from scaledown.evaluation.metrics import METRICS
from scaledown.evaluation.robustness.sweeps import NUM_DOCUMENTS, PLACES_AMONG
from scaledown.evaluation.systems import LABELS

PANELS = {
    "num_documents": ("More documents", "number of documents of a question"),
    "gold_place": ("Where the right one stands", f"place of the right document, of {PLACES_AMONG}"),
    "alike_share": ("Documents that look like it", f"share of look-alikes among the {NUM_DOCUMENTS - 1} wrong ones"),
    "document_tokens": ("Longer documents", "tokens of a document, filled up with other text"),
    "num_memory_tokens": ("Fewer embeddings", "memory tokens of a document"),
}
POINTS = {
    "num_documents": "{:g} documents", "gold_place": "the right document at place {:g}",
    "alike_share": "{:.0%} look-alikes", "document_tokens": "documents of {:g} tokens",
    "num_memory_tokens": "{:g} memory tokens a document",
}
"""Points of the sweeps in words."""
EVEN_PANELS = ("num_documents", "num_memory_tokens")
"""Panels whose values grow by factors, which are drawn at even distances."""
DRAWN_SYSTEMS = ("scaledown", "full_text", "truncated_text")
COLUMNS, PANEL_HEIGHT = 3, 3.5

Row = Mapping[str, Any]


def plot_robustness(path: Path, rows: Sequence[Row], metric: str = "exact_match") -> None:
    """Draw every sweep that has rows.

    Args:
        path: the PNG's path.
        rows: ``sweep``, ``value``, ``system``, and averages and intervals as the evaluator gives them.
        metric: the one to draw.
    """
    measured = {row["sweep"] for row in rows}
    sweeps = [name for name in PANELS if name in measured]
    # One place more, for the names of the lines.
    figure, places = style.panels(len(sweeps) + 1, PANEL_HEIGHT, narrow=False, columns=COLUMNS)
    for axes, name in zip(places, sweeps, strict=False):
        _panel(axes, name, [row for row in rows if row["sweep"] == name], metric)
    _legend(places[-1], {row["system"] for row in rows})

    style.head(figure, title(rows, metric),
               f"n = {rows[0]['n']} questions, the same at every point. Dots: mean, 0 (worst) to 1 (best). Bars: 95% "
               "bootstrap interval.")
    style.save(figure, path)


def title(rows: Sequence[Row], metric: str) -> str:
    """Return the results with the fewest and the most documents, and the weak side: the point with the lowest mean."""
    key = f"{metric}_avg"
    ours = [row for row in rows if row["system"] == "scaledown"]
    by_number = sorted((row for row in ours if row["sweep"] == "num_documents"), key=lambda row: row["value"])
    sentence = f"{METRICS[metric].title} of ScaleDown"
    if by_number:
        few, many = by_number[0], by_number[-1]
        sentence += f": {score(few[key])} with {point(few)}, {score(many[key])} with {point(many)}; its weak side is"
    else:
        sentence += " is lowest with"

    weakest = min(ours, key=lambda row: row[key])
    sentence += f" {point(weakest)}: {score(weakest[key])}"
    # Beside it what full text reaches there, since a question may be hard for both.
    same_point = (weakest["sweep"], weakest["value"])
    for row in rows:
        if row["system"] == "full_text" and (row["sweep"], row["value"]) == same_point:
            sentence += f" (full text {score(row[key])})"
    return sentence


def point(row: Row) -> str:
    """Return a point of a sweep in words, such as "20 documents"."""
    if row["sweep"] == "num_documents" and row["value"] == 1:
        return "1 document"
    if row["sweep"] == "document_tokens" and row["value"] == 0:
        return "documents as they are"
    return POINTS[row["sweep"]].format(row["value"])


def _panel(axes: Axes, name: str, rows: Sequence[Row], metric: str) -> None:
    heading, unit = PANELS[name]
    style.quiet(axes, grid="y")
    values = sorted({row["value"] for row in rows})
    positions = {value: number if name in EVEN_PANELS else value for number, value in enumerate(values)}

    for system in DRAWN_SYSTEMS:
        line = sorted((row for row in rows if row["system"] == system), key=lambda row: row["value"])
        if not line:
            continue
        x = [positions[row["value"]] for row in line]
        means = [row[f"{metric}_avg"] for row in line]
        lows, highs = zip(*(row[f"{metric}_ci95"] for row in line), strict=True)
        # The means in front; the intervals of three systems may cross.
        axes.plot(x, means, color=colours.SYSTEMS[system], linewidth=2, marker="o", markersize=4.5, zorder=3)
        axes.vlines(x, lows, highs, color=colours.SYSTEMS[system], linewidth=1.2, alpha=0.45)

    axes.set_ylim(-0.02, 1.04)
    labels = [f"{value:g}" for value in values]
    if name == "document_tokens" and values[0] == 0:
        labels[0] = "as is"  # not lengthened
    axes.set_xticks(list(positions.values()), labels, fontsize=style.SMALL_POINTS)
    axes.margins(x=0.08)
    axes.set_title(heading, loc="left", fontsize=12, color=colours.INK)
    axes.set_xlabel(unit, fontsize=style.SMALL_POINTS, color=colours.QUIET)
    axes.set_ylabel(f"{METRICS[metric].name}, 0 to 1", fontsize=style.SMALL_POINTS, color=colours.QUIET)


def _legend(axes: Axes, systems: set[str]) -> None:
    """Write the names of the lines, in their colours."""
    axes.set_axis_off()
    drawn = [name for name in DRAWN_SYSTEMS if name in systems]
    for number, system in enumerate(drawn):
        axes.text(0.06, 0.8 - 0.16 * number, f"\N{BLACK CIRCLE} {style.two_lines(LABELS[system])}", va="top",
                  color=colours.for_text(colours.SYSTEMS[system]), fontsize=12, fontweight="bold",
                  transform=axes.transAxes)
