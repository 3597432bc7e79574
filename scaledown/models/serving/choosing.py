"""The choice of the documents to answer from, by their scores.

Compressing scores every document in the same pass, so a pipeline that would rerank anyway compresses for nothing
(arXiv:2504.07109). If few documents matter, the generator reads few, and an easy question costs less.
"""

from __future__ import annotations

from collections.abc import Sequence

from scaledown.config import AUTO
from scaledown.models.loading.memory_origin import MemoryPassage
from scaledown.models.memory import Memory

Keep = int | str | None
"""Documents to keep, or passages of long ones: a number of the best, "auto" (all above the calibrated threshold, at
least one) or None (all)."""
Ranking = tuple[list[int], list[float]]
"""The numbers of a question's documents by relevance, best first, and their scores in the order given."""


def check_keep_documents(keep_documents: int | str, enable_reranking: bool, threshold: float | None) -> None:
    """Refuse a choice of documents that a model cannot make.

    Args:
        keep_documents: a number, or "auto".
        enable_reranking: the model scores documents.
        threshold: its calibrated one, if there is one.

    Raises:
        ValueError: for a number below 1, another word than "auto", or a model that cannot score or was not calibrated.
    """
    # True and False are ints, but no numbers of documents.
    is_number = isinstance(keep_documents, int) and not isinstance(keep_documents, bool)
    if keep_documents != AUTO and not (is_number and keep_documents > 0):
        raise ValueError(f"keep_documents must be a whole number above 0 or {AUTO!r}, got {keep_documents!r}")
    if not enable_reranking:
        raise ValueError("this model has no reranking head to choose documents by; train one with --enable_reranking")
    if keep_documents == AUTO and threshold is None:
        raise ValueError(f"keep_documents={AUTO!r} needs a threshold, which this model has not; find it with "
                         "python -m scaledown.evaluation.calibration")


def check_scored(memory: Memory) -> None:
    """Refuse to choose documents by score from memory without scores.

    Raises:
        ValueError: if it has none.
    """
    if memory.scores is None:
        raise ValueError("this memory has no scores to choose documents by, as it was compressed without a query: "
                         "choose by number (memory.keep([[3, 5]])), or compress documents with their question")


def check_keep_tokens(keep_tokens: int, enable_reranking: bool, num_memory_tokens: int) -> None:
    """Refuse a budget of prompt tokens that a model cannot keep to.

    Args:
        keep_tokens: the budget.
        enable_reranking: the model scores documents.
        num_memory_tokens: those of one document, the numbers behind its memory included.

    Raises:
        ValueError: if no document fits into it, or the model cannot score.
    """
    # True and False are ints, but no budgets.
    is_number = isinstance(keep_tokens, int) and not isinstance(keep_tokens, bool)
    if not is_number or keep_tokens < num_memory_tokens:
        raise ValueError(f"keep_tokens must be a whole number of at least {num_memory_tokens}, the memory tokens of "
                         f"one document, got {keep_tokens!r}")
    if not enable_reranking:
        raise ValueError("this model has no reranking head to choose documents by; train one with --enable_reranking")


def documents_to_keep(memory: Memory, keep_documents: Keep, threshold: float | None,
                      keep_tokens: int | None = None, keep_numbers: int | None = None) -> list[list[int]]:
    """Return the numbers of the documents (or passages) that each question keeps.

    Those with the best scores of all are kept. Their order is best first if the question's documents are whole, and
    that in which they were given if one of them was split: there a passage continues the one before it.

    Args:
        memory: with scores, unless all are kept.
        keep_documents: the number to keep, or "auto".
        threshold: the score that "auto" asks for.
        keep_tokens: positions of the prompt that the kept memory takes at most, its separators included.
        keep_numbers: the most text tokens of numbers and names behind each document's memory [none].
    """
    counts = memory.num_documents.tolist()
    if keep_documents is None and keep_tokens is None:
        return [list(range(count)) for count in counts]

    documents = []
    for question, scores in enumerate(_scores(memory)):
        limit = len(scores)
        if keep_documents == AUTO:
            # The best one stays however low it scores: a question that has documents is answered from one.
            limit = max(1, sum(score >= threshold for score in scores))
        elif keep_documents is not None:
            limit = keep_documents
        if keep_tokens is not None:
            # L tokens each, with numbers more, and a separator between two: n (L + 1) - 1 tokens of n documents.
            num_memory = memory.embeddings.shape[2] + (keep_numbers or 0)
            limit = min(limit, (keep_tokens + 1) // (num_memory + 1))

        best = by_score(scores)[:limit]
        documents.append(best if memory.origin is None else memory.origin.in_order(question, best))
    return documents


def rankings(memory: Memory) -> list[Ranking]:
    """Return the ranking of each question's documents; one that was split scores as its best passage does."""
    found = []
    for question, scores in enumerate(_scores(memory)):
        if memory.origin is not None and memory.origin.passages is not None:
            scores = _best_of_documents(scores, memory.origin.passages[question])
        found.append((by_score(scores), scores))
    return found


def _scores(memory: Memory) -> list[list[float]]:
    """Return the scores of each question's texts, without padding."""
    counts = memory.num_documents.tolist()
    return [padded[:count] for padded, count in zip(memory.scores.tolist(), counts, strict=True)]


def _best_of_documents(scores: Sequence[float], passages: Sequence[MemoryPassage]) -> list[float]:
    """Return for each document the best score of its passages."""
    best: dict[int, float] = {}
    for score, passage in zip(scores, passages, strict=True):
        best[passage.document] = max(score, best.get(passage.document, score))
    return [best[document] for document in sorted(best)]


def by_score(scores: Sequence[float]) -> list[int]:
    """Return the numbers of the documents with these scores, best first; of equals the one given first."""
    return sorted(range(len(scores)), key=lambda number: -scores[number])
