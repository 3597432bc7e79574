"""The first stages: queries, passages and the index, each kept whole under the fingerprint of what it is made of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from scaledown.data.passages import token_counter
from scaledown.data.pipeline import query_rows
from scaledown.data.pipeline.corpus import corpus_files, cutting
from scaledown.data.pipeline.corpus.passage_store import PassageStore
from scaledown.data.pipeline.pipeline_config import PipelineConfig
from scaledown.data.pipeline.queries import Query, ReadQueries, chosen_queries, read_ms_marco, read_queries_file
from scaledown.data.pipeline.retrieval import bm25, encoders, indexing
from scaledown.data.pipeline.stages import synthetic_corpus
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.storage import fingerprints
from scaledown.data.storage.work_folder import Stage
from scaledown.files import WHAT_TO_DO, whole_file

QUERIES_FILE = "queries.jsonl"
SHOWN_EXAMPLES = 5


def prepare_queries(context: Context) -> list[Query]:
    """Read the queries, or find them in the work folder.

    Raises:
        ValueError: where they cannot be had.
    """
    config = context.config.queries
    settings = {"max_queries": config.max_queries, "seed": config.seed}
    if config.queries_file is not None:
        settings |= {"queries_file": fingerprints.of_files([Path(config.queries_file)]), "reading": query_rows.READING}
    elif config.num_synthetic_queries is not None:
        settings["num_synthetic_queries"] = config.num_synthetic_queries
    else:
        settings["ms_marco_split"] = config.ms_marco_split
    stage = context.stage("queries", settings)
    path = stage.folder / QUERIES_FILE
    if not context.work.is_finished(stage):
        with context.spending(stage):
            if context.processes.is_main:
                read = _read_queries(context)
                queries = chosen_queries(read, config)
                with whole_file(path, WHAT_TO_DO) as draft:
                    draft.write_text("".join(json.dumps(dataclasses.asdict(query), ensure_ascii=False) + "\n"
                                             for query in queries), encoding="utf-8")
                report = {"left_out": dict(read.left_out), "examples": read.examples}
            else:
                report = {}
        context.work.finish(stage, report)
    queries = _kept_queries(path)
    report = context.work.report(stage)
    context.say(f"queries: {len(queries):,}, {sum(bool(query.answers) for query in queries):,} with gold answers"
                + "".join(f"; {count:,} left out: {reason}" for reason, count in report.get("left_out", {}).items()))
    for example in report.get("examples", [])[:SHOWN_EXAMPLES]:
        context.say(f"  left out: {example}")
    return queries


def _kept_queries(path: Path) -> list[Query]:
    try:
        with path.open(encoding="utf-8") as lines:
            return [Query(**values | {"answers": tuple(values["answers"])}) for values in map(json.loads, lines)]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise ValueError(f"{path}: damaged ({fault}); delete the folder {path.parent}, and run the same command "
                         "again") from None


def _read_queries(context: Context) -> ReadQueries:
    config = context.config.queries
    if config.queries_file is not None:
        return read_queries_file(config.queries_file)
    if config.num_synthetic_queries is not None:
        return ReadQueries(synthetic_corpus.synthetic_queries(config.num_synthetic_queries, config.seed)[0])
    return read_ms_marco(config.ms_marco_split)


def open_corpus(config: PipelineConfig) -> corpus_files.Corpus:
    """The corpus that the settings name.

    Raises:
        ValueError: where it cannot be had.
    """
    if (number := config.queries.num_synthetic_queries) is not None:
        pages = synthetic_corpus.synthetic_queries(number, config.queries.seed)[1]
        return corpus_files.of_pages("the embedded world", pages, fingerprints.of_values([number, config.queries.seed]))
    return corpus_files.open_corpus(config.corpus.corpus_path, config.corpus.max_corpus_size,
                                    config.corpus.corpus_config, config.corpus.corpus_split)


def cutter_of(context: Context) -> cutting.Cutter:
    """What cuts pages into passages, by tokens or by words."""
    config, count_tokens = context.config.corpus, token_counter(context.tokenizer)
    if config.passage_words is not None:
        return cutting.word_cutter(count_tokens, config.passage_words)
    return cutting.token_cutter(count_tokens, config.passage_tokens)


def cut_passages(context: Context) -> tuple[Stage, PassageStore]:
    """Cut the corpus into passages, or find them in the work folder.

    Raises:
        ValueError: where the corpus cannot be had or holds no text, or a line of it is damaged with ``--strict``.
    """
    config, corpus = context.config.corpus, open_corpus(context.config)
    by_words = config.passage_words is not None
    stage = context.stage("passages", {
        "corpus": corpus.fingerprint, "max_corpus_size": config.max_corpus_size,
        "passage_words": config.passage_words, "passage_tokens": None if by_words else config.passage_tokens,
        "tokenizer": _tokenizer_fingerprint(context)})
    if not context.work.is_finished(stage):
        context.say(f"passages: cutting {corpus.description} ({corpus.size:,} {corpus.unit}) into {stage.folder}")
        with context.spending(stage):
            cutting.cut_corpus(corpus, cutter_of(context), stage.folder, context.processes)
            context.processes.wait()
            report = cutting.report_of(stage.folder, corpus)
        context.work.finish(stage, report)
    report = context.work.report(stage)
    # Work folders of older versions have reports without these two.
    store, num_blank = PassageStore(stage.folder, report.get("parts")), report.get("blank", 0)
    context.say(f"passages: {len(store):,} of {report['lines']:,} pages, "
                f"{store.total_tokens() / max(1, len(store)):.0f} tokens on average"
                + f"; {num_blank:,} pages hold no text" * bool(num_blank))
    if report["faults"]:
        _tell_faults(report, config.strict, context.say)
    if not len(store):
        raise ValueError(f"{corpus.description}: not one passage in it; {corpus_files.EXPECTED}")
    return stage, store


def build_index(context: Context, passages: Stage, store: PassageStore) -> Stage:
    """Build the index that the retriever searches, or find it in the work folder.

    Raises:
        ValueError: where the encoder or the index's place cannot be had.
    """
    config = context.config.retrieval
    settings = {"retriever": config.retriever, "faiss_index": config.faiss_index, "index_url": config.index_url,
                "model": config.model and fingerprints.of_model(config.model, config.retriever_revision,
                                                                encoders.WHAT_WORKS)}
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
    backend = getattr(context.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return fingerprints.of_model(context.config.generator, context.config.corpus.generator_revision)
    return hashlib.sha256(backend.to_str().encode()).hexdigest()[:12]


def _tell_faults(report: dict, strict: bool, say: Callable[[str], None]) -> None:
    shown = [f"  {fault}" for fault in report["first_faults"]]
    if (rest := report["faults"] - len(shown)) > 0:
        shown.append(f"  and {rest:,} more")
    text = "\n".join([f"{report['faults']:,} of {report['lines']:,} lines of the corpus hold no page", *shown])
    if strict:
        raise ValueError(f"{text}\nmend them, or leave out --strict to go on without them")
    say(f"passages: {text}\n  they are left out (--strict would stop here)")
