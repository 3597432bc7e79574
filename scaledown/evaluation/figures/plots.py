"""The report's figures: answers before and after training, and the list of all of them with the data that they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes

from scaledown.evaluation.figures import colours, style
from scaledown.evaluation.figures.heat_maps import plot_memory
from scaledown.evaluation.figures.speed import plot_speed
from scaledown.evaluation.figures.text_tables import score
from scaledown.evaluation.figures.training_curves import plot_training_curves
from scaledown.evaluation.metrics import METRICS
from scaledown.evaluation.systems import LABELS_OF_TRAINING

if TYPE_CHECKING:
    from scaledown.evaluation.report.run_results import RunResults

BAR_ORDER = ("no_documents", "truncated_text", "before_training", "scaledown", "full_text")
SPEED_ORDER = ("scaledown", "full_text", "truncated_text", "no_documents")
"""The systems from the top down."""
ROOM_FOR_NUMBERS = 1.28
"""End of an axis from 0 to 1 behind whose bars numbers stand."""


def plot_before_after(path: Path, summaries: Mapping[str, Mapping[str, Any]], narrow: bool = False) -> None:
    """Draw the metrics of each system, with 95% intervals.

    Args:
        path: the PNG's path.
        summaries: averages and intervals by system, from the top down; keys as in ``LABELS_OF_TRAINING``, of which
            ``before_training``, ``scaledown`` and ``full_text`` must be there.
        narrow: for a phone.
    """
    before, after, full_text = (summaries[name] for name in ("before_training", "scaledown", "full_text"))

    # Inches: room for titles, and a bar for each system.
    figure, places = style.panels(len(METRICS), 0.9 + 0.5 * len(summaries), narrow)
    for axes, metric in zip(places, METRICS, strict=True):
        _metric_panel(axes, metric, summaries, with_names=narrow or axes is places[0])

    style.head(figure, f"Exact match of ScaleDown: {score(before['exact_match_avg'])} before training, "
               f"{score(after['exact_match_avg'])} after; full text reaches {score(full_text['exact_match_avg'])}",
               f"n = {after['n']} evaluation questions, the same for every system. Bars: mean, 0 (worst) to 1 (best). "
               "Whiskers: 95% bootstrap interval.")
    style.save(figure, path)


def _metric_panel(axes: Axes, metric: str, summaries: Mapping[str, Mapping[str, Any]], with_names: bool) -> None:
    style.quiet(axes, grid="x")
    for place, (system, summary) in enumerate(summaries.items()):
        value, (low, high) = summary[f"{metric}_avg"], summary[f"{metric}_ci95"]
        axes.barh(place, value, height=0.66, color=colours.SYSTEMS[system])
        axes.plot((low, high), (place, place), color=colours.INK, linewidth=1.3, marker="|", markersize=7)
        axes.text(max(high, value) + 0.03, place, score(value), va="center", fontsize=style.LABEL_POINTS,
                  color=colours.INK, fontweight="bold" if system == "scaledown" else "normal")

    labels = [style.two_lines(LABELS_OF_TRAINING[system]) if with_names else "" for system in summaries]
    axes.set_yticks(range(len(labels)), labels, fontsize=style.LABEL_POINTS, color=colours.INK)
    axes.set_ylim(len(summaries) - 0.5, -0.5)  # from the top down
    axes.set_xlim(0, ROOM_FOR_NUMBERS)

    axes.set_xticks((0, 0.25, 0.5, 0.75, 1), ("0", "", "0.5", "", "1"))
    axes.set_xlabel(METRICS[metric].meaning, fontsize=style.SMALL_POINTS, color=colours.QUIET)
    axes.set_title(METRICS[metric].title, loc="left", fontsize=12, color=colours.INK)


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report's page.

    Attributes:
        file: its name in the run's folder.
        section: the heading under which the page shows it.
        alternative: its content in words.
        plot: (path, *data, narrow) -> None; ``narrow`` draws it for a phone.
        data: results -> what ``plot`` draws of them; None if there is nothing to draw.
    """

    file: str
    section: str
    alternative: str
    plot: Callable[..., None]
    data: Callable[[RunResults], tuple[Any, ...] | None]


def _answers(results: RunResults) -> tuple[Any, ...]:
    summaries = {name: result.averages for name, result in results.baselines.items()}
    summaries |= {"before_training": results.before.averages, "scaledown": results.after.averages}
    return ({name: summaries[name] for name in BAR_ORDER},)


def _training(results: RunResults) -> tuple[Any, ...]:
    return (results.history,)


def _memory(results: RunResults) -> tuple[Any, ...] | None:
    return (results.memory,) if results.memory else None


def _speed(results: RunResults) -> tuple[Any, ...]:
    latencies = {name: results.latencies[name] for name in SPEED_ORDER}
    flops = {name: results.cost[name]["flops"] for name in SPEED_ORDER}
    return latencies, flops, results.run["device"]


FIGURES = (
    ReportFigure("before_after_comparison.png", "Answers", "The metrics of every system", plot_before_after, _answers),
    ReportFigure("training_curves.png", "Training", "Losses and learning rates", plot_training_curves, _training),
    ReportFigure("memory.png", "Inside the memory", "Heat map of one document's memory", plot_memory, _memory),
    ReportFigure("speed_comparison.png", "Speed", "Time and arithmetic of a query", plot_speed, _speed),
)
"""All of them: a new one is a function and an entry here; the report draws it and shows it."""
