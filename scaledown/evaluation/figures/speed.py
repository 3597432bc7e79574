"""Figures of time and arithmetic by phase: the report's, and the benchmark's by documents and by phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from scaledown.evaluation.evaluator.timing import PHASES, Latency
from scaledown.evaluation.figures import colours, style
from scaledown.evaluation.figures.text_tables import flops_unit, short
from scaledown.evaluation.systems import LABELS

PHASE_MEANINGS = {"compress": "compress: documents into memory embeddings", "prefill": "prefill: reading the prompt",
                  "decode": "decode: writing the answer"}
PHASE_SHADES = {"compress": 1.0, "prefill": 0.62, "decode": 0.3}
BAR_NOTE = "A bar ends at the median of whole queries; its parts are in proportion to the medians of the phases."
ROOM, NARROW_ROOM = 1.3, 1.6
"""End of an axis as a multiple of the longest bar, behind which its total stands."""
TIME_ROWS = 10
"""Number of documents at which the time by phase is drawn."""

Total = tuple[float, float, float]
"""A bar's end, and the low and high end of its spread."""


def plot_speed(path: Path, latencies: Mapping[str, Latency], flops: Mapping[str, Mapping[str, float]],
               device: str, narrow: bool = False) -> None:
    """Draw milliseconds and FLOPs per query, by phase, ScaleDown against the baselines.

    Args:
        path: the PNG's path.
        latencies: by system, from the top down; ``scaledown`` and ``full_text`` must be there.
        flops: by system, then by phase, for the same systems.
        device: what it ran on, in words.
        narrow: for a phone.
    """
    times, time_totals = {}, []
    for system, latency in latencies.items():
        medians = [getattr(latency, phase).median_ms for phase in PHASES]
        times[system] = scaled_to(medians, latency.total.median_ms)
        time_totals.append((latency.total.median_ms, latency.total.p10_ms, latency.total.p90_ms))

    scale, prefix = flops_unit(max(flops[system]["total"] for system in latencies))
    arithmetic, flops_totals = {}, []
    for system in latencies:
        parts = [flops[system][phase] / scale for phase in PHASES]
        arithmetic[system] = parts
        flops_totals.append((sum(parts),) * 3)  # worked out, so without a spread

    figure, (left, right) = style.panels(2, 0.9 + 0.5 * len(latencies), narrow)
    phase_bars(left, times, time_totals, " ms", room=NARROW_ROOM if narrow else ROOM)
    phase_bars(right, arithmetic, flops_totals, f" {prefix}FLOPs", with_names=narrow,
               room=NARROW_ROOM if narrow else ROOM)
    for axes, title, unit in ((left, "Time", "milliseconds a query"),
                              (right, "Arithmetic", f"{prefix}FLOPs a query, worked out from the shapes")):
        axes.set_title(title, loc="left", fontsize=12, color=colours.INK)
        axes.set_xlabel(unit, fontsize=style.SMALL_POINTS, color=colours.QUIET)
    phase_legend(figure, narrow)

    style.head(figure, _speed_title(latencies),
               f"n = {latencies['scaledown'].num_queries} questions, one at a time, on {device}. {BAR_NOTE} "
               "Whiskers: 10th to 90th percentile of whole queries.")
    style.save(figure, path)


def scaled_to(parts: Sequence[float], total: float) -> list[float]:
    """Return ``parts`` multiplied so that they sum to ``total``: medians of phases do not sum to that of the whole."""
    whole = sum(parts)
    return [part * total / whole if whole else 0.0 for part in parts]


def phase_legend(figure: Figure, narrow: bool = False) -> None:
    """Draw the meaning of a bar's shades below the panels."""
    patches = [Patch(color=colours.shade("#444444", PHASE_SHADES[phase]), label=PHASE_MEANINGS[phase])
               for phase in PHASES]
    figure.legend(handles=patches, loc="outside lower left", ncols=1 if narrow else len(PHASES), frameon=False,
                  fontsize=style.LABEL_POINTS)


def _speed_title(latencies: Mapping[str, Latency]) -> str:
    return f"A query takes {_against(latencies['scaledown'].total.median_ms, latencies['full_text'].total.median_ms)}"


def _against(scaledown_ms: float, full_text_ms: float) -> str:
    """Return both times in words, with their ratio."""
    ratio = f" ({full_text_ms / scaledown_ms:.2f}x the speed)" if scaledown_ms > 0 else ""
    return f"{short(scaledown_ms)} ms with ScaleDown and {short(full_text_ms)} ms with full text{ratio}"


def phase_bars(axes: Axes, values_by_system: Mapping[str, Sequence[float]], totals: Sequence[Total], unit: str,
               with_names: bool = True, room: float = ROOM) -> None:
    """Draw a bar for each system, made of its phases, with its total behind it; the parts must sum to the total."""
    style.quiet(axes, grid="x")
    limit = max(high for _, _, high in totals)
    bars = zip(values_by_system.items(), totals, strict=True)
    for place, ((system, values), (total, low, high)) in enumerate(bars):
        # Each part begins at the end of the one before.
        start = 0.0
        for phase, value in zip(PHASES, values, strict=True):
            colour = colours.shade(colours.SYSTEMS[system], PHASE_SHADES[phase])
            axes.barh(place, value, left=start, height=0.66, color=colour, edgecolor="white", linewidth=0.6)
            start += value

        if low < high:
            axes.plot((low, high), (place, place), color=colours.INK, linewidth=1.3, marker="|", markersize=7)
        axes.text(max(total, high) + 0.02 * limit, place, f"{short(total)}{unit}", va="center",
                  fontsize=style.LABEL_POINTS, color=colours.INK)

    labels = [style.two_lines(LABELS[system]) if with_names else "" for system in values_by_system]
    axes.set_yticks(range(len(labels)), labels, fontsize=style.LABEL_POINTS, color=colours.INK)
    axes.set_ylim(len(labels) - 0.5, -0.5)  # from the top down
    axes.set_xlim(0, room * limit or 1.0)


