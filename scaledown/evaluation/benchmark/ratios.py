"""What the benchmark's figures say: ratios between systems, and growth with the number of documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What ScaleDown saves against each other system, in words, a line for each number of documents."""
    lines = []
    for ours in (row for row in rows if row["system"] == "scaledown"):
        for other in rows:
            if other["num_documents"] != ours["num_documents"] or other is ours:
                continue
            lines.append(f"{ours['num_documents']:>4} documents, against {other['system']:<17} "
                         + (_training_ratio(ours, other) if "step_ms" in ours else _inference_ratio(ours, other)))
    return lines


def _inference_ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    def ratio(phase: str) -> float:
        return other["ms_per_query"][phase]["median"] / ours["ms_per_query"][phase]["median"]

    def promised(phase: str) -> float:
        return other["flops_per_query"][phase] / ours["flops_per_query"][phase]

    compress = f"compression {ratio('compress'):.2f}x, " if other["ms_per_query"]["compress"]["median"] else ""
    return (f"{compress}first token {ratio('first_token'):.2f}x (FLOPs promise "
            f"{promised('first_token'):.2f}x), whole answer {ratio('total'):.2f}x ({promised('total'):.2f}x)"
            + _memory_ratio(ours, other))


def _training_ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return (f"{ours['examples_per_second'] / other['examples_per_second']:.2f}x the examples a second"
            + _memory_ratio(ours, other))


def _memory_ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if not ours["peak_bytes"] or not other["peak_bytes"]:
        return ""
    return f", peak memory {ours['peak_bytes'] / other['peak_bytes']:.2f} of its"


def growth(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How far ScaleDown's time and FLOPs are from a straight line over the number of documents."""
    own = [row for row in rows if row["system"] == "scaledown" and "ms_per_query" in row]
    counts = np.array([row["num_documents"] for row in own], dtype=float)
    if len(set(counts)) < 3:
        return []
    series = {"time": [row["ms_per_query"]["total"]["median"] for row in own],
              "FLOPs": [row["flops_per_query"]["total"] for row in own]}
    if all(row["peak_bytes"] for row in own):
        series["peak memory"] = [row["peak_bytes"] for row in own]
    found = []
    for name, values in series.items():
        line = np.polyval(np.polyfit(counts, values, 1, w=1 / np.array(values)), counts)
        found.append(f"{name} within {100 * np.abs(np.array(values) / line - 1).max():.0f}%")
    return [f"from {counts.min():.0f} to {counts.max():.0f} documents ScaleDown follows a straight line: "
            + ", ".join(found)]


def shares(found: Mapping[str, float] | float) -> str:
    """Shares of the matrix-multiply peak in words, by phase or of a whole step."""
    if isinstance(found, float):
        return f"{found:.2f}"
    return ", ".join(f"{phase} {share:.2f}" for phase, share in found.items())
