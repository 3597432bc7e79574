"""What every way of finding passages has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Hit:
    """One text found: its place in the indexed texts, and its score (the higher, the better)."""

    index: int
    score: float


class Searcher(Protocol):
    """An index of texts."""

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """The ``top_k`` best texts of each query, best first; fewer where fewer are there."""
