"""Fair timing: everything that is compared takes turns in one process, and a clock is read when the device is done.

Milliseconds a query by phase (compress, prefill, decode), one question at a time, systems in turn; any jobs in turn,
beside the machine's own peak; and the memory that a call takes.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from scaledown import processes
from scaledown.config import EvaluationConfig
from scaledown.evaluation.evaluator import inference
from scaledown.evaluation.systems import System
from scaledown.progress import Bar

PHASES = ("compress", "prefill", "decode")
WARM_UP_QUERIES = 3
PEAK_SIZE = {"cpu": 2048, "cuda": 8192}
PEAK_ROUNDS = 5
_KIBI = 1024
Job = TypeVar("Job", bound=Hashable)
"""The name of a job."""
Item = TypeVar("Item")


def synchronise(device: torch.device) -> None:
    """Wait until ``device`` has finished its queue, so that a clock read now is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    else:
        # The modules of the CPU, of Apple's GPUs and of Neuron take no device.
        getattr(torch, device.type).synchronize()


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


def _time_query(model: Any, system: System, record: Any, max_new_tokens: int) -> _TimedQuery:
    questions, documents = [record.query], [record.documents_with_titles]  # a batch of one
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

        for number, record in enumerate(Bar(records, desc="timing", unit="question", disable=not progress)):
            # The order rotates, so that no system always runs on the caches another has just warmed.
            start = number % len(systems)
            for system in (*systems[start:], *systems[:start]):
                queries[system.name].append(_time_query(model, system, record, config.max_new_tokens))

    return {name: _latency(timed) for name, timed in queries.items()}


def evenly_spaced(items: Sequence[Item], wanted: int) -> list[Item]:
    """Return ``wanted`` of the items, spread over all of them; all if there are not more."""
    count = min(len(items), wanted)
    return [items[number * len(items) // count] for number in range(count)]


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

    # The list is what torch broadcasts in place: process 0 fills it, the others receive it.
    results: list[Any] = [None]
    if processes.rank() == 0:
        timed_records = evenly_spaced(records, config.timed_queries)
        results = [_time_all(model, systems, timed_records, config, progress)]
    if processes.is_joined():
        torch.distributed.broadcast_object_list(results, src=0)
    return results[0]


@dataclass(frozen=True)
class Spread:
    """Seconds over the rounds: the middle and the spread."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        """Summarise the rounds."""
        p10, median, p90 = (float(value) for value in np.percentile(seconds, (10, 50, 90)))
        return cls(median, p10, p90)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the wall-clock seconds of one call."""
    synchronise(device)  # what is still queued is not ours
    start = time.perf_counter()
    work()
    synchronise(device)  # a call to an accelerator returns before its work is done
    return time.perf_counter() - start


def in_turns(jobs: Mapping[Job, Callable[[], Mapping[str, float]]], rounds: int,
             on_round: Callable[[], None] = lambda: None) -> dict[Job, dict[str, list[float]]]:
    """Run each job once per round, in an order that rotates; a job returns its seconds by phase.

    One more round comes before these, to warm up, and does not count.

    Returns:
        By job and by phase: the seconds of each round.
    """
    names = list(jobs)
    times: dict[Job, dict[str, list[float]]] = {name: {} for name in names}

    for number in range(rounds + 1):
        # The order rotates, so that no job always runs on the caches another has just warmed.
        start = number % len(names)
        for name in (*names[start:], *names[:start]):
            phase_seconds = jobs[name]()
            if number == 0:
                continue  # the warm-up
            for phase, value in phase_seconds.items():
                times[name].setdefault(phase, []).append(value)
        on_round()

    return times


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOPs per second of the best of a few large matrix multiplications: this machine's peak, now."""
    size = PEAK_SIZE.get(device.type, PEAK_SIZE["cpu"])
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    # size^2 dot products of size multiplications and additions.
    return 2 * size**3 / min(seconds(lambda: left @ right, device) for _ in range(PEAK_ROUNDS))


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Return the memory that one call adds at its peak; None if the system does not tell (neither Linux nor CUDA).

    On a CPU it is the process's resident memory, so call ``work`` once before: what a first call sets up would count.
    """
    if device.type == "cuda":
        synchronise(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        synchronise(device)
        return torch.cuda.max_memory_allocated(device) - before

    _give_back()
    try:
        # Writing 5 resets VmHWM, the peak of the resident memory, to what is resident now (proc(5)).
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        work()
        return None

    before = _status_bytes("VmRSS")
    work()
    return max(0, _status_bytes("VmHWM") - before)


def _give_back() -> None:
    """Let glibc return freed memory to the system, so that the next call cannot reuse it and seem to need none."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def _status_bytes(name: str) -> int:
    # Lines such as "VmRSS:     1234 kB", of 1,024 bytes each.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * _KIBI for line in lines if line.startswith(f"{name}:"))
