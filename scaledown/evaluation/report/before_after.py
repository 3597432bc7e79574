"""The main job's two measurements, before and after training, and the summary at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaledown import processes
from scaledown.config import EvaluationConfig
from scaledown.evaluation.cost.model_cost import mean_text_tokens, model_cost
from scaledown.evaluation.evaluator import SystemResult, evaluate_system
from scaledown.evaluation.figures.drawing import Figures
from scaledown.evaluation.figures.needle import memory_of_one
from scaledown.evaluation.report.results import RunResults, write_numbers, write_page
from scaledown.evaluation.systems import BASELINES, SCALEDOWN
from scaledown.evaluation.timing import time_systems
from scaledown.files import write_json


@dataclass(frozen=True)
class Before:
    """The results before training: ScaleDown as it starts, and the baselines, which training does not change."""

    scaledown: SystemResult
    baselines: Mapping[str, SystemResult]


def measure_before(model: Any, records: Sequence[Any], config: EvaluationConfig, seed: int, folder: Path) -> Before:
    """Measure ScaleDown and the baselines; the answers are written at once, so that a crash later loses none."""
    # Baselines read text with the adapter off, so they are measured once.
    baselines = {system.name: evaluate_system(model, system, records, config, seed) for system in BASELINES}
    scaledown = evaluate_system(model, SCALEDOWN, records, config, seed)
    if processes.rank() == 0:
        write_json(folder / "before_training_results.json", scaledown.to_dict())
    return Before(scaledown, baselines)


def measure_after(model: Any, records: Sequence[Any], config: EvaluationConfig, seed: int, folder: Path,
                  before: Before, history: Sequence[Mapping[str, Any]], run: Mapping[str, Any],
                  notes: Sequence[str] = ()) -> dict[str, Any]:
    """Measure ScaleDown again, time every system, write all results; return the content of ``metrics_report.json``."""
    after = evaluate_system(model, SCALEDOWN, records, config, seed)
    if processes.rank() == 0:
        write_json(folder / "after_training_results.json", after.to_dict())

    # All systems are timed together, so that they meet the machine in the same state.
    latencies = time_systems(model, (SCALEDOWN, *BASELINES), records, config)

    def count_tokens(text: str) -> int:
        return len(model.processor.tokenizer(text, add_special_tokens=False).input_ids)

    cost = model_cost(model, [after, *before.baselines.values()],
                      mean_text_tokens(records, count_tokens, model.config))
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


def summary(report: Mapping[str, Any], folder: Path) -> str:
    """Return the run in a few lines, for the terminal; nothing on processes without the report."""
    if not report:
        return ""

    systems = {"before training": report["before_training"], "after training": report["after_training"]}
    for name, baseline in report["baselines"].items():
        systems[name.replace("_", " ")] = baseline

    lines = [f"n = {report['run']['n']} questions"]
    for name, averages in systems.items():
        low, high = averages["exact_match_ci95"]
        lines.append(f"{name:>15}  exact match {averages['exact_match_avg']:.3f} [{low:.3f}, {high:.3f}]  "
                     f"token F1 {averages['token_f1_avg']:.3f}")

    lines.append(f"report: {folder / 'report.html'}")
    return "\n".join(lines)
