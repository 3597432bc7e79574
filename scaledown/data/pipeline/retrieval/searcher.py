"""The interface of all retrievers: a search that returns hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Hit:
    """A text that a search returns: its number among the indexed texts, and its score (the higher, the better)."""

    index: int
    score: float


class Searcher(Protocol):
    """An index of texts."""

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """Return the ``top_k`` best texts of each query, best first; fewer if the index has fewer."""
