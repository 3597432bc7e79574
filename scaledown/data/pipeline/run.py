"""The whole pipeline in order, up to the last stage that is asked for, and its summary."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from scaledown.data.normal_form import question_key
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
    """Make what is missing of every stage, write the records, and say what came out.

    Raises:
        ValueError: where a stage cannot be had; what is finished is kept.
    """
    config = context.config
    context.say(f"work folder: {config.records.work_folder} (the same command goes on from there)")
    queries = prepare_queries(context)
    if config.reaches("passages"):
        found = _find(context, queries)
        if found is not None:
            tell_recall(context, queries, found)
            if config.reaches("teacher"):
                answers = ask_teacher(context, queries, found)
                if config.reaches("records"):
                    _write(context, queries, found, answers)
    tell_times(context)


def _find(context: Context, queries: Sequence[Query]) -> Found | None:
    """Passages, index, retrieval and reranking; None where the run ends before anything is found."""
    config = context.config
    passages, store = cut_passages(context)
    if not config.reaches("index"):
        return None
    index = None if config.retrieval.retriever == "run" else build_index(context, passages, store)
    if not config.reaches("retrieval"):
        return None
    documents = Documents(store, context.tokenizer, config.corpus.passage_tokens)
    found = Found(documents, retrieval_key(context), retrieve(context, queries, passages, index, documents),
                  config.records.top_k_reranking)
    if config.reaches("reranking"):
        found = dataclasses.replace(found, reranking=rerank(context, queries, found))
    return found


def _write(context: Context, queries: Sequence[Query], found: Found, answers: AppendLog) -> None:
    """Write both halves together, and say what is in them."""
    records_config = context.config.records
    train, evaluation = halves(queries, records_config.eval_share, context.config.queries.seed)
    if context.processes.is_main:
        path = Path(records_config.output_file)
        if not evaluation:
            require_no_half(path)
        parts = [_Part(context, path, train)]
        parts += [_Part(context, eval_path(path), evaluation)] if evaluation else []
        write_records_together({part.path: part.records(found, answers) for part in parts})
        for part in parts:
            context.say(part.summary())
    context.processes.wait()


def halves(queries: Sequence[Query], eval_share: float, seed: int) -> tuple[list[Query], list[Query]]:
    """Return the queries to train on, in their order, and those to evaluate with, shuffled.

    Queries that are equal but for case, punctuation and spaces stay in one half.
    """
    equal: dict[str, list[Query]] = {}
    for query in queries:
        equal.setdefault(question_key(query.text), []).append(query)
    number = min(MOST_EVAL_QUERIES, int(eval_share * len(queries)), len(equal))
    chosen = random.Random(f"evaluation-{seed}").sample(list(equal), number)
    evaluation = [query for key in chosen for query in equal.pop(key)]
    names = {query.id for query in evaluation}
    return [query for query in queries if query.id not in names], evaluation


class _Part:
    """The records of some of the queries, counted while they are written."""

    def __init__(self, context: Context, path: Path, queries: Sequence[Query]) -> None:
        self.path, self._queries = path, queries
        self._left_out: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._lengths = Lengths(token_counter(context.tokenizer))

    def records(self, found: Found, answers: AppendLog) -> Iterator[Record]:
        """The records, each as it is put together."""
        return self._lengths.of(records(self._queries, found, answers, self._left_out, self._tokens))

    def summary(self) -> str:
        """What was written, and what was left out and why."""
        return "\n".join([
            f"records: {self._lengths.num_records:,} in {self.path}", *self._lengths.lines(),
            *(f"  {count:,} left out: {reason}" for reason, count in self._left_out.items()),
            f"  {'teacher':<24}read {self._tokens['read']:,} tokens, said {self._tokens['said']:,}"])
