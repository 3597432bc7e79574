"""The whole pipeline in order, up to the last stage that is asked for, and its summary."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scaledown.data.append_log import AppendLog
from scaledown.data.passages import token_counter
from scaledown.data.pipeline.answering import ask_teacher, records
from scaledown.data.pipeline.config import MOST_EVAL_QUERIES
from scaledown.data.pipeline.context import Context
from scaledown.data.pipeline.finding import rerank, retrieval_key, retrieve
from scaledown.data.pipeline.found import Documents, Found
from scaledown.data.pipeline.preparing import build_index, cut_passages, prepare_queries
from scaledown.data.pipeline.summary import Lengths, tell_recall, tell_times
from scaledown.data.queries import Query
from scaledown.data.records import eval_path, write_records


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
    config = context.config
    train, evaluation = halves(queries, config.records.eval_share, config.queries.seed)
    if context.processes.is_main:
        _write_half(context, config.records.output_file, train, found, answers)
        if evaluation:
            _write_half(context, eval_path(config.records.output_file), evaluation, found, answers)
    context.processes.wait()


def halves(queries: Sequence[Query], eval_share: float, seed: int) -> tuple[list[Query], list[Query]]:
    """The queries to train on, in their order, and those to evaluate with, shuffled."""
    number = min(MOST_EVAL_QUERIES, int(eval_share * len(queries)))
    chosen = random.Random(f"evaluation-{seed}").sample(queries, number)
    names = {query.id for query in chosen}
    return [query for query in queries if query.id not in names], chosen


def _write_half(context: Context, path: Path | str, queries: Sequence[Query], found: Found,
                answers: AppendLog) -> None:
    left_out: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    lengths = Lengths(token_counter(context.tokenizer))
    write_records(path, lengths.of(records(queries, found, answers, left_out, tokens)))
    context.say("\n".join([
        f"records: {lengths.num_records:,} in {path}", *lengths.lines(),
        *(f"  {count:,} left out: {reason}" for reason, count in left_out.items()),
        f"  {'teacher':<24}read {tokens['read']:,} tokens, said {tokens['said']:,}"]))
