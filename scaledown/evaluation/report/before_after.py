"""The main job's measurements: ScaleDown and the baselines before training, ScaleDown after it, and all times."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaledown import processes
from scaledown.config import EvaluationConfig
from scaledown.evaluation.cost.question_cost import mean_text_tokens, model_cost
from scaledown.evaluation.evaluator import SystemResult, evaluate_system, token_counter
from scaledown.evaluation.figures.needle import memory_of_one
from scaledown.evaluation.figures.style import Figures
from scaledown.evaluation.metrics import interval_text
from scaledown.evaluation.report.run_results import RunResults, write_numbers, write_page
from scaledown.evaluation.systems import BASELINES, SCALEDOWN
from scaledown.evaluation.timing import time_systems
from scaledown.files import write_json

MEMORY_FILE = "memory.png"


@dataclass(frozen=True)
class Before:
    """The results before training.

    Attributes:
        scaledown: ScaleDown as it starts.
        baselines: which training does not change.
        memory: of one document, to draw beside that after training; None if no document could be shown.
    """

    scaledown: SystemResult
    baselines: Mapping[str, SystemResult]
    memory: Mapping[str, Any] | None = None


def measure_before(model: Any, records: Sequence[Any], config: EvaluationConfig, seed: int, folder: Path) -> Before:
    """Measure ScaleDown and the baselines; the answers are written at once, so that a crash later loses none."""
    # Baselines read text with the adapter off, so they are measured once.
    baselines = {system.name: evaluate_system(model, system, records, config, seed) for system in BASELINES}
    scaledown = evaluate_system(model, SCALEDOWN, records, config, seed)
    if processes.rank() == 0:
        write_json(folder / "before_training_results.json", scaledown.to_dict())
    # On all processes, as every use of the model.
    memory = Figures(folder).attempt(MEMORY_FILE, memory_of_one, model, records)
    return Before(scaledown, baselines, memory)


def measure_after(model: Any, records: Sequence[Any], config: EvaluationConfig, seed: int, folder: Path,
                  before: Before, history: Sequence[Mapping[str, Any]], run: Mapping[str, Any],
                  notes: Sequence[str] = ()) -> dict[str, Any]:
    """Measure ScaleDown again, time every system, write all results; return the content of ``metrics_report.json``."""
    after = evaluate_system(model, SCALEDOWN, records, config, seed)
    if processes.rank() == 0:
        write_json(folder / "after_training_results.json", after.to_dict())

    # All systems are timed together, so that they meet the machine in the same state.
    latencies = time_systems(model, (SCALEDOWN, *BASELINES), records, config)

    cost = model_cost(model, [after, *before.baselines.values()],
                      mean_text_tokens(records, token_counter(model), model.config))
    results = RunResults(before.scaledown, after, before.baselines, latencies, cost, history, run, notes)
    report = write_numbers(folder, results) if processes.rank() == 0 else {}

    # Only now the figures: whatever fails from here on, the numbers are on disk.
    figures = Figures(folder)
    # On all processes, as every use of the model; the first writes.
    memory = figures.attempt(MEMORY_FILE, memory_of_one, model, records)
    if processes.rank() == 0:
        stages = {"before_training": before.memory, "after_training": memory} if memory else {}
        shown = {stage: example for stage, example in stages.items() if example}
        write_page(figures, report, dataclasses.replace(results, memory=shown))
    return report


def notes(init_compressor: str | None, warnings: Sequence[str | None]) -> list[str]:
    """Return what a reader of the report should know of the run; a warning that is None is left out."""
    start = "a new compressor: nothing but the generator was pretrained"
    if init_compressor:
        start = f"the pretrained checkpoint {init_compressor}"
    return [f"Training started from {start}.", *(f"Note: {warning}." for warning in warnings if warning)]


def summary(report: Mapping[str, Any], folder: Path) -> str:
    """Return the run in a few lines, for the terminal; nothing on processes without the report."""
    if not report:
        return ""

    systems = {"before training": report["before_training"], "after training": report["after_training"]}
    for name, baseline in report["baselines"].items():
        systems[name.replace("_", " ")] = baseline

    # Two of the metrics: the others are in the report.
    lines = [f"n = {report['run']['n']} questions"]
    for name, averages in systems.items():
        interval = interval_text(averages["exact_match_ci95"])
        lines.append(f"{name:>15}  exact match {averages['exact_match_avg']:.3f} {interval}  "
                     f"token F1 {averages['token_f1_avg']:.3f}")

    lines.append(f"report: {folder / 'report.html'}")
    return "\n".join(lines)
