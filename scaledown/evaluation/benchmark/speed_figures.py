"""The benchmark's figures: what a question costs as documents grow, and where its time goes."""

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


def plot_by_documents(path: Path, rows: Sequence[Mapping[str, Any]], where: str) -> None:
    """Milliseconds a question (median, with the 10th to 90th percentile) against the number of documents."""
    figure = style.new_figure(8.6, 5)
    axes = figure.subplots()
    style.quiet(axes, grid="y")
    ends = {}
    for system in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system]
        counts = [row["num_documents"] for row in own]
        times = [row["ms_per_query"]["total"] for row in own]
        axes.fill_between(counts, [time["p10"] for time in times], [time["p90"] for time in times],
                          color=COLOURS[system], alpha=0.15, linewidth=0)
        axes.plot(counts, [time["median"] for time in times], color=COLOURS[system], marker="o", linewidth=2)
        ends[system] = times[-1]["median"]
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xticks(sorted({row["num_documents"] for row in rows}))
    axes.set_xlabel("documents a question", fontsize=9, color=style.QUIET)
    axes.set_ylabel("milliseconds a question", fontsize=9, color=style.QUIET)
    heights = style.spread([value / axes.get_ylim()[1] for value in ends.values()], gap=0.06)
    for (system, _), height in zip(ends.items(), heights, strict=True):
        axes.text(1.02, height, NAMES[system], transform=axes.transAxes, color=COLOURS[system], va="center")
    style.head(figure, "What a question costs as documents are added",
               f"Random weights, {where}. Line: median; band: 10th to 90th percentile of the rounds.")
    style.save(figure, path)


def plot_by_phase(path: Path, rows: Sequence[Mapping[str, Any]], where: str) -> None:
    """Where the time of a question goes, at 10 documents or the number nearest to it."""
    count = min((row["num_documents"] for row in rows), key=lambda number: abs(number - TIME_ROWS))
    own = [row for row in rows if row["num_documents"] == count]
    figure = style.new_figure(10.5, 2.5 + 0.6 * len(own))
    axes = figure.subplots()
    style.quiet(axes, grid="x")
    for place, row in enumerate(own):
        start = 0.0
        for phase in PHASES:
            value = row["ms_per_query"][phase]["median"]
            axes.barh(place, value, left=start, height=0.66, edgecolor="white", linewidth=0.6,
                      color=style.shade(COLOURS[row["system"]], PHASE_SHADES[phase]))
            start += value
        axes.text(start, place, f"  {style.short(start)} ms", va="center", color=style.INK)
    axes.set_yticks(range(len(own)), [NAMES[row["system"]] for row in own], color=style.INK)
    axes.set_ylim(len(own) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.set_xlabel("milliseconds a question", fontsize=9, color=style.QUIET)
    phase_legend(figure)
    style.head(figure, f"Where the time goes with {count} documents", f"Random weights, {where}. Medians.")
    style.save(figure, path)
