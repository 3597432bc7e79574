"""The points of the robustness command, measured one by one, and their figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaledown import processes
from scaledown.config import EvaluationConfig
from scaledown.evaluation.evaluator import evaluate_system, token_counter
from scaledown.evaluation.figures.heat_maps import plot_needle
from scaledown.evaluation.figures.needle import look_into_memory
from scaledown.evaluation.figures.style import Figures
from scaledown.evaluation.figures.text_tables import console_table, score
from scaledown.evaluation.metrics import interval_text
from scaledown.evaluation.robustness.sweep_figure import plot_robustness
from scaledown.evaluation.robustness.sweeps import Case, Setting, settings
from scaledown.files import write_json
from scaledown.models.model import ScaleDownModel
from scaledown.progress import Bar

RESULTS_FILE, NEEDLE_FILE = "robustness.json", "needle.json"
Rows = list[dict[str, Any]]


def measure(model: ScaleDownModel, todo: Sequence[Setting], config: EvaluationConfig, seed: int, path: Path) -> Rows:
    """Measure every point that ``path`` does not hold yet; each is written there at once."""
    rows: Rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    done = {(row["sweep"], row["value"], row["system"]) for row in rows}

    points = []
    for setting in todo:
        for name, system in setting.systems.items():
            if (setting.sweep, setting.value, name) not in done:
                points.append((setting, name, system))

    for setting, name, system in Bar(points, desc="points measured", unit="point", disable=processes.rank() > 0):
        result = evaluate_system(model, system, setting.records, config, seed, progress=False)
        rows.append({"sweep": setting.sweep, "value": setting.value, "system": name, **result.summary()})
        # The whole file is rewritten at each point: it is small, and answering takes far longer.
        if processes.rank() == 0:
            write_json(path, rows)
    return rows


def draw(folder: Path, model: ScaleDownModel, asked: Sequence[Case], rows: Rows) -> list[str]:
    """Draw the sweeps, look into the memory and draw that; return the names of all files of the run."""
    figures, files = Figures(folder), [RESULTS_FILE]
    if processes.rank() == 0:
        figures.draw("robustness.png", plot_robustness, rows)

    # None if no document contains its answer literally, of which a warning was printed.
    likeness = figures.attempt("needle.png", look_into_memory, model,
                              [(case.record, case.gold) for case in asked])
    if likeness is not None and processes.rank() == 0:
        write_json(folder / NEEDLE_FILE, likeness)
        files.append(NEEDLE_FILE)
        figures.draw("needle.png", plot_needle, likeness)

    return [*figures.drawn, *files]


def table(rows: Rows) -> str:
    """Return exact match at every point, for the terminal."""
    lines = []
    for row in rows:
        lines.append([row["sweep"], f"{row['value']:g}", row["system"], score(row["exact_match_avg"]),
                      interval_text(row["exact_match_ci95"])])

    return console_table([f"n = {rows[0]['n']}", "value", "system", "exact match", "95%"], lines)


def measure_all(model: ScaleDownModel, asked: Sequence[Case], config: EvaluationConfig, args: argparse.Namespace,
                folder: Path) -> None:
    """Measure every point, look into the memory, and print the names of the files."""
    # The sweeps fit the model: its budgets of memory tokens, and documents up to the longest that it reads.
    todo = settings(asked, model.config.memory_token_choices, model.config.document_tokens, token_counter(model))
    print(f"{args.checkpoint} on {model.device}: {len(asked)} questions at {len(todo)} points; results go to {folder}")

    rows = measure(model, todo, config, args.seed, folder / RESULTS_FILE)
    written = draw(folder, model, asked, rows)
    print(f"{table(rows)}\n\n{folder}: {', '.join(written)}")
