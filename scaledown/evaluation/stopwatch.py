"""Fair timing: all that is compared takes turns in one process, beside the machine's own peak at that time."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

PEAK_SIZE = {"cpu": 2048, "cuda": 8192}
PEAK_ROUNDS = 5
_KIBI = 1024


@dataclass(frozen=True)
class Spread:
    """Seconds over the rounds: median, 10th and 90th percentile."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        """Summarise the rounds."""
        p10, median, p90 = (float(value) for value in np.percentile(seconds, (10, 50, 90)))
        return cls(median, p10, p90)


def synchronise(device: torch.device) -> None:
    """Wait until ``device`` has finished its queue, so that a clock read now is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    else:
        # The modules of the CPU, of Apple's GPUs and of Neuron take no device.
        getattr(torch, device.type).synchronize()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the wall-clock seconds of one call."""
    synchronise(device)  # what is still queued is not ours
    start = time.perf_counter()
    work()
    synchronise(device)  # a call to an accelerator returns before its work is done
    return time.perf_counter() - start


def in_turns(jobs: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int,
             on_round: Callable[[], None] = lambda: None) -> dict[str, dict[str, list[float]]]:
    """Run each job once per round, in an order that rotates; a job returns its seconds by phase.

    One more round comes before these, to warm up, and does not count.

    Returns:
        By job and by phase: the seconds of each round.
    """
    names = list(jobs)
    times: dict[str, dict[str, list[float]]] = {name: {} for name in names}

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
