"""The last stage: the records, assembled from the results of all others and written in two halves."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean

from scaledown.data.answers import question_key
from scaledown.data.pipeline.pipeline_config import MOST_EVAL_QUERIES
from scaledown.data.pipeline.queries import Query
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.pipeline.stages.search_results import SearchResults
from scaledown.data.records import Record, eval_path, write_records_together
from scaledown.data.storage.append_log import AppendLog
from scaledown.data.storage.lines import HALF_A_PAIR, is_text
from scaledown.prompt.passages import TokenCounter, token_counter

NO_PASSAGE = "no passage was found for them"
NO_TEACHER_ANSWER = "the teacher had nothing to say"
NO_TEXT = f"the teacher's answer holds {HALF_A_PAIR}"
MEASURED_RECORDS = 10_000
"""Lengths are measured on this many records at most: tokenising all would take longer than writing them."""


def write_both_halves(context: Context, queries: Sequence[Query], results: SearchResults, answers: AppendLog) -> None:
    """Write both halves together, and print what is in them."""
    config = context.config.records
    train_queries, eval_queries = split_queries(queries, config.eval_share, context.config.queries.seed)
    if context.processes.is_main:
        path = Path(config.output_file)
        records_files = [_RecordsFile(context, path, train_queries)]
        if eval_queries:
            records_files.append(_RecordsFile(context, eval_path(path), eval_queries))
        else:
            require_no_half(path)

        # The records are assembled while they are written, so that only one is in memory at a time. Both files are
        # renamed together, so that a kill never leaves a new half beside an old one.
        write_records_together({file.path: file.records(results, answers) for file in records_files})
        for file in records_files:
            context.say(file.summary())
    context.processes.wait()


def require_no_half(output_file: Path) -> None:
    """Refuse to write records without an evaluation half beside the evaluation half of other records.

    Raises:
        ValueError: if there is one: training on the new records would be evaluated with questions that may be in them.
    """
    if (path := eval_path(output_file)).exists():
        raise ValueError(f"{path}: would be taken for the evaluation half of {output_file}, which gets none this time; "
                         "move it away, give another --output_file, or a larger --eval_share")


def split_queries(queries: Sequence[Query], eval_share: float, seed: int) -> tuple[list[Query], list[Query]]:
    """Return the queries to train on, in their order, and those to evaluate with, shuffled.

    Queries that are equal but for case, punctuation and spaces stay in one half.
    """
    by_question: dict[str, list[Query]] = {}
    for query in queries:
        by_question.setdefault(question_key(query.text), []).append(query)

    # Whole groups are drawn, so repeated questions can make the half larger than its share.
    num_groups = min(MOST_EVAL_QUERIES, int(eval_share * len(queries)), len(by_question))
    eval_keys = random.Random(f"evaluation-{seed}").sample(list(by_question), num_groups)
    eval_queries = []
    for key in eval_keys:
        eval_queries += by_question[key]

    eval_ids = {query.id for query in eval_queries}
    return [query for query in queries if query.id not in eval_ids], eval_queries


def assemble_records(queries: Sequence[Query], results: SearchResults, answers: AppendLog, left_out: Counter[str],
                     tokens: Counter[str]) -> Iterator[Record]:
    """Yield the records of the queries that have passages and an answer.

    The other queries are counted in ``left_out`` by reason. ``tokens`` counts what the teacher ``read`` and ``said``
    for all of them.
    """
    store = results.documents.store
    for query in queries:
        chosen = results.chosen(query)
        if not chosen.numbers:
            left_out[NO_PASSAGE] += 1
            continue

        # The tokens were spent whether or not the answer is usable.
        answer, num_read, num_said = answers[results.key(query, chosen.numbers)]
        tokens.update(read=num_read, said=num_said)
        if not answer:
            left_out[NO_TEACHER_ANSWER] += 1
            continue
        if not is_text(answer):
            left_out[NO_TEXT] += 1
            continue

        yield Record(
            id=query.id, query=query.text, answer=answer, answers=query.answers, reranking_scores=chosen.scores,
            documents=tuple(results.documents.texts(chosen.numbers)),
            document_ids=tuple(store.id(number) for number in chosen.numbers),
            titles=tuple(store.title(number) for number in chosen.numbers))


class _RecordsFile:
    """The records of some of the queries, counted while they are written."""

    def __init__(self, context: Context, path: Path, queries: Sequence[Query]) -> None:
        self.path, self._queries = path, queries
        self._left_out: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._lengths = RecordLengths(token_counter(context.tokenizer))

    def records(self, results: SearchResults, answers: AppendLog) -> Iterator[Record]:
        """Yield the records, each as it is assembled."""
        return self._lengths.of(assemble_records(self._queries, results, answers, self._left_out, self._tokens))

    def summary(self) -> str:
        """Return what was written, and what was left out and why, once all records have been read."""
        lines = [f"records: {self._lengths.num_records:,} in {self.path}", *self._lengths.lines()]
        lines += [f"  {count:,} left out: {reason}" for reason, count in self._left_out.items()]
        lines.append(f"  {'teacher':<24}read {self._tokens['read']:,} tokens, said {self._tokens['said']:,}")
        return "\n".join(lines)


class RecordLengths:
    """Counts records, documents and tokens while records pass by."""

    def __init__(self, count_tokens: TokenCounter) -> None:
        self.num_records = 0
        self._count_tokens = count_tokens
        self._tokens: dict[str, list[int]] = {"queries": [], "documents": [], "answers": []}
        self._num_documents = 0

    def of(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records, counting all of them, and the tokens of the first ``MEASURED_RECORDS``."""
        for record in records:
            self.num_records += 1
            self._num_documents += len(record.documents)

            # Enough for a mean.
            if self.num_records <= MEASURED_RECORDS:
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
