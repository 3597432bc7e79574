"""What came out of a run, in a page: counts, lengths, recall of the gold answers, time and tokens by stage."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean

from scaledown.data.answers import holds_answer, is_found_in_text, padded
from scaledown.data.passages import TokenCounter
from scaledown.data.pipeline.queries import Query
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.pipeline.stages.found import Found
from scaledown.data.records import Record

DEPTHS = (5, 20, 100)
MEASURED_QUERIES = 10_000
"""Recall is measured on so many queries at most: within 1 point, 95 times of 100."""


@dataclass
class Recall:
    """How many queries with gold answers have one of them in their passages: among the first 5, 20, 100; in the
    record."""

    num_queries: int = 0
    within: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The shares in words."""
        return [f"  {name:<24}{self.within[name] / self.num_queries:.3f}" for name in self.within]


def measure_recall(queries: Iterable[Query], found: Found, top_k: int) -> Recall:
    """Measure the recall of gold answers that are text, not yes or no."""
    recall = Recall()
    known = (query for query in queries if any(map(is_found_in_text, query.answers)))
    for query in itertools.islice(known, MEASURED_QUERIES):
        answers = [padded(answer) for answer in query.answers if is_found_in_text(answer)]
        numbers = found.retrieved(query)
        holding = {number: place for place, number in enumerate(numbers)
                   if holds_answer(padded(found.documents.text(number)), answers)}
        first = min(holding.values(), default=top_k)
        recall.num_queries += 1
        for depth in sorted({*DEPTHS, top_k}):
            if depth <= top_k:
                recall.within[f"first {depth} found"] += first < depth
        recall.within["the record's documents"] += any(number in holding for number in found.chosen(query).numbers)
    return recall


def tell_recall(context: Context, queries: Sequence[Query], found: Found) -> None:
    """Say which share of the queries has a gold answer in what was found; nothing where no gold answer is known."""
    recall = measure_recall(queries, found, context.config.retrieval.top_k_retrieval)
    if recall.num_queries:
        context.say("\n".join([f"a gold answer is found in (share of {recall.num_queries:,} queries)",
                               *recall.lines()]))


def tell_times(context: Context) -> None:
    """Say how long each stage of this run has taken, over all runs in the work folder."""
    context.say("\n".join(["time by stage, over all runs in this work folder",
                           *(f"  {name:<24}{seconds:,.1f} s" for name, seconds in context.times().items())]))


class Lengths:
    """Counts records, documents and tokens while records pass by."""

    def __init__(self, count_tokens: TokenCounter) -> None:
        self.num_records = 0
        self._count_tokens = count_tokens
        self._tokens: dict[str, list[int]] = {"queries": [], "documents": [], "answers": []}
        self._num_documents = 0

    def of(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records, counted; the tokens of the first ``MEASURED_QUERIES`` are."""
        for record in records:
            self.num_records += 1
            self._num_documents += len(record.documents)
            if self.num_records <= MEASURED_QUERIES:
                for name, texts in (("queries", [record.query]), ("documents", list(record.documents)),
                                    ("answers", [record.answer])):
                    self._tokens[name] += self._count_tokens(texts)
            yield record

    def lines(self) -> list[str]:
        """The lengths in words."""
        if not self.num_records:
            return []
        return [f"  {'documents a record':<24}{self._num_documents / self.num_records:.1f}",
                *(f"  {name:<24}{mean(lengths):.0f} tokens on average, {min(lengths)} to {max(lengths)}"
                  for name, lengths in self._tokens.items())]
