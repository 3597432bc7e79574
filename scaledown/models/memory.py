"""Compressed documents as they travel between compressing and answering, and the choice of those to answer from.

Compressing scores every document in the same pass, so a pipeline that would rerank anyway compresses for nothing
(arXiv:2504.07109). If few documents matter, the generator reads few, and an easy question costs less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scaledown.config import AUTO
from scaledown.models.compressors.base import Compressed

Keep = int | str | None
"""Documents to keep: a number of the best, "auto" (all above the calibrated threshold, at least one) or None (all)."""


@dataclass(frozen=True)
class Memory:
    """The documents of B questions, compressed once, to be answered from any number of times.

    Attributes:
        embeddings: (B, K, L, D), zeros for the missing documents of a question with fewer than K.
        scores: (B, K) relevance, -inf for missing documents; None without reranking.
        num_documents: (B,).
    """

    embeddings: Tensor
    scores: Tensor | None
    num_documents: Tensor

    @classmethod
    def of_pairs(cls, compressed: Sequence[Compressed], num_documents: Sequence[int]) -> Memory:
        """Gather batches of P pairs, in the order of their questions, into one padded memory."""
        pairs, pair_scores = Compressed.joined(compressed)                        # (P, L, D), (P,)
        counts = torch.tensor(num_documents, dtype=torch.long, device=pairs.device)

        # The True places of this mask, read line by line, are the P pairs in their order.
        places = torch.arange(max(num_documents, default=0), device=pairs.device)
        is_document = places < counts[:, None]                                    # (B, K)
        embeddings = pairs.new_zeros(*is_document.shape, *pairs.shape[1:])        # (B, K, L, D)
        embeddings[is_document] = pairs
        if pair_scores is None:
            return cls(embeddings, None, counts)

        scores = pair_scores.new_full(is_document.shape, -torch.inf)              # (B, K)
        scores[is_document] = pair_scores
        return cls(embeddings, scores, counts)

    def __len__(self) -> int:
        return len(self.num_documents)

    def pairs(self) -> Tensor:
        """Return the embeddings without padding (P, L, D)."""
        places = torch.arange(self.embeddings.shape[1], device=self.embeddings.device)
        return self.embeddings[places < self.num_documents[:, None]]

    def select(self, questions: Sequence[int]) -> Memory:
        """Return the memory of some of the questions, by number."""
        at = torch.tensor(questions, dtype=torch.long, device=self.num_documents.device)
        scores = None if self.scores is None else self.scores[at]
        return Memory(self.embeddings[at], scores, self.num_documents[at])

    def keep(self, documents: Sequence[Sequence[int]]) -> Memory:
        """Return the memory of some of each question's documents, by number, in the order in which they are named."""
        questions: list[int] = []
        numbers: list[int] = []
        for question, of_question in enumerate(documents):
            questions += [question] * len(of_question)
            numbers += of_question

        # One index into the first two dimensions, (B, K), for each of the P pairs that stay.
        at = tuple(torch.tensor([questions, numbers], dtype=torch.long, device=self.num_documents.device))
        scores = None if self.scores is None else self.scores[at]
        return Memory.of_pairs([Compressed(self.embeddings[at], scores)], list(map(len, documents)))


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


def documents_to_keep(memory: Memory, keep_documents: Keep, threshold: float | None) -> list[list[int]]:
    """Return the numbers of the documents that each question keeps, best first; if it keeps all, in the order given."""
    counts = memory.num_documents.tolist()
    if keep_documents is None:
        return [list(range(count)) for count in counts]

    documents = []
    for padded_scores, count in zip(memory.scores.tolist(), counts, strict=True):
        scores = padded_scores[:count]
        limit = keep_documents
        if keep_documents == AUTO:
            # The best one stays however low it scores: a question that has documents is answered from one.
            limit = max(1, sum(score >= threshold for score in scores))
        documents.append(by_score(scores)[:limit])
    return documents


def by_score(scores: Sequence[float]) -> list[int]:
    """Return the numbers of the documents with these scores, best first; of equals the one given first."""
    return sorted(range(len(scores)), key=lambda number: -scores[number])
