"""Memory of documents that were compressed before, for a service where questions and documents come back.

A document's memory depends on its query, so what is kept is kept for a query with a document; how many bytes may be
held is bounded, and what was not asked for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from scaledown.models.compressors.base import Compressed

MEBIBYTE = 2**20

Compress = Callable[[Sequence[str], Sequence[Sequence[str]]], Compressed]


class _Key(NamedTuple):
    version: int
    num_memory_tokens: int
    query: str
    document: str


class _Entry(NamedTuple):
    embedding: Tensor
    score: Tensor | None
    num_bytes: int


class MemoryCache:
    """The memory of the pairs of a query and a document that were last used, for one model.

    Args:
        max_bytes: of embeddings and texts together; what goes beyond is forgotten, the longest unused first.

    Attributes:
        hits: pairs that were found.
        misses: pairs that had to be compressed.
        num_bytes: what is held.

    Raises:
        ValueError: for a limit that is not above 0.
    """

    def __init__(self, max_bytes: int = 256 * MEBIBYTE) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be above 0, got {max_bytes}")
        self.max_bytes, self.hits, self.misses, self.num_bytes = max_bytes, 0, 0, 0
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def compressed(self, questions: Sequence[str], documents: Sequence[Sequence[str]], num_memory_tokens: int,
                   version: int, compress: Compress) -> Compressed:
        """All pairs in order, those that are not known from ``compress``, which is asked for these alone.

        Args:
            version: of the compressor's weights; what other weights made is not used.
            compress: takes questions and documents, gives their pairs in order.
        """
        keys = [[_Key(version, num_memory_tokens, question, document) for document in each]
                for question, each in zip(questions, documents, strict=True)]
        unknown = [list(dict.fromkeys(key for key in each if key not in self._entries)) for each in keys]
        found = {key: self._touched(key) for each in keys for key in each if key in self._entries}
        num_unknown = sum(map(len, unknown))
        self.misses += num_unknown
        self.hits += sum(map(len, keys)) - num_unknown
        if num_unknown or not found:
            fresh = compress(questions, [[key.document for key in each] for each in unknown])
            for place, key in enumerate(key for each in unknown for key in each):
                found[key] = self._keep(key, fresh.embeddings[place],
                                        None if fresh.scores is None else fresh.scores[place])
            if not found:
                return fresh
        pairs = [found[key] for each in keys for key in each]
        has_scores = pairs[0].score is not None
        return Compressed(torch.stack([pair.embedding for pair in pairs]),
                          torch.stack([pair.score for pair in pairs]) if has_scores else None)

    def _touched(self, key: _Key) -> _Entry:
        self._entries.move_to_end(key)
        return self._entries[key]

    def _keep(self, key: _Key, embedding: Tensor, score: Tensor | None) -> _Entry:
        # A view would hold the memory of its whole batch.
        embedding = embedding.clone()
        num_bytes = embedding.nbytes + len(key.query.encode()) + len(key.document.encode())
        entry = _Entry(embedding, score if score is None else score.clone(), num_bytes)
        self._entries[key] = entry
        self.num_bytes += num_bytes
        while self.num_bytes > self.max_bytes:
            _, forgotten = self._entries.popitem(last=False)
            self.num_bytes -= forgotten.num_bytes
        return entry
