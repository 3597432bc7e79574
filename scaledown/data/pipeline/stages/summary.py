"""The summary of a run on one page: counts, lengths, recall of the gold answers, time and tokens by stage."""

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
"""Recall is measured on this many queries at most: within 1 point, 95 times of 100."""


@dataclass
class Recall:
    """The number of queries with a gold answer in their passages: in the first 5, 20, 100, and in the record."""

    num_queries: int = 0
    within: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """Return the shares, a line each."""
        return [f"  {name:<24}{count / self.num_queries:.3f}" for name, count in self.within.items()]


def measure_recall(queries: Iterable[Query], results: Found, top_k: int) -> Recall:
    """Measure the recall of gold answers that are text, not yes or no."""
    recall = Recall()
    depths = [depth for depth in sorted({*DEPTHS, top_k}) if depth <= top_k]

    # No document states a yes or a no, so such answers say nothing about retrieval.
    measurable = (query for query in queries if any(map(is_found_in_text, query.answers)))
    for query in itertools.islice(measurable, MEASURED_QUERIES):
        recall.num_queries += 1
        answers = [padded(answer) for answer in query.answers if is_found_in_text(answer)]

        # The passages that hold an answer, best first. Their places count from 0: one at place 4 is in the first 5.
        numbers = results.retrieved(query)
        holding = [number for number in numbers if holds_answer(padded(results.documents.text(number)), answers)]
        best_place = numbers.index(holding[0]) if holding else top_k
        for depth in depths:
            recall.within[f"first {depth} found"] += best_place < depth

        in_record = any(number in holding for number in results.chosen(query).numbers)
        recall.within["the record's documents"] += in_record
    return recall


def tell_recall(context: Context, queries: Sequence[Query], results: Found) -> None:
    """Print the share of queries that have a gold answer in their passages; nothing if no gold answer is known."""
    recall = measure_recall(queries, results, context.config.retrieval.top_k_retrieval)
    if recall.num_queries:
        title = f"a gold answer is found in (share of {recall.num_queries:,} queries)"
        context.say("\n".join([title, *recall.lines()]))


def tell_times(context: Context) -> None:
    """Print how long each stage of this run has taken, over all runs in the work folder."""
    lines = [f"  {name:<24}{seconds:,.1f} s" for name, seconds in context.times().items()]
    context.say("\n".join(["time by stage, over all runs in this work folder", *lines]))


class Lengths:
    """Counts records, documents and tokens while records pass by."""

    def __init__(self, count_tokens: TokenCounter) -> None:
        self.num_records = 0
        self._count_tokens = count_tokens
        self._tokens: dict[str, list[int]] = {"queries": [], "documents": [], "answers": []}
        self._num_documents = 0

    def of(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records, counting all of them, and the tokens of the first ``MEASURED_QUERIES``."""
        for record in records:
            self.num_records += 1
            self._num_documents += len(record.documents)

            # Enough for a mean; tokenising all records would take longer than writing them.
            if self.num_records <= MEASURED_QUERIES:
                self._tokens["queries"] += self._count_tokens([record.query])
                self._tokens["documents"] += self._count_tokens(list(record.documents))
                self._tokens["answers"] += self._count_tokens([record.answer])
            yield record

    def lines(self) -> list[str]:
        """Return the mean and extreme lengths, a line each."""
        if not self.num_records:
            return []

        lines = [f"  {'documents a record':<24}{self._num_documents / self.num_records:.1f}"]
        for name, lengths in self._tokens.items():
            lines.append(f"  {name:<24}{mean(lengths):.0f} tokens on average, {min(lengths)} to {max(lengths)}")
        return lines
