"""The main job's results on disk: every answer, ``metrics_report.json``, the figures, and a page that shows them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from scaledown.config import EvaluationConfig, TrainingConfig
from scaledown.data.records import eval_path
from scaledown.evaluation.evaluator import SystemResult
from scaledown.evaluation.evaluator.timing import Latency
from scaledown.evaluation.figures.plots import FIGURES
from scaledown.evaluation.figures.style import Figures
from scaledown.evaluation.metrics import METRICS
from scaledown.evaluation.report.html_page import html_page
from scaledown.evaluation.report.paired import PairedDifference, compare
from scaledown.evaluation.report.report_page import report_page
from scaledown.evaluation.systems import BASELINES, SCALEDOWN
from scaledown.files import write_json, write_text
from scaledown.models.loading.model_card import THIS
from scaledown.models.loading.training_progress import Average, Results


@dataclass(frozen=True)
class RunResults:
    """All measurements of a run.

    Attributes:
        before: ScaleDown before training.
        after: ScaleDown after training, on the same questions.
        baselines: ``no_documents``, ``truncated_text`` and ``full_text``, by name.
        latencies: of ``scaledown`` (after training) and the baselines, by name.
        cost: from :func:`scaledown.evaluation.cost.question_cost.model_cost`.
        history: the trainer's ``log_history``.
        run: from :func:`scaledown.data.storage.run_information.run_information`.
        notes: what a reader must know, shown under the heading, such as the weights that training started from.
        memory: one document's, before and after training, from
            :func:`scaledown.evaluation.figures.needle.memory_of_one`; by stage, empty if no document could be shown.
    """

    before: SystemResult
    after: SystemResult
    baselines: Mapping[str, SystemResult]
    latencies: Mapping[str, Latency]
    cost: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    run: Mapping[str, Any]
    notes: Sequence[str] = ()
    memory: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert set(self.baselines) == {system.name for system in BASELINES}
        assert set(self.latencies) == set(self.baselines) | {SCALEDOWN.name}


def improvements(before: SystemResult, after: SystemResult,
                 change: Mapping[str, PairedDifference]) -> dict[str, Any]:
    """Return the change from training, by metric.

    Args:
        before: ScaleDown before training.
        after: ScaleDown after training.
        change: the paired comparison of the two.

    Returns:
        ``absolute`` (after - before), ``absolute_ci95`` (paired: questions are resampled, so that both sides see the
        same ones) and ``relative`` (absolute / before; None if before is 0).
    """
    absolute, relative, ends = {}, {}, {}
    for metric in METRICS:
        key = f"{metric}_avg"
        base, reached = before.averages[key], after.averages[key]
        absolute[key] = reached - base
        # JSON has no infinity, and nothing is a share of 0.
        relative[key] = (reached - base) / base if base else None
        ends[key] = list(change[metric].ci95)

    return {"absolute": absolute, "absolute_ci95": ends, "relative": relative}


def _speed_statistics(latencies: Mapping[str, Latency]) -> dict[str, Any]:
    scaledown, full_text = latencies["scaledown"], latencies["full_text"]
    median_ms = scaledown.total.median_ms  # 0 only on a clock that is too coarse
    return {**scaledown.to_dict(), "batch_size": 1,
            "speedup_over_full_text": full_text.total.median_ms / median_ms if median_ms else None}


def metrics_report(results: RunResults) -> dict[str, Any]:
    """Return the content of ``metrics_report.json``: plain numbers, no NaN and no infinity."""
    # All intervals are made with the same settings.
    settings = results.run["settings"]
    num_resamples = settings.get("bootstrap_resamples", EvaluationConfig.bootstrap_resamples)
    seed = results.run.get("seed", TrainingConfig.seed)

    # ScaleDown after training against everything else, on the same questions.
    compared = {}
    for name, other in {"before_training": results.before, **results.baselines}.items():
        compared[name] = compare(results.after, other, num_resamples, seed)
    paired_tests = {}
    for name, by_metric in compared.items():
        paired_tests[name] = {metric: difference.to_dict() for metric, difference in by_metric.items()}

    baselines = {name: {**result.summary(), "times": results.latencies[name].to_dict()}
                 for name, result in results.baselines.items()}

    return {"before_training": results.before.summary(), "after_training": results.after.summary(),
            "improvements": improvements(results.before, results.after, compared["before_training"]),
            "paired_tests": paired_tests, "baselines": baselines,
            "speed_statistics": _speed_statistics(results.latencies), "cost": dict(results.cost),
            "training": training_summary(results.history),
            "run": {"n": len(results.after.questions), **results.run}, "notes": list(results.notes)}


def results_of_checkpoint(report: Mapping[str, Any]) -> Results:
    """Return what a checkpoint's card shows of ``report``, the content of ``metrics_report.json``."""
    averages = []
    for system, summary in {THIS: report["after_training"], **report["baselines"]}.items():
        for key, metric in METRICS.items():
            low, high = summary[f"{key}_ci95"]
            averages.append(Average(system.replace("_", " "), metric.name, summary[f"{key}_avg"], low, high))

    settings, path = report["run"]["settings"], None
    if settings["train_data"] is not None:
        path = Path(settings.get("eval_data") or eval_path(settings["train_data"]))
    # Of a path its last part alone, since cards are public.
    return Results(path and path.name, report["run"]["n"], tuple(averages))


def training_summary(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``steps`` and ``seconds`` of the training, from the trainer's log; None for what it does not hold.

    The seconds of a run that was resumed are those since then.
    """
    steps = max((entry["step"] for entry in history if "loss" in entry or "train_runtime" in entry), default=None)
    seconds = next((entry["train_runtime"] for entry in reversed(history) if "train_runtime" in entry), None)
    return {"steps": steps, "seconds": seconds}


def write_baselines(folder: Path, baselines: Mapping[str, SystemResult]) -> None:
    """Write every answer of the baselines, by name."""
    write_json(folder / "baseline_results.json", {name: result.to_dict() for name, result in baselines.items()})


def write_numbers(folder: Path, results: RunResults) -> dict[str, Any]:
    """Write every answer and ``metrics_report.json``; return the content of the latter."""
    report = metrics_report(results)
    write_json(folder / "before_training_results.json", results.before.to_dict())
    write_json(folder / "after_training_results.json", results.after.to_dict())
    write_baselines(folder, results.baselines)
    write_json(folder / "metrics_report.json", report)
    return report


def write_page(figures: Figures, report: Mapping[str, Any], results: RunResults) -> None:
    """Draw the figures, and write the page that shows them as ``report.md`` and ``report.html``.

    Args:
        figures: those of the run's folder, which also gets the page.
        report: from :func:`write_numbers`.
        results: the measurements in ``report``.
    """
    # The page says which figures failed, so they come first. Those for phones are only part of the HTML.
    with tempfile.TemporaryDirectory() as folder:
        narrow = Figures(Path(folder))
        for figure in FIGURES:
            data = figure.data(results)
            if data is None:
                continue
            figures.draw(figure.file, figure.plot, *data)
            if figure.file in figures.drawn:
                narrow.draw(figure.file, partial(figure.plot, narrow=True), *data)

        page = report_page(report, results, figures.left_out)
        write_text(figures.folder / "report.md", page)
        write_text(figures.folder / "report.html", html_page(page, figures.folder, narrow.folder))
