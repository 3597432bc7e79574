"""The phases of the main job, each told when it begins."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from scaledown import processes
from scaledown.progress import duration

Begin = Callable[..., None]
"""A function that is told that a phase begins, with the arguments of :meth:`Phases.begin`."""


def say_nothing(what: str, as_phase: int | None = None) -> None:
    """Stand in for :meth:`Phases.begin` in a measurement that is not part of a job."""


class Phases:
    """Says that a phase of a job begins.

    The time that a phase takes is told if it was measured: of an earlier phase with the same work.

    Args:
        count: number of phases.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._starts: list[float] = []

    def begin(self, what: str, as_phase: int | None = None) -> None:
        """Say that the next phase begins.

        Args:
            what: is done in it.
            as_phase: the number of an earlier phase that does the same work, counted from 1.
        """
        self._starts.append(monotonic())
        about = ""
        if as_phase is not None:
            # A phase ends when the next one begins.
            seconds = self._starts[as_phase] - self._starts[as_phase - 1]
            about = f"; about {duration(seconds)}, as phase {as_phase}"
        processes.say(f"{len(self._starts)} of {self._count}: {what}{about}")

    @property
    def seconds(self) -> float:
        """The time since the first phase began."""
        return monotonic() - self._starts[0]
