"""The whole pipeline in order, up to the last stage asked for, and its summary."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from scaledown.data.answers import question_key
from scaledown.data.passages import token_counter
from scaledown.data.pipeline.pipeline_config import MOST_EVAL_QUERIES
from scaledown.data.pipeline.preflight import require_no_half
from scaledown.data.pipeline.queries import Query
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.pipeline.stages.finding import rerank, retrieval_key, retrieve
from scaledown.data.pipeline.stages.found import Documents, Found
from scaledown.data.pipeline.stages.preparing import build_index, cut_passages, prepare_queries
from scaledown.data.pipeline.stages.summary import Lengths, tell_recall, tell_times
from scaledown.data.pipeline.stages.teacher_answers import ask_teacher, records
from scaledown.data.records import Record, eval_path, write_records_together
from scaledown.data.storage.append_log import AppendLog


def run(context: Context) -> None:
    """Make what is missing of every stage, write the records, and print the summary.

    Raises:
        ValueError: if a stage cannot go on; what is finished stays in the work folder.
    """
    config = context.config
    context.say(f"work folder: {config.records.work_folder} (the same command goes on from there)")
    queries = prepare_queries(context)
    results = _search(context, queries) if config.reaches("passages") else None

    # Each step needs the one before, so a run that ends early skips all the rest.
    if results is not None:
        tell_recall(context, queries, results)
        if config.reaches("teacher"):
            answers = ask_teacher(context, queries, results)
            if config.reaches("records"):
                _write(context, queries, results, answers)
    tell_times(context)


def _search(context: Context, queries: Sequence[Query]) -> Found | None:
    """Run the stages from passages to reranking; return None if the run ends before retrieval."""
    config = context.config
    passages, store = cut_passages(context)
    if not config.reaches("index"):
        return None

    # A run file holds another engine's rankings, and needs no index.
    index = None if config.retrieval.retriever == "run" else build_index(context, passages, store)
    if not config.reaches("retrieval"):
        return None

    documents = Documents(store, context.tokenizer, config.corpus.passage_tokens)
    results = Found(documents, retrieval_key(context), retrieve(context, queries, passages, index, documents),
                    config.records.top_k_reranking)
    if config.reaches("reranking"):
        results = dataclasses.replace(results, reranking=rerank(context, queries, results))
    return results


def _write(context: Context, queries: Sequence[Query], results: Found, answers: AppendLog) -> None:
    """Write both halves together, and print what is in them."""
    config = context.config.records
    train_queries, eval_queries = halves(queries, config.eval_share, context.config.queries.seed)
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


def halves(queries: Sequence[Query], eval_share: float, seed: int) -> tuple[list[Query], list[Query]]:
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


class _RecordsFile:
    """The records of some of the queries, counted while they are written."""

    def __init__(self, context: Context, path: Path, queries: Sequence[Query]) -> None:
        self.path, self._queries = path, queries
        self._left_out: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._lengths = Lengths(token_counter(context.tokenizer))

    def records(self, results: Found, answers: AppendLog) -> Iterator[Record]:
        """Yield the records, each as it is assembled."""
        return self._lengths.of(records(self._queries, results, answers, self._left_out, self._tokens))

    def summary(self) -> str:
        """Return what was written, and what was left out and why, once all records have been read."""
        lines = [f"records: {self._lengths.num_records:,} in {self.path}", *self._lengths.lines()]
        lines += [f"  {count:,} left out: {reason}" for reason, count in self._left_out.items()]
        lines.append(f"  {'teacher':<24}read {self._tokens['read']:,} tokens, said {self._tokens['said']:,}")
        return "\n".join(lines)
