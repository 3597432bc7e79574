"""The points of the needle command: exact match by length and depth, and time and memory by length."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaledown import processes
from scaledown.config import AUTO, CUT, EvaluationConfig
from scaledown.data.records import Record
from scaledown.evaluation.evaluator import answer_batch, evaluate_system, inference
from scaledown.evaluation.evaluator.timing import peak_bytes, time_systems
from scaledown.evaluation.figures.style import Figures
from scaledown.evaluation.figures.text_tables import console_table, score
from scaledown.evaluation.metrics import bootstrap_ci95, interval_text
from scaledown.evaluation.needle.depth_figure import plot_depths
from scaledown.evaluation.needle.growth_figure import plot_growth
from scaledown.evaluation.needle.haystack import Haystack
from scaledown.evaluation.systems import FULL_TEXT, SCALEDOWN, System, keeping
from scaledown.files import write_json
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.choosing import Keep, check_keep_documents
from scaledown.progress import Bar
from scaledown.prompt.passages import TokenCounter

DEPTHS_FILE, GROWTH_FILE = "depths.json", "growth.json"
MIDDLE = 0.5
"""The depth of the needle where time and memory are measured, which do not depend on it."""
KEPT_WITHOUT_THRESHOLD = 5
Rows = list[dict[str, Any]]


def _prefill_cut_text(model: Any, questions: Any, documents: Any, memory: Any) -> Any:
    return model.prefill_text(questions, documents, long_documents=CUT)


CUT_TEXT = System("cut_text", _prefill_cut_text)
"""The start of each document as text, up to the longest that the compressor reads at once."""


def kept(model: ScaleDownModel, asked: Keep) -> Keep:
    """Return what to keep: as asked, else "auto"; 5 for a model without a threshold, all for one without scores.

    Raises:
        ValueError: if the model cannot choose as asked.
    """
    config = model.config
    if asked is not None:
        check_keep_documents(asked, config.enable_reranking, config.keep_threshold)
        return asked
    if not config.enable_reranking:
        return None
    return AUTO if config.keep_threshold is not None else KEPT_WITHOUT_THRESHOLD


class Points:
    """The points of a run, of which those that are on disk already are not measured again.

    Args:
        model: the model.
        haystacks: the questions, the same at every point.
        count_tokens: of the model's compressor.
        args: ``lengths``, ``depths``, ``longest_full_text`` and ``seed``.
        config: of the evaluation.
        keep: the passages that ScaleDown keeps.
    """

    def __init__(self, model: ScaleDownModel, haystacks: Sequence[Haystack], count_tokens: TokenCounter,
                 args: argparse.Namespace, config: EvaluationConfig, keep: Keep) -> None:
        self.model, self.haystacks, self.count_tokens = model, haystacks, count_tokens
        self.args, self.config = args, config
        self.ours = SCALEDOWN if keep is None else keeping(keep)

    def records(self, length: int, depth: float) -> list[Record]:
        """Return the questions, each with one document of this length and the needle at this depth."""
        return [haystack.of(length, depth, self.count_tokens) for haystack in self.haystacks]

    def systems(self, length: int) -> dict[str, System]:
        """Return the systems that are measured at a length, by the names in the rows."""
        systems = {"scaledown": self.ours, "full_text": FULL_TEXT, "cut_text": CUT_TEXT}
        limit = self.model.processor.position_limit
        # A prompt beyond a hard limit is refused; beside the document it has some words of its own.
        longest = self.args.longest_full_text
        if limit is not None:
            longest = min(longest, limit.num_positions // 2)
        if length > longest:
            del systems["full_text"]
        return systems

    def measure_depths(self, path: Path) -> Rows:
        """Measure exact match at every length and depth that ``path`` does not hold yet; each is written at once."""
        rows = _rows_in(path)
        done = {(row["length_tokens"], row["depth"], row["system"]) for row in rows}
        points = [point for point in self._points() if point[:3] not in done]

        for length, depth, name, system in Bar(points, desc="points measured", unit="point",
                                               disable=processes.rank() > 0):
            result = evaluate_system(self.model, system, self.records(length, depth), self.config, self.args.seed,
                                     progress=False)
            matches = [question.scores.exact_match for question in result.questions]
            rows.append({"length_tokens": length, "depth": depth, "system": name, **result.summary(),
                         "exact_matches": matches})
            _write(path, rows)
        return rows

    def _points(self) -> Iterator[tuple[int, float, str, System]]:
        for length in self.args.lengths:
            for depth in self.args.depths:
                for name, system in self.systems(length).items():
                    yield length, depth, name, system

    def measure_growth(self, path: Path) -> Rows:
        """Measure time to the first token and memory at every length that ``path`` does not hold yet."""
        rows = _rows_in(path)
        done = {row["length_tokens"] for row in rows}
        lengths = [length for length in self.args.lengths if length not in done]
        # The first token is that after reading everything.
        config = dataclasses.replace(self.config, max_new_tokens=1)

        for length in Bar(lengths, desc="lengths timed", unit="length", disable=processes.rank() > 0):
            records, systems = self.records(length, MIDDLE), self.systems(length)
            # In turns, so that all meet the machine in the same state.
            latencies = time_systems(self.model, list(systems.values()), records, config, progress=False)
            for name, system in systems.items():
                first_token = latencies[system.name].total
                rows.append({"length_tokens": length, "system": name,
                             "first_token_ms": dataclasses.asdict(first_token),
                             "prompt_tokens": latencies[system.name].mean_prompt_tokens,
                             "num_queries": latencies[system.name].num_queries,
                             "peak_bytes": self._peak_bytes(system, records[0])})
            _write(path, rows)
        return rows

    def _peak_bytes(self, system: System, record: Record) -> int | None:
        with inference(self.model):
            return peak_bytes(lambda: answer_batch(self.model, system, [record], 1), self.model.device)


def _rows_in(path: Path) -> Rows:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _write(path: Path, rows: Rows) -> None:
    # The whole file is rewritten at each point: it is small, and answering takes far longer.
    if processes.rank() == 0:
        write_json(path, rows)


def by_length(rows: Rows, num_resamples: int, seed: int) -> Rows:
    """Return exact match by length and system: the mean over all depths, with its interval over the questions."""
    groups: dict[tuple[int, str], list[list[float]]] = {}
    for row in rows:
        groups.setdefault((row["length_tokens"], row["system"]), []).append(row["exact_matches"])

    means = []
    for (length, system), matches in groups.items():
        # Depths of one question are not independent: each question counts once.
        values = np.mean(matches, axis=0)[:, None]                            # (questions, 1)
        low, high = bootstrap_ci95(values, num_resamples, seed)[0]
        means.append({"length_tokens": length, "system": system, "exact_match": float(values.mean()),
                      "ci95": [float(low), float(high)], "n": len(values)})
    return means


def table(means: Rows, growth: Rows) -> str:
    """Return a row for each length and system: exact match, its share of that at the shortest length, and cost."""
    shortest = min(row["length_tokens"] for row in means)
    at_shortest = {row["system"]: row["exact_match"] for row in means if row["length_tokens"] == shortest}
    costs = {(row["length_tokens"], row["system"]): row for row in growth}

    lines = []
    for row in means:
        # A system that finds nothing at the shortest length has no share of that.
        base = at_shortest.get(row["system"])
        share = f"{row['exact_match'] / base:.2f}" if base else ""
        cost = costs[row["length_tokens"], row["system"]]
        peak = "" if cost["peak_bytes"] is None else f"{cost['peak_bytes'] / 2**20:,.0f}"
        lines.append([f"{row['length_tokens']:,} tokens, {row['system']}", score(row["exact_match"]),
                      interval_text(row["ci95"]), share, f"{cost['first_token_ms']['median_ms']:,.0f}", peak,
                      f"{cost['prompt_tokens']:,.0f}"])
    return console_table([f"n = {means[0]['n']}", "exact match", "95%", f"share of\nthat at {shortest:,}",
                          "first token,\nms", "memory,\nMiB", "prompt\ntokens"], lines)


def measure_all(points: Points, folder: Path) -> None:
    """Measure every point, draw, and print the table and the names of the files."""
    args, config = points.args, points.config
    rows = points.measure_depths(folder / DEPTHS_FILE)
    growth = points.measure_growth(folder / GROWTH_FILE)
    if processes.rank() > 0:
        return

    figures, limit = Figures(folder), points.model.config.document_tokens
    means = by_length(rows, config.bootstrap_resamples, args.seed)
    figures.draw("depths.png", plot_depths, rows, limit)
    figures.draw("growth.png", plot_growth, growth)
    print(f"{table(means, growth)}\n\n{folder}: {', '.join([*figures.drawn, DEPTHS_FILE, GROWTH_FILE])}")
