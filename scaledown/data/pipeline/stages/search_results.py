"""The results of a search: each query's passages as retrieval and reranking left them, read from the work folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from scaledown.data.pipeline.corpus.passage_store import PassageStore
from scaledown.data.pipeline.queries import Query
from scaledown.data.storage.append_log import AppendLog, key_of
from scaledown.prompt.plain_text import cut_texts

REMEMBERED_DOCUMENTS = 50_000


class Documents:
    """The store's documents as the student reads them: cut at its budget of tokens."""

    def __init__(self, store: PassageStore, tokenizer: Any, document_tokens: int) -> None:
        self.store = store
        self._tokenizer, self._document_tokens = tokenizer, document_tokens
        # A cache for each object, which a decorator of the method would share among all.
        self.text = lru_cache(REMEMBERED_DOCUMENTS)(self._text)

    def texts(self, numbers: Sequence[int]) -> list[str]:
        """Return the documents with these numbers."""
        return [self.text(number) for number in numbers]

    def _text(self, number: int) -> str:
        text = self.store.document(number)
        # Passages cut by tokens fit; those cut by words may be longer.
        if self.store.num_tokens(number) <= self._document_tokens:
            return text
        return cut_texts(self._tokenizer, [text], self._document_tokens)[0]


@dataclass(frozen=True)
class ChosenDocuments:
    """A query's documents in a record, best first: their numbers in the store, and the reranker's scores if any."""

    numbers: tuple[int, ...]
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True)
class SearchResults:
    """The stored results of retrieval and reranking.

    Attributes:
        documents: the passages.
        retrieval_key: gives the key of a query's passages in ``retrieval``.
        retrieval: each query's passages, best first, and their scores.
        num_documents: the number of documents in a record.
        reranking: the reranker's scores of each query's passages; None without a reranker.
    """

    documents: Documents
    retrieval_key: Callable[[Query], str]
    retrieval: AppendLog
    num_documents: int
    reranking: AppendLog | None = None

    def retrieved(self, query: Query) -> list[int]:
        """Return the numbers of the query's passages, as retrieval ranked them."""
        return self.retrieval[self.retrieval_key(query)][0]

    def key(self, query: Query, numbers: Sequence[int]) -> str:
        """Return the key of a result that depends on the query and on the texts of the documents with these numbers."""
        return key_of(query.text, *self.documents.texts(numbers))

    def chosen(self, query: Query) -> ChosenDocuments:
        """Return the documents of the query's record: the reranker's best, or the retriever's without one."""
        numbers = self.retrieved(query)
        if self.reranking is None or not numbers:
            return ChosenDocuments(tuple(numbers[:self.num_documents]))

        # ``scores`` are in the order of retrieval, which also breaks ties.
        scores = self.reranking[self.key(query, numbers)]
        order = sorted(range(len(numbers)), key=lambda place: (-scores[place], place))
        best = order[:self.num_documents]
        return ChosenDocuments(tuple(numbers[place] for place in best), tuple(scores[place] for place in best))
