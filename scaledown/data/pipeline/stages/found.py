"""What was found for a query: its passages as retrieval and reranking left them, read from the work folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from scaledown.data.pipeline.corpus.passage_store import PassageStore, cut_to_tokens
from scaledown.data.pipeline.queries import Query
from scaledown.data.storage.append_log import AppendLog, key_of

REMEMBERED_DOCUMENTS = 50_000


class Documents:
    """The store's documents as the student reads them: those above its budget of tokens are cut there."""

    def __init__(self, store: PassageStore, tokenizer: Any, document_tokens: int) -> None:
        self.store = store
        self._tokenizer, self._document_tokens = tokenizer, document_tokens
        self.text = lru_cache(REMEMBERED_DOCUMENTS)(self._text)

    def texts(self, numbers: Sequence[int]) -> list[str]:
        """The documents with these numbers."""
        return [self.text(number) for number in numbers]

    def _text(self, number: int) -> str:
        text = self.store.document(number)
        if self.store.num_tokens(number) <= self._document_tokens:
            return text
        return cut_to_tokens([text], self._tokenizer, self._document_tokens)[0]


@dataclass(frozen=True)
class Chosen:
    """A query's documents in a record, best first: their numbers in the store, and the reranker's scores if any."""

    numbers: tuple[int, ...]
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Found:
    """Reads what earlier stages kept.

    Attributes:
        documents: the passages.
        retrieval_key: what retrieval kept a query's passages under.
        retrieval: each query's passages, best first, and their scores.
        num_documents: how many a record has.
        reranking: the reranker's scores of each query's passages; None without a reranker.
    """

    documents: Documents
    retrieval_key: Callable[[Query], str]
    retrieval: AppendLog
    num_documents: int
    reranking: AppendLog | None = None

    def retrieved(self, query: Query) -> list[int]:
        """The numbers of the passages found, best first."""
        return self.retrieval[self.retrieval_key(query)][0]

    def key(self, query: Query, numbers: Sequence[int]) -> str:
        """What a result for the query and the documents with these numbers is kept under."""
        return key_of(query.text, *self.documents.texts(numbers))

    def chosen(self, query: Query) -> Chosen:
        """The documents of the query's record."""
        numbers = self.retrieved(query)
        if self.reranking is None or not numbers:
            return Chosen(tuple(numbers[:self.num_documents]))
        scores = self.reranking[self.key(query, numbers)]
        order = sorted(range(len(numbers)), key=lambda place: (-scores[place], place))[:self.num_documents]
        return Chosen(tuple(numbers[place] for place in order), tuple(scores[place] for place in order))


class Questions(Sequence[tuple[str, list[str]]]):
    """The teacher's questions, (query, documents), put together as they are asked for."""

    def __init__(self, queries: Sequence[Query], found: Found) -> None:
        self._queries, self._found = queries, found

    def __len__(self) -> int:
        return len(self._queries)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        query = self._queries[place]
        return query.text, self._found.documents.texts(self._found.chosen(query).numbers)
