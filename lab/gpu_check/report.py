"""The findings of the check: a line for each on the screen, and a table in a file."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from scaledown.evaluation.evaluator.timing import seconds
from scaledown.files import write_text


@dataclass
class Check:
    """One run of the check.

    Attributes:
        device: where it runs.
        is_rehearsal: small shapes and few rounds, whose figures mean nothing.
        rounds: of each measurement; the median counts.
        longest_seconds: no stage begins after this time.
        rows: stage, finding and value, in the order in which they were found.
        failed: the names of the stages that failed.
    """

    device: torch.device
    is_rehearsal: bool
    rounds: int
    longest_seconds: float
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the measurements: bfloat16 on a GPU."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    def add(self, stage: str, finding: str, value: str) -> None:
        """Keep a finding, and print it."""
        self.rows.append((stage, finding, value))
        print(f"[{time.perf_counter() - self.start:4.0f} s] {stage}: {finding}: {value}", flush=True)

    def milliseconds(self, work: Callable[[], object], warm_up: int = 1, rounds: int | None = None) -> float:
        """Return the median time of ``work``, after some calls that do not count."""
        for _ in range(warm_up):
            work()
        times = sorted(seconds(work, self.device) for _ in range(rounds or self.rounds))
        return 1e3 * times[len(times) // 2]

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Guard a stage: one that fails says so, and the next one runs."""
        try:
            yield
        except Exception:  # noqa: BLE001 - whatever is wrong with this machine is a finding
            self.failed.append(name)
            self.add(name, "FAILED", traceback.format_exc(limit=-3).strip().replace("\n", " | "))

    def has_time(self) -> bool:
        """Return whether another stage may begin."""
        return time.perf_counter() - self.start < self.longest_seconds

    def save(self, path: Path, title: str) -> None:
        """Write the findings as a Markdown table."""
        lines = [title, "", "| stage | what | found |", "|---|---|---|"]
        for row in self.rows:
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        write_text(path, "\n".join(lines) + "\n")


def gibibytes(number: float) -> str:
    """Return bytes in words."""
    return f"{number / 2**30:.1f} GiB"


def peak_memory(device: torch.device) -> Any:
    """Return the most bytes held on a GPU since the last reset; None elsewhere."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
