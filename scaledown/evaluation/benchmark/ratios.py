"""The benchmark's systems and conclusions: ratios between systems, and growth with the number of documents."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaledown.evaluation.figures.text_tables import console_table

FROM_MEMORY = ("scaledown", "naive_compressor")
SYSTEMS = (*FROM_MEMORY, "full_text", "truncated_text")
MEMORY_TOKENS = 8
"""Memory tokens of a document; truncated text has as many tokens."""
LINE_TOLERANCE = 0.1
"""Largest relative distance from a straight line that still counts as following it."""


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what ScaleDown saves against each other system, for each number of documents.

    Returns:
        ``num_documents``, ``against``, and how many times as fast ScaleDown is: of answering ``compression`` (None for
        text, which is not compressed), ``first_token`` and ``whole_answer``, each with the ``_flops`` of the same;
        of training ``examples_per_second``. ``peak_memory`` is its share of the other's (None if not known).
    """
    ratio = _training_ratio if any("step_ms" in row for row in rows) else _inference_ratio

    found = []
    for ours in rows:
        if ours["system"] != "scaledown":
            continue
        for other in rows:
            # Only what was measured with as many documents can be compared.
            if other["num_documents"] == ours["num_documents"] and other is not ours:
                found.append({"num_documents": ours["num_documents"], "against": other["system"],
                              **ratio(ours, other), "peak_memory": _memory_ratio(ours, other)})
    return found


def _inference_ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float | None]:
    def ratio(phase: str) -> float:
        return other["ms_per_query"][phase]["median"] / ours["ms_per_query"][phase]["median"]

    def promised(phase: str) -> float:
        return other["flops_per_query"][phase] / ours["flops_per_query"][phase]

    # Full text and truncated text have nothing to compress.
    compression = ratio("compress") if other["ms_per_query"]["compress"]["median"] else None
    return {"compression": compression, "first_token": ratio("first_token"),
            "first_token_flops": promised("first_token"), "whole_answer": ratio("total"),
            "whole_answer_flops": promised("total")}


def _training_ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float | None]:
    return {"examples_per_second": ours["examples_per_second"] / other["examples_per_second"]}


def _memory_ratio(ours: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
    if not ours["peak_bytes"] or not other["peak_bytes"]:
        return None  # not known on this machine
    return ours["peak_bytes"] / other["peak_bytes"]


def ratio_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return :func:`ratios` for the terminal; FLOPs are the ratio that the arithmetic promises."""
    header = ["ScaleDown against", "documents"]
    header += [name.replace("_flops", "_by FLOPs").replace("_", "\n") for name in _names(rows)]

    lines = []
    for ratio in ratios(rows):
        cells = []
        for name in _names(rows):
            unit = "" if name == "peak_memory" else "x"
            cells.append("-" if ratio[name] is None else f"{ratio[name]:.2f}{unit}")
        lines.append([ratio["against"], str(ratio["num_documents"]), *cells])
    return console_table(header, lines) if lines else ""


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = ratios(rows)
    return [name for name in found[0] if name not in ("num_documents", "against")] if found else []


def growth(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how ScaleDown's time and FLOPs grow with the number of documents, and its memory.

    A straight line is mentioned only for numbers that rise. Peak memory follows no line: beyond the documents of one
    pass of the compressor it hardly grows.
    """
    ours = sorted((row for row in rows if row["system"] == "scaledown" and "ms_per_query" in row),
                  key=lambda row: row["num_documents"])
    counts = np.array([row["num_documents"] for row in ours], dtype=float)
    if len(set(counts)) < 3:
        return []  # any two points lie on a line

    series = {"time": [row["ms_per_query"]["total"]["median"] for row in ours],
              "FLOPs": [row["flops_per_query"]["total"] for row in ours]}
    lines = [f"{name}, from {counts.min():.0f} to {counts.max():.0f} documents: {_course(counts, np.array(values))}"
             for name, values in series.items()]

    if all(row["peak_bytes"] for row in ours):
        peaks = ", ".join(f"{row['peak_bytes'] / 2**20:.0f}" for row in ours)
        lines.append(f"peak memory with {', '.join(f'{count:.0f}' for count in counts)} documents: {peaks} MiB")
    return lines


def _course(counts: np.ndarray, values: np.ndarray) -> str:
    """Return in words how values follow the counts, in rising order."""
    if (np.diff(values) <= 0).any():
        return "does not rise throughout; no line is claimed, try more --rounds"

    # Weighted by 1 / value the fit minimises relative errors, so that small counts matter as much as large ones.
    line = np.polyval(np.polyfit(counts, values, 1, w=1 / values), counts)
    deviation = np.abs(values / line - 1).max()
    if deviation > LINE_TOLERANCE:
        return f"rises, up to {deviation:.0%} away from a straight line"
    return f"within {deviation:.0%} of a straight line"


def share_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the share of the machine's matrix-multiply peak that each system reaches, by phase or of a step."""
    def of_phases(row: Mapping[str, Any]) -> Mapping[str, float]:
        share = row["share_of_matmul_peak"]
        return {"step": share} if isinstance(share, float) else share

    # The phases of any system: text has nothing to compress.
    phases = list(dict.fromkeys(itertools.chain.from_iterable(of_phases(row) for row in rows)))
    lines = []
    for row in rows:
        cells = [f"{of_phases(row)[phase]:.2f}" if phase in of_phases(row) else "-" for phase in phases]
        lines.append([row["system"], str(row["num_documents"]), *cells])
    return console_table(["share of matrix-multiply peak", "documents", *phases], lines)
