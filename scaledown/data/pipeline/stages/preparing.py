"""The first stages: queries, passages and the index, each stored under the fingerprint of its inputs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

from scaledown.data.pipeline import query_rows
from scaledown.data.pipeline.corpus import corpus_files, cutting, passage_store
from scaledown.data.pipeline.corpus.cutting import Page
from scaledown.data.pipeline.corpus.passage_store import PassageStore
from scaledown.data.pipeline.pipeline_config import PipelineConfig
from scaledown.data.pipeline.queries import Query, ReadQueries, chosen_queries, read_ms_marco, read_queries_file
from scaledown.data.pipeline.retrieval import RetrievalConfig, bm25, indexing, vectors
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.storage import fingerprints
from scaledown.data.storage.work_folder import StageFolder
from scaledown.data.world.synthetic import Difficulty, World
from scaledown.files import WHAT_TO_DO, whole_file
from scaledown.prompt.passages import token_counter

STORED_QUERIES_FILE = "queries.jsonl"
SHOWN_EXAMPLES = 5
MOST_VAIN_DRAWS = 2_000
"""Contexts drawn in vain one after another, as their names are taken, before the world counts as used up."""


def prepare_queries(context: Context) -> list[Query]:
    """Read the queries from their source, or from the work folder.

    Raises:
        ValueError: if they cannot be read.
    """
    # The main process writes the file once; the others wait for it in ``finish``.
    stage = context.stage("queries", _query_settings(context))
    path = stage.folder / STORED_QUERIES_FILE
    if not context.work.is_finished(stage):
        report = {}
        with context.spending(stage):
            if context.processes.is_main:
                report = _write_queries(context, path)
        context.work.finish(stage, report)

    # Every process reads the file, so that all have the same queries in the same order.
    queries = _stored_queries(path)
    report = context.work.report(stage)

    with_answers = sum(bool(query.answers) for query in queries)
    summary = f"queries: {len(queries):,}, {with_answers:,} with gold answers"
    for reason, count in report.get("left_out", {}).items():
        summary += f"; {count:,} left out: {reason}"
    context.say(summary)
    for example in report.get("examples", [])[:SHOWN_EXAMPLES]:
        context.say(f"  left out: {example}")
    return queries


def _query_settings(context: Context) -> dict[str, object]:
    """Return what the queries depend on; a file counts by its content, and by how it is read."""
    config = context.config.queries
    settings: dict[str, object] = {"max_queries": config.max_queries, "seed": config.seed}
    if config.queries_file is not None:
        file = fingerprints.of_files([Path(config.queries_file)])
        return settings | {"queries_file": file, "reading": query_rows.READING}
    if config.num_synthetic_queries is not None:
        return settings | {"num_synthetic_queries": config.num_synthetic_queries}
    return settings | {"ms_marco_split": config.ms_marco_split}


def _write_queries(context: Context, path: Path) -> dict[str, object]:
    """Write the run's queries as JSON lines, and return the report on what was left out."""
    read = _read_queries(context)
    with whole_file(path, WHAT_TO_DO) as draft, draft.open("w", encoding="utf-8") as file:
        for query in chosen_queries(read, context.config.queries):
            file.write(json.dumps(dataclasses.asdict(query), ensure_ascii=False) + "\n")
    return {"left_out": dict(read.left_out), "examples": read.examples}


def _stored_queries(path: Path) -> list[Query]:
    queries = []
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                values = json.loads(line)
                values["answers"] = tuple(values["answers"])  # JSON has lists
                queries.append(Query(**values))
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise ValueError(f"{path}: damaged ({fault}); delete the folder {path.parent}, and run the same command "
                         "again") from None
    return queries


def _read_queries(context: Context) -> ReadQueries:
    config = context.config.queries
    if config.queries_file is not None:
        return read_queries_file(config.queries_file)
    if config.num_synthetic_queries is not None:
        queries, _ = synthetic_queries(config.num_synthetic_queries, config.seed)
        return ReadQueries(queries)
    return read_ms_marco(config.ms_marco_split)


def corpus_of(config: PipelineConfig) -> corpus_files.Corpus:
    """Open the corpus that the settings name, or make the demo world's.

    Raises:
        ValueError: if it cannot be read.
    """
    number, seed = config.queries.num_synthetic_queries, config.queries.seed
    if number is not None:
        # The world follows from the two values, so they are its fingerprint.
        _, pages = synthetic_queries(number, seed)
        return corpus_files.of_pages("the demo world", pages, fingerprints.of_values([number, seed]))

    corpus = config.corpus
    return corpus_files.open_corpus(corpus.corpus_path, corpus.max_corpus_size, corpus.corpus_config,
                                    corpus.corpus_split)