def plot_by_documents(path: Path, rows: Sequence[Mapping[str, Any]], setup: str) -> None:
    """Draw milliseconds per question (median, with the 10th to 90th percentile) against the number of documents."""
    figure, (axes,) = style.panels(1, 4.3, narrow=False, width_inches=8.6)
    style.quiet(axes, grid="y")

    ends = {}  # the last point of each line, beside which its name stands
    for system in dict.fromkeys(row["system"] for row in rows):
        system_rows = sorted((row for row in rows if row["system"] == system), key=lambda row: row["num_documents"])
        counts = [row["num_documents"] for row in system_rows]
        times = [row["ms_per_query"]["total"] for row in system_rows]
        axes.fill_between(counts, [time["p10"] for time in times], [time["p90"] for time in times],
                          color=colours.SYSTEMS[system], alpha=0.15, linewidth=0)
        axes.plot(counts, [time["median"] for time in times], color=colours.SYSTEMS[system], marker="o", linewidth=2)
        ends[system] = times[-1]["median"]

    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xticks(_apart({row["num_documents"] for row in rows}))
    axes.set_xlabel("number of documents of a question", fontsize=style.SMALL_POINTS, color=colours.QUIET)
    axes.set_ylabel("milliseconds a question", fontsize=style.SMALL_POINTS, color=colours.QUIET)

    # The axis begins at 0, so a share of its end is a share of the panel's height.
    heights = style.spread([value / axes.get_ylim()[1] for value in ends.values()], gap=0.1)
    for system, height in zip(ends, heights, strict=True):
        axes.text(1.02, height, style.two_lines(LABELS[system]), transform=axes.transAxes, va="center",
                  fontsize=style.LABEL_POINTS, color=colours.for_text(colours.SYSTEMS[system]))

    most = max(row["num_documents"] for row in rows)
    style.head(figure, f"With {_documents(most)} a question takes {_times_with(rows, most)}",
               f"Random weights, {setup}. Line: median; band: 10th to 90th percentile of the rounds.")
    style.save(figure, path)


def _apart(counts: set[int]) -> list[int]:
    """Return the counts whose labels have room: each at least a twentieth of the largest from the next."""
    shown: list[int] = []
    for count in sorted(counts, reverse=True):
        if not shown or shown[-1] - count >= max(counts) / 20:
            shown.append(count)
    return shown


def _documents(count: int) -> str:
    return f"{count} document" if count == 1 else f"{count} documents"


def _times_with(rows: Sequence[Mapping[str, Any]], count: int) -> str:
    """Return the median times of a question with ``count`` documents, in words."""
    medians = {row["system"]: row["ms_per_query"]["total"]["median"] for row in rows if row["num_documents"] == count}
    if {"scaledown", "full_text"} <= medians.keys():
        return _against(medians["scaledown"], medians["full_text"])
    return ", ".join(f"{short(median)} ms with {LABELS[system]}" for system, median in medians.items())


def plot_by_phase(path: Path, rows: Sequence[Mapping[str, Any]], setup: str) -> None:
    """Draw the time of a question by phase, at 10 documents or the number nearest to it."""
    count = min((row["num_documents"] for row in rows), key=lambda number: abs(number - TIME_ROWS))
    system_rows = [row for row in rows if row["num_documents"] == count]  # one of each system

    parts, totals = {}, []
    for row in system_rows:
        times = row["ms_per_query"]
        parts[row["system"]] = scaled_to([times[phase]["median"] for phase in PHASES], times["total"]["median"])
        totals.append((times["total"]["median"], times["total"]["p10"], times["total"]["p90"]))

    figure, (axes,) = style.panels(1, 1.7 + 0.6 * len(system_rows), narrow=False, width_inches=10.5)
    phase_bars(axes, parts, totals, " ms")
    axes.set_xlabel("milliseconds a question", fontsize=style.SMALL_POINTS, color=colours.QUIET)
    phase_legend(figure)
    style.head(figure, _phase_title(system_rows, count),
               f"Random weights, {setup}. {BAR_NOTE} Whiskers: 10th to 90th percentile of the rounds.")
    style.save(figure, path)


def _phase_title(rows: Sequence[Mapping[str, Any]], count: int) -> str:
    """Return the largest phase of ScaleDown, or of the first system, as a sentence."""
    row = next((row for row in rows if row["system"] == "scaledown"), rows[0])
    medians = {phase: row["ms_per_query"][phase]["median"] for phase in PHASES}
    largest, whole = max(medians, key=medians.get), sum(medians.values())
    share = f"{medians[largest] / whole:.0%}" if whole else "no measurable part"
    return f"With {_documents(count)} {LABELS[row['system']]} spends {share} of its time in the phase '{largest}'"
