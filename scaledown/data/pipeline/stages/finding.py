"""Retrieval and reranking: each query's passages and their scores, stored as they are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from scaledown.data.pipeline.corpus.passage_store import PassageStore
from scaledown.data.pipeline.queries import Query
from scaledown.data.pipeline.retrieval import indexing
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.pipeline.stages.search_results import Documents, SearchResults
from scaledown.data.pipeline.trec import read_run, write_run
from scaledown.data.reranking.cross_encoder import RERANKER_ADVICE, Reranker
from scaledown.data.storage import fingerprints
from scaledown.data.storage.append_log import AppendLog, key_of
from scaledown.data.storage.work_folder import StageFolder

RETRIEVAL_CHUNK, RERANKING_CHUNK = 256, 128
"""Queries whose passages, or their scores, are computed and stored together."""
SCORE_DIGITS = 6
SHOWN_IDS = 5
TREC_RUN_FILE = "found.run"

Passages = tuple[list[int], list[float]]
"""A query's passages by number, best first, and their scores."""


def retrieve(context: Context, queries: Sequence[Query], passages: StageFolder, indexes: Sequence[StageFolder],
             documents: Documents) -> AppendLog:
    """Find the passages of the queries that have none yet, in the indexes or, without any, in the run.

    The results of all queries are also left in the work folder as a TREC run, for other tools to read.

    Raises:
        ValueError: if an index or the run cannot be read, or the run's ids are not those of the queries and passages.
    """
    config = context.config.retrieval
    settings = {"top_k_retrieval": config.top_k_retrieval,
                "run_file": config.run_file and fingerprints.of_files([Path(config.run_file)])}
    stage = context.stage("retrieval", settings, indexes or [passages])
    log = context.open_log(stage)
    search = _index_search(context, indexes) if indexes else _run_search(context, queries, documents.store)
    key = retrieval_key(context)

    def search_distinct(chunk: Sequence[Query]) -> list[Passages]:
        return [_without_repeats(ranking, documents) for ranking in search(chunk)]

    context.in_chunks(stage, log, queries, key, RETRIEVAL_CHUNK, search_distinct)

    # The run holds all queries, so one process writes it; always, since the one there may be of other queries.
    if context.processes.is_main:
        _write_run(context, stage.folder / TREC_RUN_FILE, queries, key, log, documents.store)
    context.work.finish(stage, {})
    return log


def retrieval_key(context: Context) -> Callable[[Query], str]:
    """Return the function that gives the key of a query's passages: a hash of its text, and of its id with a run."""
    # A run may rank other passages for another query of the same text; an index never does.
    by_id = context.config.retrieval.retriever == "run"
    return lambda query: key_of(query.id, query.text) if by_id else key_of(query.text)


def rerank(context: Context, queries: Sequence[Query], results: SearchResults) -> AppendLog:
    """Score the retrieved passages of the queries that have no scores yet.

    Raises:
        ValueError: if the cross-encoder cannot be loaded.
    """
    config = context.config.reranker
    model = fingerprints.of_model(config.reranker_model, config.reranker_revision, RERANKER_ADVICE)
    stage = context.stage("reranking", {"model": model})
    log = context.open_log(stage)
    load = cache(lambda: Reranker(config))  # at the first chunk, once: a finished stage needs no model

    def key(query: Query) -> str:
        return results.key(query, results.retrieved(query))

    def score(chunk: Sequence[Query]) -> list[list[float]]:
        # All pairs of the chunk as one list, from which the model makes batches of like length.
        pairs, slices = [], []
        for query in chunk:
            texts = results.documents.texts(results.retrieved(query))
            slices.append(slice(len(pairs), len(pairs) + len(texts)))
            pairs += [(query.text, text) for text in texts]

        # Scores come in any order, each with the number of its pair.
        scores = dict(load().scores(pairs))
        in_order = [_rounded(scores[number]) for number in range(len(pairs))]
        return [in_order[query_slice] for query_slice in slices]

    with_passages = [query for query in queries if results.retrieved(query)]
    context.in_chunks(stage, log, with_passages, key, RERANKING_CHUNK, score)
    context.work.finish(stage, {})
    return log


def _index_search(context: Context, indexes: Sequence[StageFolder]) -> Callable[[Sequence[Query]], list[Passages]]:
    config = context.config.retrieval
    open_searcher = cache(lambda: indexing.open_searcher(config, [index.folder for index in indexes]))

    def search(chunk: Sequence[Query]) -> list[Passages]:
        rankings = []
        for hits in open_searcher().search([query.text for query in chunk], config.top_k_retrieval):
            # A sparse score of 0, of BM25 or SPLADE, means that query and passage share no word: not a match.
            if config.retriever != "dense":
                hits = [hit for hit in hits if hit.score > 0]
            rankings.append(([hit.index for hit in hits], [_rounded(hit.score) for hit in hits]))
        return rankings

    return search


def _run_search(context: Context, queries: Sequence[Query],
                store: PassageStore) -> Callable[[Sequence[Query]], list[Passages]]:
    config = context.config.retrieval
    run = read_run(config.run_file)
    ids = set().union(*run.values())
    numbers = store.numbers_of(ids)

    # A run over another corpus or other queries is refused now: it would give empty records.
    unknown = sorted(ids - numbers.keys())
    if unknown:
        raise ValueError(f"--run_file {config.run_file}: {len(unknown):,} of its passages are not in the corpus, such "
                         f"as {', '.join(unknown[:SHOWN_IDS])}; expected ids such as {store.id(0)}")
    if not any(query.id in run for query in queries):
        raise ValueError(f"--run_file {config.run_file}: not one of its queries, such as {next(iter(run))}, is among "
                         f"the {len(queries):,} that are asked, such as {queries[0].id}")

    def search(chunk: Sequence[Query]) -> list[Passages]:
        rankings = []
        for query in chunk:
            # A query that the run does not know has no passages.
            best = list(run.get(query.id, {}).items())[:config.top_k_retrieval]
            rankings.append(([numbers[id] for id, _ in best], [_rounded(score) for _, score in best]))
        return rankings

    return search


def _write_run(context: Context, path: Path, queries: Sequence[Query], key: Callable[[Query], str], log: AppendLog,
               store: PassageStore) -> None:
    def scores_by_id() -> Iterator[tuple[str, dict[str, float]]]:
        for query in queries:
            numbers, scores = log[key(query)]
            yield query.id, {store.id(number): score for number, score in zip(numbers, scores, strict=True)}

    try:
        write_run(path, scores_by_id())
    except ValueError as fault:  # ids with spaces; the run is for other tools alone, so no reason to stop
        context.say(f"retrieval: no TREC run is left: {fault}")
    else:
        context.say(f"retrieval: as a TREC run in {path}")


def _without_repeats(ranking: Passages, documents: Documents) -> Passages:
    """Return the ranking without passages whose text came before: corpora repeat themselves."""
    numbers, scores = ranking
    best_place: dict[str, int] = {}
    for place, text in enumerate(documents.texts(numbers)):
        best_place.setdefault(text, place)

    # A dict keeps the order of insertion, so the places still go from best to worst.
    places = list(best_place.values())
    return [numbers[place] for place in places], [scores[place] for place in places]


def _rounded(score: float) -> float:
    """Round to six digits: what is beyond them differs between machines, and between batches."""
    return float(f"{score:.{SCORE_DIGITS}g}")
