"""The course of training: a panel for each kind of loss, in training and held out, and the learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from scaledown.evaluation.figures import colours, style
from scaledown.evaluation.figures.text_tables import short

UNITS = {"reranking loss": "squared error of a score"}
NATS = "nats a token"
"""Unit of the losses that are not in ``UNITS``."""
TOTAL, TRAINING, HELD_OUT = "loss", "training", "held out"
EQUAL = 1e-4
"""Relative difference up to which two series are equal: the same loss logged twice differs by rounding."""
PANEL_HEIGHT, PANEL_COLUMNS = 3.9, 3
FEW_POINTS = 30

Point = tuple[float, float]
History = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curve:
    """A line of a panel: its name, its points (step, value), and if it is dashed."""

    name: str
    points: tuple[Point, ...]
    is_dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves that share an axis, and so a unit."""

    title: str
    unit: str
    curves: Sequence[Curve]
    is_loss: bool = False


def plot_training_curves(path: Path, history: History, narrow: bool = False) -> None:
    """Draw losses and learning rates against steps.

    Args:
        path: the PNG's path.
        history: the trainer's ``log_history``. Keys ``loss`` and ``*_loss`` are losses, ``learning_rate*`` learning
            rates, and ``eval_*`` were measured on held-out records. An entry with ``lesson_starts``
            marks the step at which harder records begin, with its text.
        narrow: for a phone.
    """
    losses = loss_panels(history)
    all_panels = [*losses, Panel("Learning rate", "size of a step of the optimizer", _learning_rates(history))]

    figure, places = style.panels(len(all_panels), PANEL_HEIGHT, narrow, PANEL_COLUMNS)
    for axes, panel in zip(places, all_panels, strict=True):
        _draw_panel(axes, panel)
        if panel.is_loss:
            # The text of a lesson once is enough, its line is in every panel.
            _mark_lessons(axes, _lessons(history), with_text=panel is losses[0])

    points = "each point the mean since the last line of the log"
    is_held_out = any(name.startswith("eval_") and name.endswith("loss") for name in _names(history))
    style.head(figure, _title(losses),
               f"Solid: in training, {points}. Dashed: on held-out records." if is_held_out else f"Losses: {points}.")
    style.save(figure, path)


def loss_panels(history: History) -> list[Panel]:
    """Return a panel for each kind of loss; the total has none of its own if it equals one of its parts."""
    # "train_loss" is the run's mean, which transformers logs once at the end.
    kinds = {name.removeprefix("eval_") for name in _names(history) if name.endswith("loss")} - {"train_loss"}

    curves: dict[str, list[Curve]] = {}
    for kind in sorted(kinds):
        both = [Curve(TRAINING, _points(history, kind)), Curve(HELD_OUT, _points(history, f"eval_{kind}"), True)]
        curves[kind] = [curve for curve in both if curve.points]
    total = curves.pop(TOTAL, [])
    parts = {kind: both for kind, both in curves.items() if both}

    panels = []
    if total and not any(_are_equal(total[0].points, both[0].points) for both in parts.values()):
        panels.append(Panel("Loss", "weighted sum of the losses" if parts else NATS, total, is_loss=True))
    for kind, both in parts.items():
        name = kind.replace("_", " ")
        panels.append(Panel(name.capitalize(), UNITS.get(name, NATS), both, is_loss=True))
    return panels or [Panel("Loss", NATS, (), is_loss=True)]


def _names(history: History) -> set[str]:
    return set().union(*history)


def _learning_rates(history: History) -> list[Curve]:
    """Return the learning rates of generator and compressor, or the only one; equal ones as one curve."""
    keys = sorted(name for name in _names(history) if name.startswith("learning_rate_")) or ["learning_rate"]

    curves: list[Curve] = []
    for key in keys:
        points = _points(history, key)
        name = key.removeprefix("learning_rate_").replace("_", " ")
        same = [number for number, curve in enumerate(curves) if _are_equal(curve.points, points)]
        if same:
            curves[same[0]] = Curve(f"{curves[same[0]].name} and {name}", points)
        elif points:
            curves.append(Curve(name, points))
    return curves


def _points(history: History, key: str) -> tuple[Point, ...]:
    """Return the finite values of ``key`` with their steps."""
    return tuple((float(entry["step"]), float(entry[key])) for entry in history
                 if isinstance(entry.get(key), (int, float)) and math.isfinite(entry[key]))


def _are_equal(one: Sequence[Point], other: Sequence[Point]) -> bool:
    return len(one) == len(other) and np.allclose(one, other, rtol=EQUAL, atol=0)