def synthetic_queries(num_queries: int, seed: int) -> tuple[list[Query], list[Page]]:
    """Return queries with their answers, and the pages that answer them among hard negatives.

    A record's documents may give a name other facts than another record's do. In one corpus for all queries they would
    contradict one another, so a context with a name that is taken is drawn again.

    Raises:
        ValueError: if there are not enough names.
    """
    world = World(random.Random(f"corpus-{seed}"))
    taken: set[str] = set()
    queries: list[Query] = []
    pages: list[Page] = []
    num_vain = 0
    while len(queries) < num_queries:
        documents, questions = world.context(Difficulty())
        names = {document.entity.name for document in documents}
        if names & taken:
            # Names run out slowly: contexts succeed ever more rarely, until none does.
            num_vain += 1
            if num_vain > MOST_VAIN_DRAWS:
                raise ValueError(f"--num_synthetic_queries {num_queries}: the demo world has names for "
                                 f"{len(queries)} queries with this seed, not more")
            continue

        num_vain = 0
        taken |= names
        queries.append(Query(f"synthetic-{seed}-{len(queries)}", questions[0].text, (questions[0].answer,)))

        # Without titles: they would be the entities' names, and give the right page away.
        for document in documents:
            pages.append(Page(f"synthetic-{seed}-{len(pages)}", "", document.text))
    return queries, pages


def cutter_of(context: Context) -> cutting.Cutter:
    """Return the function that cuts pages into passages, by words or by tokens."""
    config, count_tokens = context.config.corpus, token_counter(context.tokenizer)
    if config.passage_words is not None:
        return cutting.word_cutter(count_tokens, config.passage_words)
    return cutting.token_cutter(count_tokens, config.passage_tokens)


def cut_passages(context: Context) -> tuple[StageFolder, PassageStore]:
    """Cut the corpus into passages, or find them in the work folder.

    Raises:
        ValueError: if the corpus cannot be read or holds no text, or a line of it is damaged with ``--strict``.
    """
    config, corpus = context.config.corpus, corpus_of(context.config)

    # Passages cut by words do not depend on the limit in tokens: the student's documents are cut at it later.
    by_words = config.passage_words is not None
    stage = context.stage("passages", {
        "corpus": corpus.fingerprint, "max_corpus_size": config.max_corpus_size,
        "passage_words": config.passage_words, "passage_tokens": None if by_words else config.passage_tokens,
        "tokenizer": _tokenizer_fingerprint(context)})
    # All processes cut their share of the parts; the report needs the notes of all of them.
    if not context.work.is_finished(stage):
        context.say(f"passages: cutting {corpus.description} ({corpus.size:,} {corpus.unit}) into {stage.folder}")
        with context.spending(stage):
            passage_store.write_passages(corpus, cutter_of(context), stage.folder, context.processes)
            context.processes.wait()
            report = passage_store.report_of(stage.folder, corpus)
        context.work.finish(stage, report)

    # Work folders of older versions have reports without these two.
    report = context.work.report(stage)
    store, num_blank = PassageStore(stage.folder, report.get("parts")), report.get("blank", 0)

    mean_tokens = store.total_tokens() / max(1, len(store))
    summary = f"passages: {len(store):,} of {report['lines']:,} pages, {mean_tokens:.0f} tokens on average"
    if num_blank:
        summary += f"; {num_blank:,} pages hold no text"
    context.say(summary)
    if report["faults"]:
        _tell_faults(report, config.strict, context.say)
    if not len(store):
        raise ValueError(f"{corpus.description}: not one passage in it; {corpus_files.EXPECTED_CORPUS}")
    return stage, store


def build_indexes(context: Context, passages: StageFolder, store: PassageStore) -> list[StageFolder]:
    """Build the indexes that the retriever searches, two if it is hybrid, or find them in the work folder.

    Raises:
        ValueError: if the encoder cannot be loaded, or an index cannot be stored.
    """
    return [_build_index(context, part, passages, store) for part in context.config.retrieval.parts]


def _build_index(context: Context, config: RetrievalConfig, passages: StageFolder,
                 store: PassageStore) -> StageFolder:
    settings = {"retriever": config.retriever, "faiss_index": config.faiss_index, "index_url": config.index_url,
                "model": config.model and fingerprints.of_model(config.model, config.retriever_revision,
                                                                vectors.ENCODER_ADVICE)}
    # An index of words that were split in another way would miss queries' words.
    if config.retriever == "bm25":
        settings["words"] = bm25.WORDS

    stage = context.stage("index", settings, [passages])
    if not context.work.is_finished(stage):
        context.say(f"index: {len(store):,} passages for {config.retriever} into {config.index_url or stage.folder}")
        with context.spending(stage):
            indexing.build(config, store, stage.folder, context.processes)
        context.work.finish(stage, {})
    return stage


def _tokenizer_fingerprint(context: Context) -> str:
    """Return the fingerprint of the student's tokenizer."""
    # A fast tokenizer is known by its content, so that another model's equal tokenizer changes nothing.
    backend = getattr(context.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return fingerprints.of_model(context.config.generator, context.config.corpus.generator_revision)
    return hashlib.sha256(backend.to_str().encode()).hexdigest()[:12]


def _tell_faults(report: dict, strict: bool, say: Callable[[str], None]) -> None:
    """Say which lines of the corpus are damaged, or raise it if ``strict``."""
    lines = [f"{report['faults']:,} of {report['lines']:,} lines of the corpus hold no page"]
    lines += [f"  {fault}" for fault in report["first_faults"]]

    # The report holds only the first faults in words.
    num_more = report["faults"] - len(report["first_faults"])
    if num_more > 0:
        lines.append(f"  and {num_more:,} more")

    text = "\n".join(lines)
    if strict:
        raise ValueError(f"{text}\nmend them, or leave out --strict to go on without them")
    say(f"passages: {text}\n  they are left out (--strict would stop here)")
