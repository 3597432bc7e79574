"""Milliseconds per query by phase (compress, prefill, decode): one question at a time, systems in turn."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from scaledown.config import EvaluationConfig
from scaledown.evaluation.evaluator import inference
from scaledown.evaluation.systems import System
from scaledown.training import processes

PHASES = ("compress", "prefill", "decode")
WARM_UP_QUERIES = 3


@dataclass(frozen=True)
class PhaseTime:
    """One phase's time over the timed queries, in milliseconds: median, spread and mean."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    mean_ms: float

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> PhaseTime:
        """Summarise the times of single queries."""
        p10, median, p90 = (float(value) for value in np.percentile(times_ms, (10, 50, 90)))
        return cls(median, p10, p90, statistics.fmean(times_ms))


@dataclass(frozen=True)
class Latency:
    """One system's time per query at batch size 1, by phase; ``total`` is the sum of a query's phases."""

    compress: PhaseTime
    prefill: PhaseTime
    decode: PhaseTime
    total: PhaseTime
    mean_prompt_tokens: float
    mean_new_tokens: float
    num_queries: int

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries of plain numbers."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class _TimedQuery:
    phases_ms: tuple[float, float, float]
    num_prompt_tokens: int
    num_new_tokens: int


def synchronise(device: torch.device) -> None:
    """Wait until ``device`` has finished its queue, so that a clock read now is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    else:
        # The modules of the CPU, of Apple's GPUs and of Neuron take no device.
        getattr(torch, device.type).synchronize()


def _time_query(model: Any, system: System, record: Any, max_new_tokens: int) -> _TimedQuery:
    questions, documents = [record.query], [list(record.documents)]  # a batch of one
    times_ms: list[float] = []

    def timed(phase: Callable[..., Any], *arguments: Any) -> Any:
        # Before the phase as well: work that is still queued belongs to whoever asked for it.
        synchronise(model.device)
        start = time.perf_counter()
        value = phase(*arguments)
        synchronise(model.device)
        times_ms.append((time.perf_counter() - start) * 1000)
        return value

    memory = timed(system.compress, model, questions, documents)
    state = timed(system.prefill, model, questions, documents, memory)
    timed(model.decode, state, max_new_tokens)

    compress_ms, prefill_ms, decode_ms = times_ms
    return _TimedQuery((compress_ms, prefill_ms, decode_ms), state.num_prompt_tokens[0], state.num_new_tokens[0])


def _latency(queries: Sequence[_TimedQuery]) -> Latency:
    phases = []
    for times_ms in zip(*(query.phases_ms for query in queries), strict=True):
        phases.append(PhaseTime.of(times_ms))

    # The total's percentiles are those of whole queries, not sums of the phases' percentiles.
    return Latency(*phases, total=PhaseTime.of([sum(query.phases_ms) for query in queries]),
                   mean_prompt_tokens=statistics.fmean(query.num_prompt_tokens for query in queries),
                   mean_new_tokens=statistics.fmean(query.num_new_tokens for query in queries),
                   num_queries=len(queries))


def _time_all(model: Any, systems: Sequence[System], records: Sequence[Any], config: EvaluationConfig,
              progress: bool) -> dict[str, Latency]:
    queries: dict[str, list[_TimedQuery]] = {system.name: [] for system in systems}

    with inference(model):
        # The first calls build caches and choose kernels, which no later query pays for.
        for record in records[:WARM_UP_QUERIES]:
            for system in systems:
                _time_query(model, system, record, config.max_new_tokens)

        timed_records = records[:config.timed_queries]
        for number, record in enumerate(tqdm(timed_records, desc="timing", unit="question", disable=not progress)):
            # The order rotates, so that no system always runs on the caches another has just warmed.
            start = number % len(systems)
            for system in (*systems[start:], *systems[:start]):
                queries[system.name].append(_time_query(model, system, record, config.max_new_tokens))

    return {name: _latency(timed) for name, timed in queries.items()}


def time_systems(model: Any, systems: Sequence[System], records: Sequence[Any], config: EvaluationConfig,
                 progress: bool = True) -> dict[str, Latency]:
    """Time ``config.timed_queries`` of the records, spread over all of them, on every system.

    Systems take turns question by question, so that a machine that slows down slows all of them. With several
    processes the first does the timing while the others wait, and all return its figures.

    Raises:
        ValueError: if ``records`` is empty.
    """
    if not records:
        raise ValueError("no records to time")
    step = max(1, len(records) // config.timed_queries)

    # The list is what torch broadcasts in place: process 0 fills it, the others receive it.
    results: list[Any] = [None]
    if processes.rank() == 0:
        results = [_time_all(model, systems, records[::step], config, progress)]
    if processes.is_joined():
        torch.distributed.broadcast_object_list(results, src=0)
    return results[0]
