"""Which compressed documents the generator reads: all, the best few, or those that score high enough.

Compressing scores every document in the same pass, so a pipeline that would rerank anyway compresses for nothing
(arXiv:2504.07109). Where few documents matter the generator is given few, and an easy question costs less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scaledown.models.memory import Memory

AUTO = "auto"

Keep = int | str | None
"""How many documents to keep: a number, "auto" (those above the calibrated threshold, at least one), or None (all)."""


@dataclass(frozen=True)
class Answer:
    """An answer with the documents that it was given, so that it can cite them.

    Attributes:
        text: what the generator said.
        documents: numbers of its documents in the list that was given, in the order in which they were read.
        scores: the relevance of each of these, or None without reranking.
    """

    text: str
    documents: tuple[int, ...]
    scores: tuple[float, ...] | None


def check(keep_documents: Keep, enable_reranking: bool, threshold: float | None) -> None:
    """Refuse what cannot be kept.

    Raises:
        ValueError: for a number below 1, another word than "auto", or a model that cannot score or was not calibrated.
    """
    if keep_documents is None:
        return
    is_number = isinstance(keep_documents, int) and not isinstance(keep_documents, bool)
    if keep_documents != AUTO and not (is_number and keep_documents > 0):
        raise ValueError(f"keep_documents must be a whole number above 0 or {AUTO!r}, got {keep_documents!r}")
    if not enable_reranking:
        raise ValueError("this model has no reranking head to choose documents by; train one with --enable_reranking")
    if keep_documents == AUTO and threshold is None:
        raise ValueError(f"keep_documents={AUTO!r} needs a threshold, which this model has not; find it with "
                         "python -m scaledown.evaluation.calibration")


def kept(memory: Memory, keep_documents: Keep, threshold: float | None) -> list[list[int]]:
    """The numbers of the documents that each question keeps, best first; all in the order given without a limit."""
    counts = memory.num_documents.tolist()
    if keep_documents is None:
        return [list(range(count)) for count in counts]
    ranked = [by_score(scores[:count]) for scores, count in zip(memory.scores.tolist(), counts, strict=True)]
    if keep_documents != AUTO:
        return [order[:keep_documents] for order in ranked]
    return [[number for place, number in enumerate(order) if place == 0 or scores[number] >= threshold]
            for order, scores in zip(ranked, memory.scores.tolist(), strict=True)]


def by_score(scores: Sequence[float]) -> list[int]:
    """Numbers of the documents with these scores, best first; of equals the first given."""
    return sorted(range(len(scores)), key=lambda number: -scores[number])
