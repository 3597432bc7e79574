"""The main job's measurements before and after training, and its results on disk: figures, ``metrics_report.json``, the
answers, and one page that shows them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scaledown import processes
from scaledown.config import EvaluationConfig, TrainingConfig
from scaledown.evaluation.cost.question_cost import mean_text_tokens, model_cost
from scaledown.evaluation.evaluator import SystemResult, evaluate_system, token_counter
from scaledown.evaluation.figures.needle import memory_of_one, plot_memory
from scaledown.evaluation.figures.plots import FIGURES
from scaledown.evaluation.figures.style import Figures
from scaledown.evaluation.metrics import METRICS, bootstrap_ci95
from scaledown.evaluation.report.html_page import html_page
from scaledown.evaluation.report.phases import Begin, say_nothing
from scaledown.evaluation.report.report_page import report_page
from scaledown.evaluation.systems import BASELINES, SCALEDOWN
from scaledown.evaluation.timing import Latency, time_systems
from scaledown.files import write_json, write_text

PHASE_BEFORE = 2
"""The number of the main job's phase in which ScaleDown is measured before training."""


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
        run: from :func:`scaledown.run_information.run_information`.
        notes: what a reader must know, shown under the heading, such as the weights that training started from.
    """

    before: SystemResult
    after: SystemResult
    baselines: Mapping[str, SystemResult]
    latencies: Mapping[str, Latency]
    cost: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    run: Mapping[str, Any]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        assert set(self.baselines) == {system.name for system in BASELINES}
        assert set(self.latencies) == set(self.baselines) | {SCALEDOWN.name}


def improvements(before: SystemResult, after: SystemResult, num_resamples: int, seed: int) -> dict[str, Any]:
    """Return the change from training, by metric.

    Returns:
        ``absolute`` (after - before), ``absolute_ci95`` (paired: questions are resampled, so that both sides see the
        same ones) and ``relative`` (absolute / before; None if before is 0).
    """
    changes = []
    for old, new in zip(before.questions, after.questions, strict=True):
        changes.append([getattr(new.scores, metric) - getattr(old.scores, metric) for metric in METRICS])
    # Resampling differences pairs the two sides: a hard question is hard in both, and its difficulty cancels out.
    intervals = bootstrap_ci95(np.array(changes), num_resamples, seed)  # (metrics, 2)

    absolute, relative, ends = {}, {}, {}
    for column, metric in enumerate(METRICS):
        key = f"{metric}_avg"
        base, reached = before.averages[key], after.averages[key]
        absolute[key] = reached - base
        relative[key] = (reached - base) / base if base else None
        ends[key] = [float(end) for end in intervals[column]]

    return {"absolute": absolute, "absolute_ci95": ends, "relative": relative}


def _speed_statistics(latencies: Mapping[str, Latency]) -> dict[str, Any]:
    scaledown, full_text = latencies["scaledown"], latencies["full_text"]
    median_ms = scaledown.total.median_ms  # 0 only on a clock that is too coarse
    return {**scaledown.to_dict(), "batch_size": 1,
            "speedup_over_full_text": full_text.total.median_ms / median_ms if median_ms else None}


def metrics_report(results: RunResults) -> dict[str, Any]:
    """Return the content of ``metrics_report.json``: plain numbers, no NaN and no infinity."""
    # The intervals of the improvements are made as those of the averages were.
    settings = results.run["settings"]
    num_resamples = settings.get("bootstrap_resamples", EvaluationConfig.bootstrap_resamples)
    seed = results.run.get("seed", TrainingConfig.seed)

    baselines = {name: {**result.summary(), "times": results.latencies[name].to_dict()}
                 for name, result in results.baselines.items()}

    return {"before_training": results.before.summary(), "after_training": results.after.summary(),
            "improvements": improvements(results.before, results.after, num_resamples, seed),
            "baselines": baselines, "speed_statistics": _speed_statistics(results.latencies),
            "cost": dict(results.cost), "run": {"n": len(results.after.questions), **results.run},
            "notes": list(results.notes)}


def write_numbers(folder: Path, results: RunResults) -> dict[str, Any]:
    """Write every answer and ``metrics_report.json``; return the content of the latter."""
    report = metrics_report(results)
    write_json(folder / "before_training_results.json", results.before.to_dict())
    write_json(folder / "after_training_results.json", results.after.to_dict())
    write_json(folder / "metrics_report.json", report)
    return report


def write_page(figures: Figures, report: Mapping[str, Any], results: RunResults,
               memory: Mapping[str, Any] | None = None) -> None:
    """Draw the figures, and write the page that shows them as ``report.md`` and ``report.html``.

    Args:
        figures: those of the run's folder, which also gets the page.
        report: from :func:`write_numbers`.
        results: the measurements in ``report``.
        memory: from :func:`scaledown.evaluation.figures.needle.memory_of_one`.
    """
    # The page says which figures failed, so they come first.
    _draw(figures, results, memory)

    page = report_page(report, results.before, results.after, results.baselines["full_text"], memory,
                       figures.left_out)
    write_text(figures.folder / "report.md", page)
    write_text(figures.folder / "report.html", html_page(page, figures.folder))


def _draw(figures: Figures, results: RunResults, memory: Mapping[str, Any] | None) -> None:
    for figure in FIGURES:
        figures.draw(figure.file, figure.plot, *figure.data(results))
    if memory is not None:
        figures.draw("memory.png", plot_memory, memory)


@dataclass(frozen=True)
class Before:
    """The results before training: ScaleDown as it starts, and the baselines, which training does not change."""

    scaledown: SystemResult
    baselines: Mapping[str, SystemResult]


def measure_before(model: Any, records: Sequence[Any], config: EvaluationConfig, seed: int, folder: Path,
                   begin: Begin = say_nothing) -> Before:
    """Measure ScaleDown and the baselines; the answers are written at once, so that a crash later loses none."""
    begin(f"{len(records):,} questions answered by the generator alone: without documents, from text cut to the same "
          "number of tokens as the memory, from the full text")
    # Baselines read text with the adapter off, so they are measured once.
    baselines = {system.name: evaluate_system(model, system, records, config, seed) for system in BASELINES}
    begin("the same questions answered by ScaleDown before training")
    scaledown = evaluate_system(model, SCALEDOWN, records, config, seed)
    if processes.rank() == 0:
        write_json(folder / "before_training_results.json", scaledown.to_dict())
    return Before(scaledown, baselines)


def measure_after(model: Any, records: Sequence[Any], config: EvaluationConfig, seed: int, folder: Path,
                  before: Before, history: Sequence[Mapping[str, Any]], run: Mapping[str, Any],
                  notes: Sequence[str] = (), begin: Begin = say_nothing) -> dict[str, Any]:
    """Measure ScaleDown again, time every system, write all results; return the content of ``metrics_report.json``."""
    begin("the same questions answered by ScaleDown after training", as_phase=PHASE_BEFORE)
    after = evaluate_system(model, SCALEDOWN, records, config, seed)
    if processes.rank() == 0:
        write_json(folder / "after_training_results.json", after.to_dict())

    begin(f"times of all systems on {min(len(records), config.timed_queries)} questions, one by one; figures; report")
    # All systems are timed together, so that they meet the machine in the same state.
    latencies = time_systems(model, (SCALEDOWN, *BASELINES), records, config)

    cost = model_cost(model, [after, *before.baselines.values()],
                      mean_text_tokens(records, token_counter(model), model.config))
    results = RunResults(before.scaledown, after, before.baselines, latencies, cost, history, run, notes)
    report = write_numbers(folder, results) if processes.rank() == 0 else {}

    # Only now the figures: whatever fails from here on, the numbers are on disk.
    figures = Figures(folder)
    # On all processes, as every use of the model; the first writes.
    memory = figures.attempt("memory.png", memory_of_one, model, records)
    if processes.rank() == 0:
        write_page(figures, report, results, memory)
    return report


def notes(init_compressor: str | None, warnings: Sequence[str | None]) -> list[str]:
    """Return what a reader of the report should know of the run; a warning that is None is left out."""
    start = "a new compressor: nothing but the generator was pretrained"
    if init_compressor:
        start = f"the pretrained checkpoint {init_compressor}"
    return [f"Training started from {start}.", *(f"Note: {warning}." for warning in warnings if warning)]
