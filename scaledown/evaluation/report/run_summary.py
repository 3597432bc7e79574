"""The end of the main job on the terminal: its headline, and where its results are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaledown.evaluation.metrics import interval_text
from scaledown.progress import duration

SHOWN = {"exact match": "exact_match", "token F1": "token_f1"}
"""Two of the metrics; the others are in the report."""


def summary(report: Mapping[str, Any], folder: Path, num_records: int, seconds: float) -> str:
    """Return the results of a run in a few lines.

    Args:
        report: the content of ``metrics_report.json``; empty on processes without it, which get an empty text.
        folder: of the report.
        num_records: that it was trained on.
        seconds: of the whole run.
    """
    if not report:
        return ""

    settings, num_questions = report["run"]["settings"], report["run"]["n"]
    lines = [f"done in {duration(seconds)}: generator {settings['generator_model']}, compressor "
             f"{settings['compressor_type']}, {num_records:,} training records",
             f"{'n = ' + format(num_questions, ','):>15}  questions, and the 95% interval of each figure"]

    # The headline, and below it the systems that training does not change.
    lines.append(_row("before training", report["before_training"]))
    lines.append(_row("after training", report["after_training"]))
    changes, change_of = [], report["improvements"]
    for name, metric in SHOWN.items():
        key = f"{metric}_avg"
        changes.append(f"{name} {change_of['absolute'][key]:+6.3f} {interval_text(change_of['absolute_ci95'][key])}")
    lines.append(f"{'change':>15}  {'  '.join(changes)}")
    for name, averages in report["baselines"].items():
        lines.append(_row(name.replace("_", " "), averages))

    lines.append(f"report: {folder / 'report.html'} (open it in a browser); all numbers: metrics_report.json beside it")
    return "\n".join(lines)


def _row(name: str, averages: Mapping[str, Any]) -> str:
    values = []
    for label, metric in SHOWN.items():
        values.append(f"{label} {averages[f'{metric}_avg']:6.3f} {interval_text(averages[f'{metric}_ci95'])}")
    return f"{name:>15}  {'  '.join(values)}"
