"""Retrieval and reranking: each query's passages and their scores, kept as they are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from scaledown.data.pipeline.corpus.passage_store import PassageStore
from scaledown.data.pipeline.queries import Query
from scaledown.data.pipeline.retrieval import indexing
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.pipeline.stages.found import Documents, Found
from scaledown.data.pipeline.trec import read_run, write_run
from scaledown.data.reranking.reranker import WHAT_WORKS, Reranker
from scaledown.data.storage import fingerprints
from scaledown.data.storage.append_log import AppendLog, key_of
from scaledown.data.storage.work_folder import Stage

RETRIEVAL_CHUNK, RERANKING_CHUNK = 256, 128
"""Queries whose passages, or their scores, are computed together and kept together."""
SCORE_DIGITS = 6
SHOWN_IDS = 5
RUN_FILE = "found.run"

Passages = tuple[list[int], list[float]]
"""A query's passages by number, best first, and their scores."""


def retrieve(context: Context, queries: Sequence[Query], passages: Stage, index: Stage | None,
             documents: Documents) -> AppendLog:
    """Find the passages of the queries that have none yet, in the index or, without one, in the run.

    What was found for all of them is also left in the work folder as a TREC run, for other tools to read.

    Raises:
        ValueError: where index or run cannot be had, or the run's ids are not those of the queries and passages.
    """
    config = context.config.retrieval
    settings = {"top_k_retrieval": config.top_k_retrieval,
                "run_file": config.run_file and fingerprints.of_files([Path(config.run_file)])}
    stage = context.stage("retrieval", settings, [index or passages])
    log = context.open_log(stage)
    search = _run_search(context, queries, documents.store) if index is None else _index_search(context, index)
    key = retrieval_key(context)

    def find(chunk: Sequence[Query]) -> list[Passages]:
        return [_different(found, documents) for found in search(chunk)]

    num_new = context.in_chunks(stage, log, queries, key, RETRIEVAL_CHUNK, find)
    if num_new and context.processes.is_main:
        _write_run(context, stage.folder / RUN_FILE, queries, key, log, documents.store)
    context.work.finish(stage, {})
    return log


def retrieval_key(context: Context) -> Callable[[Query], str]:
    """What a query's passages are kept under: its text, and with a run its id too."""
    by_id = context.config.retrieval.retriever == "run"
    return lambda query: key_of(query.id, query.text) if by_id else key_of(query.text)


def rerank(context: Context, queries: Sequence[Query], found: Found) -> AppendLog:
    """Score the passages found for the queries, where they are not scored yet.

    Raises:
        ValueError: where the cross-encoder cannot be had.
    """
    config = context.config.reranker
    model = fingerprints.of_model(config.reranker_model, config.reranker_revision, WHAT_WORKS)
    stage = context.stage("reranking", {"model": model})
    log = context.open_log(stage)
    load = cache(lambda: Reranker(config))

    def key(query: Query) -> str:
        return found.key(query, found.retrieved(query))

    def score(chunk: Sequence[Query]) -> list[list[float]]:
        retrieved = [found.retrieved(query) for query in chunk]
        pairs = [(query.text, document) for query, numbers in zip(chunk, retrieved, strict=True)
                 for document in found.documents.texts(numbers)]
        scores = dict(load().scores(pairs))
        ordered = iter([_rounded(scores[number]) for number in range(len(pairs))])
        return [[next(ordered) for _ in numbers] for numbers in retrieved]

    with_passages = [query for query in queries if found.retrieved(query)]
    context.in_chunks(stage, log, with_passages, key, RERANKING_CHUNK, score)
    context.work.finish(stage, {})
    return log


def _index_search(context: Context, index: Stage) -> Callable[[Sequence[Query]], list[Passages]]:
    config = context.config.retrieval
    open_searcher = cache(lambda: indexing.open_searcher(config, index.folder))

    def search(chunk: Sequence[Query]) -> list[Passages]:
        hits = open_searcher().search([query.text for query in chunk], config.top_k_retrieval)
        # For words and learnt words, a score of 0 means that nothing is shared: not a passage that was found.
        kept = [[hit for hit in each if hit.score > 0 or config.retriever == "dense"] for each in hits]
        return [([hit.index for hit in each], [_rounded(hit.score) for hit in each]) for each in kept]

    return search


def _run_search(context: Context, queries: Sequence[Query],
                store: PassageStore) -> Callable[[Sequence[Query]], list[Passages]]:
    config = context.config.retrieval
    run = read_run(config.run_file)
    ids = {id for found in run.values() for id in found}
    numbers = store.numbers_of(ids)
    unknown = sorted(ids - numbers.keys())
    if unknown:
        raise ValueError(f"--run_file {config.run_file}: {len(unknown):,} of its passages are not in the corpus, such "
                         f"as {', '.join(unknown[:SHOWN_IDS])}; expected ids such as {store.id(0)}")
    if not any(query.id in run for query in queries):
        raise ValueError(f"--run_file {config.run_file}: not one of its queries, such as {next(iter(run))}, is among "
                         f"the {len(queries):,} that are asked, such as {queries[0].id}")

    def search(chunk: Sequence[Query]) -> list[Passages]:
        found = [list(run.get(query.id, {}).items())[:config.top_k_retrieval] for query in chunk]
        return [([numbers[id] for id, _ in each], [_rounded(score) for _, score in each]) for each in found]

    return search


def _write_run(context: Context, path: Path, queries: Sequence[Query], key: Callable[[Query], str], log: AppendLog,
               store: PassageStore) -> None:
    found = ((query.id, {store.id(number): score for number, score in zip(*log[key(query)], strict=True)})
             for query in queries)
    try:
        write_run(path, found)
    except ValueError as fault:  # ids with spaces; for other tools alone, so no reason to stop
        context.say(f"retrieval: no TREC run is left: {fault}")
    else:
        context.say(f"retrieval: as a TREC run in {path}")


def _different(found: Passages, documents: Documents) -> Passages:
    """The passages without those whose text came before: corpora repeat themselves."""
    first: dict[str, int] = {}
    for place, text in enumerate(documents.texts(found[0])):
        first.setdefault(text, place)
    return [found[0][place] for place in first.values()], [found[1][place] for place in first.values()]


def _rounded(score: float) -> float:
    """Six digits: what is beyond them differs between machines, and between batches."""
    return float(f"{score:.{SCORE_DIGITS}g}")
