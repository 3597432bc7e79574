"""The benchmark's systems and conclusions: ratios between systems, and growth with the number of documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FROM_MEMORY = ("scaledown", "naive_compressor")
SYSTEMS = (*FROM_MEMORY, "full_text", "truncated_text")
MEMORY_TOKENS = 8
"""Memory tokens of a document; truncated text has as many tokens."""


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what ScaleDown saves against each other system, one line for each number of documents."""
    ratio = _training_ratio if any("step_ms" in row for row in rows) else _inference_ratio

    lines = []
    for ours in rows:
        if ours["system"] != "scaledown":
            continue
        for other in rows:
            # Only what was measured with as many documents can be compared.
            if other["num_documents"] == ours["num_documents"] and other is not ours:
                lines.append(f"{ours['num_documents']:>4} documents, against {other['system']:<17} "
                             f"{ratio(ours, other)}")
    return lines


def _inference_ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    def ratio(phase: str) -> float:
        return other["ms_per_query"][phase]["median"] / ours["ms_per_query"][phase]["median"]

    def promised(phase: str) -> float:
        return other["flops_per_query"][phase] / ours["flops_per_query"][phase]

    # Full text and truncated text have nothing to compress.
    compress = f"compression {ratio('compress'):.2f}x, " if other["ms_per_query"]["compress"]["median"] else ""
    return (f"{compress}first token {ratio('first_token'):.2f}x (FLOPs promise "
            f"{promised('first_token'):.2f}x), whole answer {ratio('total'):.2f}x ({promised('total'):.2f}x)"
            + _memory_ratio(ours, other))


def _training_ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return (f"{ours['examples_per_second'] / other['examples_per_second']:.2f}x the examples a second"
            + _memory_ratio(ours, other))


def _memory_ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if not ours["peak_bytes"] or not other["peak_bytes"]:
        return ""  # not known on this machine
    return f", peak memory {ours['peak_bytes'] / other['peak_bytes']:.2f} of its"


def growth(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how far ScaleDown's time and FLOPs are from a straight line over the number of documents, and its memory.

    Peak memory follows no line: beyond the documents of one pass of the compressor it hardly grows.
    """
    ours = [row for row in rows if row["system"] == "scaledown" and "ms_per_query" in row]
    counts = np.array([row["num_documents"] for row in ours], dtype=float)
    if len(set(counts)) < 3:
        return []  # any two points lie on a line

    series = {"time": [row["ms_per_query"]["total"]["median"] for row in ours],
              "FLOPs": [row["flops_per_query"]["total"] for row in ours]}

    deviations = []
    for name, numbers in series.items():
        values = np.array(numbers)
        # Weighted by 1 / value the fit minimises relative errors, so that small counts matter as much as large ones.
        line = np.polyval(np.polyfit(counts, values, 1, w=1 / values), counts)
        deviations.append(f"{name} within {100 * np.abs(values / line - 1).max():.0f}%")

    memory = ""
    if all(row["peak_bytes"] for row in ours):
        peaks = ", ".join(f"{row['peak_bytes'] / 2**20:.0f}" for row in ours)
        memory = f"; peak memory {peaks} MiB"
    return [f"from {counts.min():.0f} to {counts.max():.0f} documents, against a straight line: "
            + ", ".join(deviations) + memory]


def shares(of_peak: Mapping[str, float] | float) -> str:
    """Return shares of the matrix-multiply peak as text, by phase or of a whole step."""
    if isinstance(of_peak, float):
        return f"{of_peak:.2f}"
    return ", ".join(f"{phase} {share:.2f}" for phase, share in of_peak.items())
