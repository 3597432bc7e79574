"""A run of the whole pipeline: what it needs is checked, its stages follow one another, and a summary ends it."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from scaledown import files, hub
from scaledown.data.answers import holds_answer, is_found_in_text, padded
from scaledown.data.pipeline.corpus import corpus_files
from scaledown.data.pipeline.pipeline_config import PipelineConfig
from scaledown.data.pipeline.queries import Query
from scaledown.data.pipeline.retrieval.vectors import ENCODER_ADVICE
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.pipeline.stages.finding import rerank, retrieval_key, retrieve
from scaledown.data.pipeline.stages.preparing import build_indexes, cut_passages, prepare_queries
from scaledown.data.pipeline.stages.search_results import Documents, SearchResults
from scaledown.data.pipeline.stages.teacher_answers import ask_teacher
from scaledown.data.pipeline.stages.writing import require_no_half, write_both_halves
from scaledown.data.pipeline.teacher import TEACHER_ADVICE
from scaledown.data.reranking.cross_encoder import RERANKER_ADVICE

RECALL_DEPTHS = (5, 20, 100)
MEASURED_QUERIES = 10_000
"""Recall is measured on this many queries at most: within 1 point, 95 times of 100."""


def check_needs(config: PipelineConfig) -> None:
    """Check within seconds that files and models are there; a server is asked when its stage begins.

    Raises:
        ValueError: if something is missing; all of it is named.
    """
    faults = []
    for check in _checks(config):
        try:
            check()
        except ValueError as fault:
            faults.append(str(fault))

    # Two stages may miss the same model: each fault is told once.
    if faults:
        raise ValueError("\n".join(dict.fromkeys(faults)))


def _checks(config: PipelineConfig) -> Iterator[Callable[[], object]]:
    """Yield the checks of the stages that the run reaches, in their order."""
    queries, retrieval, reranker, teacher = config.queries, config.retrieval, config.reranker, config.teacher
    if queries.queries_file is not None:
        yield partial(_require_file, "--queries_file", queries.queries_file)
    if config.reaches("records"):
        yield partial(files.output_file, config.records.output_file)
    if config.reaches("records") and not config.records.eval_share:
        yield partial(require_no_half, Path(config.records.output_file))

    # Without passages no stage reads anything but the queries.
    if not config.reaches("passages"):
        return
    if config.corpus.corpus_path is not None:
        yield partial(corpus_files.require_corpus, config.corpus.corpus_path)
    yield partial(hub.locate, config.generator, config.corpus.generator_revision)

    # A run file stands in for the index.
    if config.reaches("retrieval") and retrieval.run_file is not None:
        yield partial(_require_file, "--run_file", retrieval.run_file)
    if config.reaches("index") and retrieval.model is not None:
        yield partial(hub.locate, retrieval.model, retrieval.retriever_revision, what_works=ENCODER_ADVICE)

    if config.reaches("reranking"):
        yield partial(hub.locate, reranker.reranker_model, reranker.reranker_revision, what_works=RERANKER_ADVICE)
    if config.reaches("teacher") and teacher.teacher_url is None:
        yield partial(hub.locate, teacher.teacher_model, teacher.teacher_revision, what_works=TEACHER_ADVICE)


def _require_file(flag: str, path: str) -> None:
    if not Path(path).is_file():
        raise ValueError(f"{flag} {path}: no such file")


def run(context: Context) -> None:
    """Make what is missing of every stage, write the records, and print the summary.

    Raises:
        ValueError: if a stage cannot go on; what is finished stays in the work folder.
    """
    config = context.config
    context.say(f"work folder: {config.records.work_folder} (the same command goes on from there)")
    queries = prepare_queries(context)
    results = search(context, queries) if config.reaches("passages") else None

    # Each step needs the one before, so a run that ends early skips all the rest.
    if results is not None:
        tell_recall(context, queries, results)
        if config.reaches("teacher"):
            answers = ask_teacher(context, queries, results)
            if config.reaches("records"):
                write_both_halves(context, queries, results, answers)
    tell_times(context)


def search(context: Context, queries: Sequence[Query]) -> SearchResults | None:
    """Run the stages from passages to reranking; return None if the run ends before retrieval.

    Raises:
        ValueError: as :func:`run`.
    """
    config = context.config
    passages, store = cut_passages(context)
    if not config.reaches("index"):
        return None

    # A run file holds another engine's rankings, and needs no index.
    indexes = [] if config.retrieval.retriever == "run" else build_indexes(context, passages, store)
    if not config.reaches("retrieval"):
        return None

    documents = Documents(store, context.tokenizer, config.corpus.passage_tokens)
    retrieval = retrieve(context, queries, passages, indexes, documents)
    results = SearchResults(documents, retrieval_key(context), retrieval, config.records.top_k_reranking)
    if config.reaches("reranking"):
        results = dataclasses.replace(results, reranking=rerank(context, queries, results))
    return results


@dataclass
class Recall:
    """The number of queries with a gold answer in their passages: in the first 5, 20, 100, and in the record."""

    num_queries: int = 0
    within: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """Return the shares, a line each."""
        return [f"  {name:<24}{count / self.num_queries:.3f}" for name, count in self.within.items()]


def measure_recall(queries: Iterable[Query], results: SearchResults, top_k: int) -> Recall:
    """Measure the recall of gold answers that are text, not yes or no."""
    recall = Recall()
    depths = [depth for depth in sorted({*RECALL_DEPTHS, top_k}) if depth <= top_k]

    # No document states a yes or a no, so such answers say nothing about retrieval.
    measurable = (query for query in queries if any(map(is_found_in_text, query.answers)))
    for query in itertools.islice(measurable, MEASURED_QUERIES):
        recall.num_queries += 1

        # Places count from 0: a passage at place 4 is in the first 5.
        places = places_with_answer(query, results)
        best_place = places[0] if places else top_k
        for depth in depths:
            recall.within[f"first {depth} found"] += best_place < depth

        numbers = results.retrieved(query)
        holding = {numbers[place] for place in places}
        in_record = any(number in holding for number in results.chosen(query).numbers)
        recall.within["the record's documents"] += in_record
    return recall


def places_with_answer(query: Query, results: SearchResults) -> list[int]:
    """Return the places, from 0 on, of the retrieved passages that state one of the query's gold answers."""
    answers = [padded(answer) for answer in query.answers if is_found_in_text(answer)]
    texts = results.documents.texts(results.retrieved(query))
    return [place for place, text in enumerate(texts) if holds_answer(padded(text), answers)]


def tell_recall(context: Context, queries: Sequence[Query], results: SearchResults) -> None:
    """Print the share of queries that have a gold answer in their passages; nothing if no gold answer is known."""
    recall = measure_recall(queries, results, context.config.retrieval.top_k_retrieval)
    if recall.num_queries:
        title = f"a gold answer is found in (share of {recall.num_queries:,} queries)"
        context.say("\n".join([title, *recall.lines()]))


def tell_times(context: Context) -> None:
    """Print how long each stage of this run has taken, over all runs in the work folder."""
    lines = [f"  {name:<24}{seconds:,.1f} s" for name, seconds in context.times().items()]
    context.say("\n".join(["time by stage, over all runs in this work folder", *lines]))
