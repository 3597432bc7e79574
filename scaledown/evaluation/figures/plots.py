"""The report's figures: answers before and after training, the course of training, and the cost of a query."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from scaledown.evaluation.figures import style
from scaledown.evaluation.metrics import METRICS
from scaledown.evaluation.timing import PHASES, Latency

METRIC_TITLES = {"exact_match": "Exact match", "token_f1": "Token F1", "rouge_l": "ROUGE-L", "accuracy": "Accuracy"}
METRIC_UNITS = {"exact_match": "share of answers equal to a reference",
                "token_f1": "words shared with a reference, F1",
                "rouge_l": "words in the same order, F1",
                "accuracy": "share of answers containing a reference"}
PHASE_MEANINGS = {"compress": "compress: documents into memory embeddings", "prefill": "prefill: reading the prompt",
                  "decode": "decode: writing the answer"}
PHASE_SHADES = {"compress": 1.0, "prefill": 0.62, "decode": 0.3}
FLOPS_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1.0, ""))

Point = tuple[float, float]


def plot_before_after(path: Path, summaries: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the four metrics of each system, with 95% intervals.

    Args:
        path: the PNG's path.
        summaries: averages and intervals by system, from the top down; keys as in ``style.LABELS``, of which
            ``before_training``, ``scaledown`` and ``full_text`` must be there.
    """
    before, after, full_text = (summaries[name] for name in ("before_training", "scaledown", "full_text"))
    figure = style.new_figure(13, 1.9 + 0.62 * len(summaries))  # inches: room for the head, and a bar for each system

    panels = figure.subplots(1, len(METRICS), sharey=True)
    for axes, metric in zip(panels, METRICS, strict=True):
        _metric_panel(axes, metric, summaries)

    style.head(figure, f"Exact match of ScaleDown: {before['exact_match_avg']:.2f} before training, "
               f"{after['exact_match_avg']:.2f} after; full text reaches {full_text['exact_match_avg']:.2f}",
               f"n = {after['n']} evaluation questions, the same for every system. Bars: mean, 0 (worst) to 1 (best). "
               "Whiskers: 95% bootstrap interval.")
    style.save(figure, path)


def _metric_panel(axes: Axes, metric: str, summaries: Mapping[str, Mapping[str, Any]]) -> None:
    style.quiet(axes, grid="x")
    for place, (system, summary) in enumerate(summaries.items()):
        value, (low, high) = summary[f"{metric}_avg"], summary[f"{metric}_ci95"]
        axes.barh(place, value, height=0.66, color=style.COLOURS[system])
        axes.plot((low, high), (place, place), color=style.INK, linewidth=1.3, marker="|", markersize=7)
        axes.text(max(high, value) + 0.03, place, f"{value:.2f}", va="center", fontsize=10, color=style.INK,
                  fontweight="bold" if system == "scaledown" else "normal")

    axes.set_yticks(range(len(summaries)), [style.LABELS[system] for system in summaries], fontsize=10, color=style.INK)
    axes.set_ylim(len(summaries) - 0.5, -0.5)  # from the top down
    axes.set_xlim(0, 1.19)  # the metrics end at 1; their numbers stand behind the bars

    axes.set_xticks((0, 0.25, 0.5, 0.75, 1), ("0", "0.25", "0.5", "0.75", "1"))
    axes.set_xlabel(METRIC_UNITS[metric], fontsize=9, color=style.QUIET)
    axes.set_title(METRIC_TITLES[metric], loc="left", fontsize=12, color=style.INK)