def _lessons(history: History) -> list[tuple[int, str]]:
    """Return the steps at which lessons begin; only those of which a loss was logged, others would widen the panel."""
    last = max((entry["step"] for entry in history if "loss" in entry), default=0)
    return [(entry["step"], entry["lesson_starts"]) for entry in history
            if "lesson_starts" in entry and entry["step"] < last]


def _mark_lessons(axes: Axes, lessons: Sequence[tuple[int, str]], with_text: bool) -> None:
    """Draw a line at the beginning of each lesson, so that a jump of the loss explains itself."""
    for step, text in lessons:
        axes.axvline(step, color=colours.QUIET, linewidth=0.8, linestyle=":")
        if with_text:
            axes.annotate(f"{text} from here on", (step, 0.98), xycoords=("data", "axes fraction"), xytext=(3, 0),
                          textcoords="offset points", fontsize=style.SMALL_POINTS, color=colours.QUIET, va="top",
                          rotation=90, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})


def _title(losses: Sequence[Panel]) -> str:
    # The total is not measured on held-out records; of its parts the answers' loss comes first.
    told = next((panel for panel in losses if panel.curves and panel.curves[-1].is_dashed), losses[0])
    curves = {curve.name: curve.points for curve in told.curves}
    trained, held_out = curves.get(TRAINING, ()), curves.get(HELD_OUT, ())
    if len(trained) < 2:
        return "Training: too few logged steps to show a course"

    (_, first), (steps, last) = trained[0], trained[-1]
    name = told.title.lower()
    after = f"; on held-out records it is {short(held_out[-1][1])} at step {held_out[-1][0]:,.0f}" if held_out else ""
    return f"Over {steps:,.0f} steps the {name} in training goes from {short(first)} to {short(last)}{after}"


def _draw_panel(axes: Axes, panel: Panel) -> None:
    style.quiet(axes, grid="y")
    axes.set_title(panel.title, loc="left", fontsize=12, color=colours.INK)
    axes.set_ylabel(panel.unit, fontsize=style.SMALL_POINTS, color=colours.QUIET)
    axes.set_xlabel("training step", fontsize=style.SMALL_POINTS, color=colours.QUIET)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=(1, 2, 2.5, 5, 10), integer=True))
    if not panel.curves:
        axes.text(0.5, 0.5, "nothing was logged", transform=axes.transAxes, ha="center", color=colours.QUIET)
        axes.set_yticks(())
        return

    for number, (curve, colour) in enumerate(zip(panel.curves, _colours(panel), strict=True)):
        # Earlier lines are wider, so that one still shows under another that runs over it.
        axes.plot(*zip(*curve.points, strict=True), color=colour, linewidth=max(1.4, 2.6 - 0.6 * number),
                  linestyle="--" if curve.is_dashed else "-", markersize=4,
                  marker="o" if len(curve.points) < FEW_POINTS else None)

    steps, values = _all_points(panel.curves)
    axes.set_xlim(0, 1.03 * max(steps))
    highest = max(values)
    axes.set_ylim(min(0.0, min(values) * 1.05), highest * 1.08 if highest > 0 else 1.0)  # 0 is always on the axis
    if highest == min(values) == 0:
        axes.set_yticks((0,), ("0",))
    elif not panel.is_loss and highest < 0.1:
        axes.yaxis.set_major_formatter(FuncFormatter(_small))
    _name_lines(axes, panel)


def _small(value: float, _: int) -> str:
    """Return a learning rate in few characters: ``1e-4`` for 0.0001."""
    if not value:
        return "0"
    # Two decimal places, since ticks lie at quarters, too: "1.75e-03" -> "1.75e-3", "1.00e-04" -> "1e-4".
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _all_points(curves: Iterable[Curve]) -> tuple[list[float], list[float]]:
    steps: list[float] = []
    values: list[float] = []
    for curve in curves:
        for step, value in curve.points:
            steps.append(step)
            values.append(value)
    return steps, values


def _colours(panel: Panel) -> list[str]:
    """Return a colour for each curve; in a panel of one loss all have the same."""
    if panel.is_loss:
        return [colours.LINES[0]] * len(panel.curves)
    return [colours.LINES[number % len(colours.LINES)] for number in range(len(panel.curves))]


def _name_lines(axes: Axes, panel: Panel) -> None:
    """Write each line's name beside its end, moved apart if they would meet."""
    # The height of each line's last point, from values on the axis to a share of the panel (0 to 1).
    to_axes = axes.transScale + axes.transLimits
    wanted = [to_axes.transform(curve.points[-1])[1] for curve in panel.curves]
    heights = style.spread(wanted, gap=0.075)
    for curve, colour, height in zip(panel.curves, _colours(panel), heights, strict=True):
        axes.text(1.02, height, curve.name, transform=axes.transAxes, color=colours.for_text(colour),
                  fontsize=style.SMALL_POINTS, va="center")
