"""Fair timing: everything that is compared takes turns in one process, and the machine's own peak is taken with it."""

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
    """Seconds over the rounds: the middle, the spread and the fastest."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        """Summarise the rounds."""
        p10, median, p90 = (float(value) for value in np.percentile(seconds, (10, 50, 90)))
        return cls(median, p10, p90)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one call."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def in_turns(jobs: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int,
             on_round: Callable[[], None] = lambda: None) -> dict[str, dict[str, list[float]]]:
    """Run each job once a round, in an order that rotates; a job returns its own seconds by phase.

    One round more comes first and does not count.
    """
    names = list(jobs)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for number in range(rounds + 1):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            for phase, value in jobs[name]().items():
                if number:
                    found[name].setdefault(phase, []).append(value)
        on_round()
    return found


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of the best of a few large matrix multiplications: what this machine can do, now."""
    size = PEAK_SIZE.get(device.type, PEAK_SIZE["cpu"])
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: left @ right, device) for _ in range(PEAK_ROUNDS))


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Memory that one call adds at its height; None where the system does not tell (elsewhere than Linux or CUDA).

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
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        work()
        return None
    before = _status_bytes("VmRSS")
    work()
    return max(0, _status_bytes("VmHWM") - before)


def _give_back() -> None:
    """Let glibc return freed memory to the system, so that it is not there for the next call to hide in."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * _KIBI for line in lines if line.startswith(f"{name}:"))
