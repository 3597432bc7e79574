"""Figures of time and arithmetic by phase: the report's, and the benchmark's by documents and by phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from scaledown.evaluation.figures import style
from scaledown.evaluation.systems import LABELS
from scaledown.evaluation.timing import PHASES, Latency

PHASE_MEANINGS = {"compress": "compress: documents into memory embeddings", "prefill": "prefill: reading the prompt",
                  "decode": "decode: writing the answer"}
PHASE_SHADES = {"compress": 1.0, "prefill": 0.62, "decode": 0.3}
FLOPS_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1.0, ""))
TIME_ROWS = 10
"""Number of documents at which the time by phase is drawn."""


def plot_speed(path: Path, latencies: Mapping[str, Latency], flops: Mapping[str, Mapping[str, float]],
               device: str) -> None:
    """Draw milliseconds and FLOPs per query, by phase, ScaleDown against the baselines.

    Args:
        path: the PNG's path.
        latencies: by system, from the top down; ``scaledown`` and ``full_text`` must be there.
        flops: by system, then by phase, for the same systems.
        device: what it ran on, in words.
    """
    scale, prefix = _flops_unit(flops)
    phase_times: dict[str, list[float]] = {}
    phase_flops: dict[str, list[float]] = {}
    time_totals, flops_totals = [], []
    for system, latency in latencies.items():
        phase_times[system] = [getattr(latency, phase).median_ms for phase in PHASES]
        phase_flops[system] = [flops[system][phase] / scale for phase in PHASES]

        time_totals.append((latency.total.median_ms, latency.total.p10_ms, latency.total.p90_ms))
        total = sum(phase_flops[system])
        flops_totals.append((total, total, total))  # worked out, so without a spread

    figure = style.new_figure(13, 2.3 + 0.62 * len(latencies))
    left, right = figure.subplots(1, 2, sharey=True)
    _phase_panel(left, phase_times)
    _phase_panel(right, phase_flops)
    _name_totals(left, time_totals, " ms")
    _name_totals(right, flops_totals, f" {prefix}FLOPs")
    for axes, title, unit in ((left, "Time", "milliseconds a query"),
                              (right, "Arithmetic", f"{prefix}FLOPs a query, worked out from the shapes")):
        axes.set_title(title, loc="left", fontsize=12, color=style.INK)
        axes.set_xlabel(unit, fontsize=9, color=style.QUIET)
    phase_legend(figure)

    num_queries = latencies["scaledown"].num_queries
    style.head(figure, _speed_title(latencies),
               f"n = {num_queries} questions, one at a time, on {device}. Bars: median of each phase. "
               "Dot and whiskers: median, 10th and 90th percentile of the whole query.")
    style.save(figure, path)


def phase_legend(figure: Figure) -> None:
    """Draw the meaning of a bar's shades below the panels."""
    patches = [Patch(color=style.shade("#444444", PHASE_SHADES[phase]), label=PHASE_MEANINGS[phase])
               for phase in PHASES]
    figure.legend(handles=patches, loc="outside lower left", ncols=len(PHASES), frameon=False, fontsize=10)


def _speed_title(latencies: Mapping[str, Latency]) -> str:
    scaledown, full_text = (latencies[system].total.median_ms for system in ("scaledown", "full_text"))
    ratio = f" ({full_text / scaledown:.2g}x the speed)" if scaledown > 0 else ""
    ours, theirs = style.short(scaledown), style.short(full_text)
    return f"A query takes {ours} ms with ScaleDown and {theirs} ms with full text{ratio}"


def _flops_unit(flops: Mapping[str, Mapping[str, float]]) -> tuple[float, str]:
    highest = 0.0
    for system_flops in flops.values():
        highest = max(highest, sum(system_flops[phase] for phase in PHASES))

    # From tera down: the largest unit in which the highest bar is at least 1.
    for scale, prefix in FLOPS_UNITS:
        if highest >= scale:
            return scale, prefix
    return FLOPS_UNITS[-1]


def _phase_panel(axes: Axes, values_by_system: Mapping[str, Sequence[float]]) -> None:
    style.quiet(axes, grid="x")
    for place, (system, values) in enumerate(values_by_system.items()):
        # A bar for each phase, each beginning at the end of the one before.
        start = 0.0
        for phase, value in zip(PHASES, values, strict=True):
            colour = style.shade(style.COLOURS[system], PHASE_SHADES[phase])
            axes.barh(place, value, left=start, height=0.66, color=colour, edgecolor="white", linewidth=0.6)
            start += value

    labels = [style.two_lines(LABELS[system]) for system in values_by_system]
    axes.set_yticks(range(len(labels)), labels, fontsize=10, color=style.INK)
    axes.set_ylim(len(labels) - 0.5, -0.5)  # from the top down


def _name_totals(axes: Axes, totals: Sequence[tuple[float, float, float]], unit: str) -> None:
    """Write each total (value, low, high) behind its bar, and mark its spread if it has one."""
    limit = max(axes.get_xlim()[1], *(high for _, _, high in totals))
    for place, (total, low, high) in enumerate(totals):
        if low < high:
            axes.plot((low, high), (place, place), color=style.INK, linewidth=1.3, marker="|", markersize=7)
            axes.plot(total, place, color=style.INK, marker="o", markersize=4)
        axes.text(max(total, high) + 0.02 * limit, place, f"{style.short(total)}{unit}", va="center", fontsize=10,
                  color=style.INK)

    axes.set_xlim(0, limit * 1.22)  # room for the longest total's text


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
                          color=style.COLOURS[system], alpha=0.15, linewidth=0)
        axes.plot(counts, [time["median"] for time in times], color=style.COLOURS[system], marker="o", linewidth=2)
        ends[system] = times[-1]["median"]

    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xticks(sorted({row["num_documents"] for row in rows}))
    axes.set_xlabel("documents a question", fontsize=9, color=style.QUIET)
    axes.set_ylabel("milliseconds a question", fontsize=9, color=style.QUIET)

    # The axis begins at 0, so a share of its end is a share of the panel's height.
    heights = style.spread([value / axes.get_ylim()[1] for value in ends.values()], gap=0.06)
    for system, height in zip(ends, heights, strict=True):
        axes.text(1.02, height, style.two_lines(LABELS[system]), transform=axes.transAxes, va="center",
                  color=style.COLOURS[system])

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
                      color=style.shade(style.COLOURS[row["system"]], PHASE_SHADES[phase]))
            start += value
        axes.text(start, place, f"  {style.short(start)} ms", va="center", color=style.INK)

    labels = [style.two_lines(LABELS[row["system"]]) for row in system_rows]
    axes.set_yticks(range(len(labels)), labels, color=style.INK)
    axes.set_ylim(len(system_rows) - 0.5, -0.5)  # from the top down
    axes.margins(x=0.12)
    axes.set_xlabel("milliseconds a question", fontsize=9, color=style.QUIET)
    phase_legend(figure)
    style.head(figure, f"Where the time goes with {count} documents", f"Random weights, {setup}. Medians.")
    style.save(figure, path)