def plot_training_curves(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw losses and learning rates against steps, and evaluation points if there are any.

    Args:
        path: the PNG's path.
        history: the trainer's ``log_history``. Keys ``loss`` and ``*_loss`` are losses, ``learning_rate*`` learning
            rates, and ``eval_*`` evaluation points (``eval_*_avg`` are metrics between 0 and 1). An entry with
            ``lesson_starts`` marks the step at which harder records begin, with its text.
    """
    # "train_loss" is the run's mean, which transformers logs once at the end.
    names = set().union(*history) - {"train_loss"}
    keys = sorted(names, key=lambda key: (len(key), key))  # the plain "loss" first

    # Of the lessons only those of which a loss was logged: others would widen the panel for nothing.
    last = max((entry["step"] for entry in history if "loss" in entry), default=0)
    lessons = [(entry["step"], entry["lesson_starts"]) for entry in history
               if "lesson_starts" in entry and entry["step"] < last]

    losses = _curves(history, (key for key in keys if key.endswith("loss")))
    # The learning rates of generator and compressor, or the only one.
    rate_keys = [key for key in keys if key.startswith("learning_rate_")] or ["learning_rate"]
    rates = _curves(history, rate_keys, strip="learning_rate_")
    metrics = _curves(history, (key for key in keys if key.startswith("eval_") and key.endswith("_avg")), strip="eval_")

    panels = [("Loss", "nats a token (reranking: squared error)", losses),
              ("Learning rate", "step size of the optimizer", rates)]
    if metrics:
        panels.append(("Evaluation during training", "mean over questions, 0 (worst) to 1 (best)", metrics))

    figure = style.new_figure(5.4 * len(panels), 4.8)
    for axes, (title, unit, curves) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        _curve_panel(axes, title, unit, curves)
        if curves is rates:
            axes.yaxis.set_major_formatter(_rate_label)
        if curves is losses:
            _mark_lessons(axes, lessons)

    style.head(figure, _training_title(losses),
               "Each point is the mean since the last line of the log. Lines carry their names.")
    style.save(figure, path)


def _rate_label(rate: float, _: int) -> str:
    """Return a learning rate in few characters: ``1e-4`` for 0.0001."""
    return f"{rate:.1e}".replace(".0e", "e").replace("e-0", "e-") if rate else "0"


def _mark_lessons(axes: Axes, lessons: Sequence[tuple[int, str]]) -> None:
    """Draw a line at the beginning of each lesson, so that a jump of the loss explains itself."""
    for step, text in lessons:
        axes.axvline(step, color=style.QUIET, linewidth=0.8, linestyle=":")
        axes.annotate(text, (step, 0.98), xycoords=("data", "axes fraction"), xytext=(8, 0),
                      textcoords="offset points", fontsize=8, color=style.QUIET, va="top", rotation=90)


def _training_title(losses: Mapping[str, Sequence[Point]]) -> str:
    # A curve that stands for several equal series has all their names.
    total = next((points for name, points in losses.items() if "loss" in name.split(" = ")), ())
    if len(total) < 2:
        return "Training: too few logged steps to show a course"
    return f"Over {total[-1][0]:,.0f} steps the training loss goes from {total[0][1]:.3g} to {total[-1][1]:.3g}"


def _curves(history: Sequence[Mapping[str, Any]], keys: Iterable[str], strip: str = "") -> dict[str, list[Point]]:
    """Return finite points by name; series that are equal throughout become one that carries all their names."""
    # By the points themselves, so that equal series meet under one key.
    names: dict[tuple[Point, ...], list[str]] = {}
    for key in keys:
        points = tuple((float(entry["step"]), float(entry[key])) for entry in history
                       if isinstance(entry.get(key), (int, float)) and math.isfinite(entry[key]))
        if points:
            name = key.removeprefix(strip).removesuffix("_avg").replace("_", " ")
            names.setdefault(points, []).append(name)

    return {" = ".join(same): list(points) for points, same in names.items()}


def _curve_panel(axes: Axes, title: str, unit: str, curves: Mapping[str, Sequence[Point]]) -> None:
    style.quiet(axes, grid="y")
    axes.set_title(title, loc="left", fontsize=12, color=style.INK, pad=22)
    axes.text(0, 1.02, unit, transform=axes.transAxes, fontsize=9, color=style.QUIET, va="bottom")
    axes.set_xlabel("training step", fontsize=9, color=style.QUIET)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if not curves:
        axes.text(0.5, 0.5, "nothing was logged", transform=axes.transAxes, ha="center", color=style.QUIET)
        axes.set_yticks(())
        return

    for number, (colour, points) in enumerate(zip(_colours(curves), curves.values(), strict=True)):
        # Earlier lines are wider, so that one still shows under another that runs over it.
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=max(1.2, 3.4 - number),
                  marker="o" if len(points) < 30 else None, markersize=max(3, 6 - number))

    steps, values = zip(*itertools.chain(*curves.values()), strict=True)
    lowest, highest = min(values), max(values)
    axes.set_xlim(0, 1.03 * max(steps))
    axes.set_ylim(min(0.0, lowest * 1.05), highest * 1.08 if highest > 0 else 1.0)  # 0 is always on the axis
    if highest == lowest == 0:
        axes.set_yticks((0,), ("0",))
    _name_lines(axes, curves)


def _colours(names: Iterable[str]) -> list[str]:
    """Return a colour for each line; a loss on held-out records has the colour of the same loss in training."""
    kinds = [name.split(" = ")[0].removeprefix("eval ") for name in names]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}  # in order of appearance
    return [style.LINES[numbers[kind] % len(style.LINES)] for kind in kinds]


def _name_lines(axes: Axes, curves: Mapping[str, Sequence[Point]]) -> None:
    """Write each line's name beside its end, moved apart if they would meet."""
    # The height of each line's last point, from values on the axis to a share of the panel (0 to 1).
    to_axes = axes.transScale + axes.transLimits
    wanted = [to_axes.transform(points[-1])[1] for points in curves.values()]
    for colour, name, height in zip(_colours(curves), curves, style.spread(wanted, gap=0.07), strict=True):
        axes.text(1.02, height, name, transform=axes.transAxes, color=colour, fontsize=9.5,
                  va="center")


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

    # Only the trained model is timed, so its label need not say so.
    labels = [style.LABELS[system].removesuffix(",\nafter training") for system in values_by_system]
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
