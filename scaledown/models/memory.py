"""Compressed documents as they travel between compressing and answering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scaledown.models.compressors.base import Compressed


@dataclass(frozen=True)
class Memory:
    """The documents of B questions, compressed once, to be answered from any number of times.

    Attributes:
        embeddings: (B, K, L, D), zeros where a question has fewer than K documents.
        scores: (B, K) relevance, -inf where there is no document; None without reranking.
        num_documents: (B,).
    """

    embeddings: Tensor
    scores: Tensor | None
    num_documents: Tensor

    @classmethod
    def of_pairs(cls, compressed: Sequence[Compressed], num_documents: Sequence[int]) -> Memory:
        """Gather batches of P pairs, in the order of their questions, into one padded memory."""
        pairs = torch.cat([batch.embeddings for batch in compressed])
        counts = torch.tensor(num_documents, dtype=torch.long, device=pairs.device)
        is_document = _is_document(counts, max([0, *num_documents]))
        embeddings = pairs.new_zeros(*is_document.shape, *pairs.shape[1:])
        embeddings[is_document] = pairs
        scores = None
        if compressed[0].scores is not None:
            values = torch.cat([batch.scores for batch in compressed])
            scores = values.new_full(is_document.shape, -torch.inf)
            scores[is_document] = values
        return cls(embeddings, scores, counts)

    def __len__(self) -> int:
        return len(self.num_documents)

    def pairs(self) -> Tensor:
        """The embeddings without padding (P, L, D)."""
        return self.embeddings[_is_document(self.num_documents, self.embeddings.shape[1])]

    def select(self, questions: Sequence[int]) -> Memory:
        """The memory of some of the questions, by number."""
        rows = torch.tensor(questions, dtype=torch.long, device=self.num_documents.device)
        return Memory(self.embeddings[rows], None if self.scores is None else self.scores[rows],
                      self.num_documents[rows])

    def keep(self, documents: Sequence[Sequence[int]]) -> Memory:
        """For each question the memory of some of its documents, by number, in the order in which they are named."""
        device = self.num_documents.device
        rows, columns = (torch.tensor(index, dtype=torch.long, device=device) for index in (
            [row for row, numbers in enumerate(documents) for _ in numbers],
            [number for numbers in documents for number in numbers]))
        scores = None if self.scores is None else self.scores[rows, columns]
        return Memory.of_pairs([Compressed(self.embeddings[rows, columns], scores)], [len(each) for each in documents])


def _is_document(counts: Tensor, size: int) -> Tensor:
    """Whether each of ``size`` places (B, K) holds a document; each question has ``counts`` (B,) of them."""
    return torch.arange(size, device=counts.device) < counts[:, None]
