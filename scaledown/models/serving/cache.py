"""Memory of documents that were compressed before, for a service in which questions and documents come back.

A document's memory depends on its query, so an entry belongs to a query with a document. The cache has a limit in
bytes, and drops the longest unused entries first.
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
    reader: str
    num_memory_tokens: int
    query: str
    document: str


class _Entry(NamedTuple):
    embeddings: Tensor       # (L, D)
    score: Tensor | None     # ()
    num_bytes: int


class MemoryCache:
    """The memory of the last used pairs of a query and a document, for one model.

    Args:
        max_bytes: limit of embeddings and texts together; beyond it the longest unused pairs are dropped.

    Attributes:
        hits: number of pairs that were in the cache.
        misses: number of pairs that had to be compressed.
        num_bytes: size of embeddings and texts together.

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
                   reader: str, compress: Compress) -> Compressed:
        """Return all P pairs in order, and compress those that are not in the cache.

        Args:
            reader: the model, its device and number format; memory that another one made is not used.
            compress: takes questions and documents, returns their pairs in order.
        """
        keys: list[_Key] = []
        missing_keys: list[_Key] = []
        missing_documents: list[list[str]] = []
        asked: set[_Key] = set()
        for question, texts in zip(questions, documents, strict=True):
            question_keys = [_Key(reader, num_memory_tokens, question, document) for document in texts]
            keys += question_keys
            # A document that a question has twice, or two equal questions have, is compressed once.
            missing = [key for key in dict.fromkeys(question_keys) if key not in self._entries and key not in asked]
            asked.update(missing)
            missing_keys += missing
            missing_documents.append([key.document for key in missing])
        self.misses += len(missing_keys)
        self.hits += len(keys) - len(missing_keys)

        # New entries may push out old ones, so those that are needed are taken out before.
        entries: dict[_Key, _Entry] = {}
        for key in keys:
            if key in self._entries:
                self._entries.move_to_end(key)
                entries[key] = self._entries[key]

        if missing_keys or not keys:
            new = compress(questions, missing_documents)
            for number, key in enumerate(missing_keys):
                score = None if new.scores is None else new.scores[number]
                entries[key] = self._add(key, new.embeddings[number], score)
            if not keys:
                return new

        embeddings = torch.stack([entries[key].embeddings for key in keys])       # (P, L, D)
        if entries[keys[0]].score is None:
            return Compressed(embeddings, None)
        return Compressed(embeddings, torch.stack([entries[key].score for key in keys]))

    def _add(self, key: _Key, embeddings: Tensor, score: Tensor | None) -> _Entry:
        # Cloned, as a view would hold the memory of its whole batch.
        embeddings = embeddings.clone()
        score = None if score is None else score.clone()
        num_bytes = embeddings.nbytes + len(key.query.encode()) + len(key.document.encode())
        entry = self._entries[key] = _Entry(embeddings, score, num_bytes)

        self.num_bytes += num_bytes
        while self.num_bytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.num_bytes -= oldest.num_bytes
        return entry
