"""The main job's measurements: ScaleDown and the baselines before training, ScaleDown after it, and all times."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaledown import processes
from scaledown.config import EvaluationConfig, ScaleDownConfig
from scaledown.evaluation.cost.question_cost import mean_text_tokens, model_cost
from scaledown.evaluation.evaluator import SystemResult, evaluate_system, token_counter
from scaledown.evaluation.evaluator.timing import time_systems
from scaledown.evaluation.figures.needle import memory_of_one
from scaledown.evaluation.figures.style import Figures
from scaledown.evaluation.report.phases import Begin, say_nothing
from scaledown.evaluation.report.run_results import (
    RunResults,
    results_of_checkpoint,
    write_baselines,
    write_numbers,
    write_page,
)
from scaledown.evaluation.systems import BASELINES, SCALEDOWN
from scaledown.files import write_json
from scaledown.models.loading import model_card

PHASE_BEFORE = 2
"""The number of the main job's phase in which ScaleDown is measured before training."""
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


def measure_before(model: Any, records: Sequence[Any], config: EvaluationConfig, seed: int, folder: Path,
                   begin: Begin = say_nothing) -> Before:
    """Measure ScaleDown and the baselines; the answers are written at once, so that a crash later loses none."""
    begin(f"{len(records):,} questions answered by the generator alone: without documents, from text cut to the same "
          "number of tokens as the memory, from the full text")
    # Baselines read text with the adapter off, so they are measured once.
    baselines = {}
    for system in BASELINES:
        baselines[system.name] = evaluate_system(model, system, records, config, seed)
        if processes.rank() == 0:
            write_baselines(folder, baselines)
    begin("the same questions answered by ScaleDown before training")
    scaledown = evaluate_system(model, SCALEDOWN, records, config, seed)
    if processes.rank() == 0:
        write_json(folder / "before_training_results.json", scaledown.to_dict())
    # On all processes, as every use of the model.
    memory = Figures(folder).attempt(MEMORY_FILE, memory_of_one, model, records)
    return Before(scaledown, baselines, memory)


def measure_after(model: Any, records: Sequence[Any], config: EvaluationConfig, seed: int, folder: Path,
                  before: Before, history: Sequence[Mapping[str, Any]], run: Mapping[str, Any],
                  notes: Sequence[str] = (), begin: Begin = say_nothing,
                  checkpoint: Path | None = None) -> dict[str, Any]:
    """Measure ScaleDown again, time every system, write all results; return the content of ``metrics_report.json``.

    The results also go into the card of the model's ``checkpoint``.
    """
    begin("the same questions answered by ScaleDown after training", as_phase=PHASE_BEFORE)
    after = evaluate_system(model, SCALEDOWN, records, config, seed)
    if processes.rank() == 0:
        write_json(folder / "after_training_results.json", after.to_dict())

    begin(f"times of all systems on {min(len(records), config.timed_queries)} questions, one by one; figures; report")
    # All systems are timed together, so that they meet the machine in the same state.
    latencies = time_systems(model, (SCALEDOWN, *BASELINES), records, config)

    cost = model_cost(model, [after, *before.baselines.values()],
                      mean_text_tokens(records, token_counter(model), model.config, model.long_documents))
    results = RunResults(before.scaledown, after, before.baselines, latencies, cost, history, run, notes)
    report = write_numbers(folder, results) if processes.rank() == 0 else {}
    if report and checkpoint is not None:
        note_results(model, report, checkpoint)

    # Only now the figures: whatever fails from here on, the numbers are on disk.
    figures = Figures(folder)
    # On all processes, as every use of the model; the first writes.
    memory = figures.attempt(MEMORY_FILE, memory_of_one, model, records)
    if processes.rank() == 0:
        stages = {"before_training": before.memory, "after_training": memory} if memory else {}
        shown = {stage: example for stage, example in stages.items() if example}
        write_page(figures, report, dataclasses.replace(results, memory=shown))
    return report


def note_results(model: Any, report: Mapping[str, Any], checkpoint: Path) -> None:
    """Add how a model answered to its checkpoint: to ``training.json``, and so to its card.

    Args:
        model: as the checkpoint has it.
        report: the content of ``metrics_report.json``.
        checkpoint: its folder.
    """
    model.progress = dataclasses.replace(model.progress, results=results_of_checkpoint(report))
    model.progress.save(checkpoint)
    # The checkpoint's own settings, which name a generator's folder relative to itself.
    model_card.save(model, ScaleDownConfig.load(checkpoint), checkpoint)


def notes(init_compressor: str | None, warnings: Sequence[str | None]) -> list[str]:
    """Return what a reader of the report should know of the run; a warning that is None is left out."""
    start = "a new compressor: nothing but the generator was pretrained"
    if init_compressor:
        start = f"the pretrained checkpoint {init_compressor}"
    return [f"Training started from {start}.", *(f"Note: {warning}." for warning in warnings if warning)]
