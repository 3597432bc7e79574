"""The report's figures: answers before and after training, the course of training, and the cost of a query."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from scaledown.evaluation.figures import style
from scaledown.evaluation.figures.speed import plot_speed
from scaledown.evaluation.metrics import METRICS
from scaledown.evaluation.systems import LABELS_OF_TRAINING

if TYPE_CHECKING:
    from scaledown.evaluation.report.before_after import RunResults

BAR_ORDER = ("no_documents", "truncated_text", "before_training", "scaledown", "full_text")
SPEED_ORDER = ("scaledown", "full_text", "truncated_text", "no_documents")
"""The systems from the top down."""

Point = tuple[float, float]


def plot_before_after(path: Path, summaries: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the metrics of each system, with 95% intervals.

    Args:
        path: the PNG's path.
        summaries: averages and intervals by system, from the top down; keys as in ``LABELS_OF_TRAINING``, of which
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

    labels = [style.two_lines(LABELS_OF_TRAINING[system]) for system in summaries]
    axes.set_yticks(range(len(labels)), labels, fontsize=10, color=style.INK)
    axes.set_ylim(len(summaries) - 0.5, -0.5)  # from the top down
    axes.set_xlim(0, 1.19)  # the metrics end at 1; their numbers stand behind the bars

    axes.set_xticks((0, 0.25, 0.5, 0.75, 1), ("0", "0.25", "0.5", "0.75", "1"))
    axes.set_xlabel(METRICS[metric].meaning, fontsize=9, color=style.QUIET)
    axes.set_title(METRICS[metric].title, loc="left", fontsize=12, color=style.INK)


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


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report's page.

    Attributes:
        file: its name in the run's folder.
        section: the heading under which the page shows it.
        alternative: its content in words.
        plot: (path, *data) -> None.
        data: results -> what ``plot`` draws of them.
    """

    file: str
    section: str
    alternative: str
    plot: Callable[..., None]
    data: Callable[[RunResults], tuple[Any, ...]]


def _answers(results: RunResults) -> tuple[Any, ...]:
    summaries = {name: result.averages for name, result in results.baselines.items()}
    summaries |= {"before_training": results.before.averages, "scaledown": results.after.averages}
    return ({name: summaries[name] for name in BAR_ORDER},)


def _training(results: RunResults) -> tuple[Any, ...]:
    return (results.history,)


def _speed(results: RunResults) -> tuple[Any, ...]:
    latencies = {name: results.latencies[name] for name in SPEED_ORDER}
    flops = {name: results.cost[name]["flops"] for name in SPEED_ORDER}
    return latencies, flops, results.run["device"]


FIGURES = (
    ReportFigure("before_after_comparison.png", "Answers", "The metrics of every system", plot_before_after, _answers),
    ReportFigure("training_curves.png", "Training", "Losses and learning rates", plot_training_curves, _training),
    ReportFigure("speed_comparison.png", "Speed", "Time and arithmetic of a query", plot_speed, _speed),
)
"""All of them: a new one is a function and an entry here; the report draws it and shows it."""
