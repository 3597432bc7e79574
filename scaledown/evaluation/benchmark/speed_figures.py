"""The benchmark's figures: the cost of a question by its number of documents, and its time by phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaledown.evaluation.figures import style
from scaledown.evaluation.figures.plots import PHASE_SHADES, phase_legend
from scaledown.evaluation.timing import PHASES

NAMES = {"scaledown": "ScaleDown", "naive_compressor": "naive compressor", "full_text": "full text",
         "truncated_text": "truncated text"}
COLOURS = {"naive_compressor": "#CC79A7"} | style.COLOURS
TIME_ROWS = 10
"""Number of documents at which the time by phase is drawn."""


def plot_by_documents(path: Path, rows: Sequence[Mapping[str, Any]], setup: str) -> None:
    """Draw milliseconds per question (median, with the 10th to 90th percentile) against the number of documents."""
    figure = style.new_figure(8.6, 5)
    axes = figure.subplots()
    style.quiet(axes, grid="y")

    ends = {}  # the last point of each line, beside which its name stands
    for system in dict.fromkeys(row["system"] for row in rows):
        system_rows = [row for row in rows if row["system"] == system]
        counts = [row["num_documents"] for row in system_rows]
        times = [row["ms_per_query"]["total"] for row in system_rows]
        axes.fill_between(counts, [time["p10"] for time in times], [time["p90"] for time in times],
                          color=COLOURS[system], alpha=0.15, linewidth=0)
        axes.plot(counts, [time["median"] for time in times], color=COLOURS[system], marker="o", linewidth=2)
        ends[system] = times[-1]["median"]

    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xticks(sorted({row["num_documents"] for row in rows}))
    axes.set_xlabel("documents a question", fontsize=9, color=style.QUIET)
    axes.set_ylabel("milliseconds a question", fontsize=9, color=style.QUIET)

    # The axis begins at 0, so a share of its end is a share of the panel's height.
    heights = style.spread([value / axes.get_ylim()[1] for value in ends.values()], gap=0.06)
    for system, height in zip(ends, heights, strict=True):
        axes.text(1.02, height, NAMES[system], transform=axes.transAxes, color=COLOURS[system], va="center")

    style.head(figure, "What a question costs as documents are added",
               f"Random weights, {setup}. Line: median; band: 10th to 90th percentile of the rounds.")
    style.save(figure, path)


def plot_by_phase(path: Path, rows: Sequence[Mapping[str, Any]], setup: str) -> None:
    """Draw the time of a question by phase, at 10 documents or the number nearest to it."""
    count = min((row["num_documents"] for row in rows), key=lambda number: abs(number - TIME_ROWS))
    system_rows = [row for row in rows if row["num_documents"] == count]  # one of each system

    figure = style.new_figure(10.5, 2.5 + 0.6 * len(system_rows))
    axes = figure.subplots()
    style.quiet(axes, grid="x")
    for place, row in enumerate(system_rows):
        # A bar for each phase, each beginning at the end of the one before.
        start = 0.0
        for phase in PHASES:
            value = row["ms_per_query"][phase]["median"]
            axes.barh(place, value, left=start, height=0.66, edgecolor="white", linewidth=0.6,
                      color=style.shade(COLOURS[row["system"]], PHASE_SHADES[phase]))
            start += value
        axes.text(start, place, f"  {style.short(start)} ms", va="center", color=style.INK)

    axes.set_yticks(range(len(system_rows)), [NAMES[row["system"]] for row in system_rows], color=style.INK)
    axes.set_ylim(len(system_rows) - 0.5, -0.5)  # from the top down
    axes.margins(x=0.12)
    axes.set_xlabel("milliseconds a question", fontsize=9, color=style.QUIET)
    phase_legend(figure)
    style.head(figure, f"Where the time goes with {count} documents", f"Random weights, {setup}. Medians.")
    style.save(figure, path)
