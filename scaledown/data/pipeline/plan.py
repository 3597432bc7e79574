"""What a run would do and take, from a sample: time, memory and disk by stage, before anything is begun.

Each stage does its work on a small sample, with the models that it would use, and what that took is scaled up. So a
plan also finds out within minutes whether everything that the run needs can be had.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaledown.data.pipeline.corpus import cutting
from scaledown.data.pipeline.corpus.corpus_files import Corpus, PartNotes
from scaledown.data.pipeline.pipeline_config import PipelineConfig
from scaledown.data.pipeline.queries import count_queries
from scaledown.data.pipeline.retrieval.bm25 import BM25
from scaledown.data.pipeline.retrieval.encoders import load_encoder
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.pipeline.stages.preparing import cutter_of, open_corpus
from scaledown.data.pipeline.teacher import load_teacher
from scaledown.data.pipeline.trec import read_run
from scaledown.data.reranking.reranker import Reranker

SAMPLE_PAGES, SAMPLE_PARTS = 1_000, 20
SAMPLE_TEXTS, SAMPLE_PAIRS, SAMPLE_QUESTIONS = 64, 64, 8
LARGEST_SCORES = 4_000_000
BM25_MEMORY = 8.0
"""Memory of building a BM25 index over its size on the disk: the passages' words, three arrays of postings, and the
sorted copies of these. A million passages of 90 words took 4.85 GB for 0.62 GB (``benchmark_retrieval``)."""
RECORD_BYTES = 400
"""Of a record beside its documents."""


@dataclass
class Estimate:
    """What one stage does, and takes on one process with what this machine has."""

    stage: str
    what: str
    seconds: float = 0.0
    memory_bytes: float = 0.0
    disk_bytes: float = 0.0

    def line(self) -> str:
        """One line of the plan."""
        return (f"{self.stage:<11}{self.what:<58}{_duration(self.seconds):>10}"
                f"{_size(self.memory_bytes):>10}{_size(self.disk_bytes):>10}")


@dataclass
class Sample:
    """A sample of the corpus, cut, and what it says of the whole."""

    documents: list[str]
    num_passages: int
    seconds: float

    @property
    def scale(self) -> float:
        """The whole over the sample."""
        return self.num_passages / max(1, len(self.documents))

    @property
    def disk_bytes(self) -> float:
        """Of all passages."""
        return self.scale * sum(len(document.encode()) + 40 for document in self.documents)


def tell_plan(config: PipelineConfig) -> None:
    """Print the plan of a run; nothing is written.

    Raises:
        ValueError: where something that the run needs cannot be had.
    """
    num_queries = count_queries(config.queries)
    corpus = open_corpus(config)
    print(f"plan, estimated from up to {SAMPLE_PAGES:,} pages; times are for one process on this machine")
    print(f"{'stage':<11}{'what':<58}{'time':>10}{'memory':>10}{'disk':>10}")
    estimates = []
    for estimate in _estimates(config, corpus, num_queries):
        if config.reaches(estimate.stage):
            print(estimate.line(), flush=True)
            estimates.append(estimate)
    total = Estimate("together", "", sum(each.seconds for each in estimates),
                     max((each.memory_bytes for each in estimates), default=0),
                     sum(each.disk_bytes for each in estimates))
    print(total.line())
    print(f"records: {config.records.output_file}; work folder: {config.records.work_folder}"
          + " (what is finished in it is not made again)" * config.records.work_folder.exists())


def _estimates(config: PipelineConfig, corpus: Corpus, num_queries: int) -> Iterator[Estimate]:
    yield Estimate("queries", f"{num_queries:,} queries", disk_bytes=100 * num_queries)
    sample = _sample(config, corpus)
    yield Estimate("passages", f"about {sample.num_passages:,} from {corpus.size:,} {corpus.unit}",
                   sample.seconds * sample.scale, 0, sample.disk_bytes)
    top_k, kept = config.retrieval.top_k_retrieval, config.records.top_k_reranking
    if config.retrieval.retriever != "run":
        yield _index(config, sample)
    yield _retrieval(config, sample, num_queries)
    if config.reaches("reranking"):
        pairs = num_queries * top_k
        yield Estimate("reranking", f"{pairs:,} pairs by {config.reranker.reranker_model}",
                       _reranking_seconds(config, sample) * pairs, 0, 9 * pairs + 60 * num_queries)
    if config.reaches("teacher"):
        yield Estimate("teacher", f"{num_queries:,} answers from {kept} documents by {config.teacher.teacher_model}",
                       _teacher_seconds(config, sample) * num_queries, 0, 150 * num_queries)
    document_bytes = sum(len(document.encode()) for document in sample.documents) / max(1, len(sample.documents))
    yield Estimate("records", f"{num_queries:,} records of {kept} documents",
                   disk_bytes=num_queries * (kept * document_bytes + RECORD_BYTES))


def _sample(config: PipelineConfig, corpus: Corpus) -> Sample:
    """Cut pages from the beginnings of parts that are spread over the corpus."""
    step = max(1, len(corpus.parts) // SAMPLE_PARTS)
    parts = corpus.parts[::step][:SAMPLE_PARTS]
    cutter = cutter_of(Context(config, None, None))
    notes, documents, seconds = PartNotes(), [], 0.0
    for part in parts:
        pages = list(itertools.islice(part.pages(notes), SAMPLE_PAGES // len(parts)))
        with _timed() as clock:
            documents += [row["document"] for rows in cutting.cut_pages(pages, cutter) for row in rows]
        seconds += clock[0]
    if not documents:
        raise ValueError(f"{corpus.description}: not one passage in a sample of {notes.num_lines:,} pages")
    return Sample(documents, round(len(documents) * corpus.size / notes.size), seconds)


def _index(config: PipelineConfig, sample: Sample) -> Estimate:
    number, retrieval = sample.num_passages, config.retrieval
    if retrieval.retriever == "bm25":
        with tempfile.TemporaryDirectory() as folder, _timed() as clock:
            BM25(sample.documents).save(Path(folder))
            disk = sum(file.stat().st_size for file in Path(folder).glob("data.*")) * 2 * sample.scale
        return Estimate("index", f"{number:,} passages for bm25", clock[0] * sample.scale, BM25_MEMORY * disk, disk)
    encoder, texts = load_encoder(retrieval), sample.documents[:SAMPLE_TEXTS]
    encoder.documents(texts[:1])
    with _timed() as clock:
        vectors = encoder.documents(texts)
    bytes_each = 2 * encoder.width if retrieval.retriever == "dense" else 8 * vectors.nnz / len(texts)
    return Estimate("index", f"{number:,} passages encoded by {retrieval.model}", clock[0] / len(texts) * number,
                    bytes_each * number * (retrieval.retriever == "splade"), bytes_each * number)


def _retrieval(config: PipelineConfig, sample: Sample, num_queries: int) -> Estimate:
    retrieval, top_k = config.retrieval, config.retrieval.top_k_retrieval
    what, seconds = f"{top_k} passages a query by {retrieval.retriever}", 0.0
    if retrieval.retriever == "run":
        num_found = len(read_run(retrieval.run_file))
        what = f"{num_found:,} queries in {retrieval.run_file}"
    elif retrieval.retriever == "bm25":
        seconds = _search_seconds(sample.num_passages, top_k) * num_queries
    return Estimate("retrieval", what, seconds, 4.0 * sample.num_passages * (retrieval.retriever == "bm25"),
                    num_queries * (60 + 18 * top_k))


def _search_seconds(num_passages: int, top_k: int) -> float:
    """A BM25 search costs what it takes to go over one score a passage, give or take a half."""
    num_scores = min(num_passages, LARGEST_SCORES)
    scores = np.random.default_rng(0).random(num_scores, dtype=np.float32)
    with _timed() as clock:
        np.partition(scores, -min(top_k, num_scores))
    return 2 * clock[0] * num_passages / num_scores


def _reranking_seconds(config: PipelineConfig, sample: Sample) -> float:
    pairs = [("what is it", document) for document in sample.documents[:SAMPLE_PAIRS]]
    reranker = Reranker(config.reranker)
    list(reranker.scores(pairs[:1]))
    with _timed() as clock:
        list(reranker.scores(pairs))
    return clock[0] / len(pairs)


def _teacher_seconds(config: PipelineConfig, sample: Sample) -> float:
    kept = config.records.top_k_reranking
    questions = [("what is it", sample.documents[first:first + kept]) for first in range(SAMPLE_QUESTIONS)]
    teacher = load_teacher(config.teacher)
    with _timed() as clock:
        list(teacher.answers(questions))
    return clock[0] / len(questions)


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Yield a list that holds the seconds spent inside, once they are over."""
    clock, start = [], time.perf_counter()
    yield clock
    clock.append(time.perf_counter() - start)


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _size(num_bytes: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB" if num_bytes else "small"
