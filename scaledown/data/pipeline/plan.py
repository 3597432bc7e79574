"""The plan of a run: time, memory and disk by stage, estimated from a sample before the run starts.

Each stage does its work on a small sample, with the models that it would use, and the cost is scaled up. So a plan
also shows within minutes whether everything that the run needs is there.
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
from scaledown.data.pipeline.retrieval import RetrievalConfig
from scaledown.data.pipeline.retrieval.bm25 import BM25
from scaledown.data.pipeline.retrieval.vectors import load_encoder
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.pipeline.stages.preparing import corpus_of, cutter_of
from scaledown.data.pipeline.teacher import load_teacher
from scaledown.data.pipeline.trec import read_run
from scaledown.data.reranking.cross_encoder import Reranker

SAMPLE_PAGES, SAMPLE_PARTS = 1_000, 20
SAMPLE_TEXTS, SAMPLE_PAIRS, SAMPLE_QUESTIONS = 64, 64, 8
SAMPLE_QUERY = "what is it"
LARGEST_SCORES = 4_000_000
BM25_MEMORY = 8.0
"""Memory of building a BM25 index over its size on the disk: the passages' words, three arrays of postings, and the
sorted copies of these. A million passages of 90 words took 4.85 GB for 0.62 GB (``benchmark_retrieval``)."""
RECORD_BYTES = 400
"""Size of a record without its documents."""


@dataclass
class Estimate:
    """The work of one stage, and its cost in one process on this machine."""

    stage: str
    what: str
    seconds: float = 0.0
    memory_bytes: float = 0.0
    disk_bytes: float = 0.0

    def line(self) -> str:
        """Return one line of the plan."""
        return (f"{self.stage:<11}{self.what:<58}{_duration(self.seconds):>10}"
                f"{_size(self.memory_bytes):>10}{_size(self.disk_bytes):>10}")


@dataclass
class Sample:
    """The passages of a sample of the corpus, and the number of passages in the whole.

    Attributes:
        documents: the sample's passages.
        num_passages: the estimate for the whole corpus.
        seconds: time that cutting the sample took.
    """

    documents: list[str]
    num_passages: int
    seconds: float

    @property
    def scale(self) -> float:
        """The size of the whole over that of the sample."""
        return self.num_passages / max(1, len(self.documents))

    @property
    def num_bytes(self) -> int:
        """The size of the sample's documents in UTF-8."""
        return sum(len(document.encode()) for document in self.documents)

    @property
    def disk_bytes(self) -> float:
        """The size of all passages on the disk, each with 40 bytes of id, title and numbers."""
        return self.scale * (self.num_bytes + 40 * len(self.documents))


def tell_plan(config: PipelineConfig) -> None:
    """Print the plan of a run, and write nothing.

    Raises:
        ValueError: if something that the run needs is not there.
    """
    num_queries = count_queries(config.queries)
    corpus = corpus_of(config)
    print(f"plan, estimated from up to {SAMPLE_PAGES:,} pages; times are for one process on this machine")
    print(f"{'stage':<11}{'what':<58}{'time':>10}{'memory':>10}{'disk':>10}")

    # Each line as soon as it is known: a stage's sample may take a minute.
    estimates = []
    for estimate in _estimates(config, corpus, num_queries):
        if config.reaches(estimate.stage):
            print(estimate.line(), flush=True)
            estimates.append(estimate)

    # Stages run one after another: their times and files add up, while the largest one decides on the memory.
    total = Estimate("together", "", sum(estimate.seconds for estimate in estimates),
                     max((estimate.memory_bytes for estimate in estimates), default=0),
                     sum(estimate.disk_bytes for estimate in estimates))
    print(total.line())

    places = f"records: {config.records.output_file}; work folder: {config.records.work_folder}"
    if config.records.work_folder.exists():
        places += " (what is finished in it is not made again)"
    print(places)


def _estimates(config: PipelineConfig, corpus: Corpus, num_queries: int) -> Iterator[Estimate]:
    """Yield the stages' estimates in their order; the sizes of their lines on the disk are typical ones."""
    yield Estimate("queries", f"{num_queries:,} queries", disk_bytes=100 * num_queries)

    sample = _sample(config, corpus)
    yield Estimate("passages", f"about {sample.num_passages:,} from {corpus.size:,} {corpus.unit}",
                   sample.seconds * sample.scale, 0, sample.disk_bytes)

    if config.retrieval.retriever != "run":
        for part in config.retrieval.parts:
            yield _index(part, sample)
    yield _retrieval(config, sample, num_queries)

    if config.reaches("reranking"):
        num_pairs = num_queries * config.retrieval.top_k_retrieval
        yield Estimate("reranking", f"{num_pairs:,} pairs by {config.reranker.reranker_model}",
                       _reranking_seconds(config, sample) * num_pairs, 0, 9 * num_pairs + 60 * num_queries)

    num_documents = config.records.top_k_reranking
    if config.reaches("teacher"):
        yield Estimate("teacher",
                       f"{num_queries:,} answers from {num_documents} documents by {config.teacher.teacher_model}",
                       _teacher_seconds(config, sample) * num_queries, 0, 150 * num_queries)

    # Records hold their documents' texts, however many of them share one.
    document_bytes = sample.num_bytes / max(1, len(sample.documents))
    yield Estimate("records", f"{num_queries:,} records of {num_documents} documents",
                   disk_bytes=num_queries * (num_documents * document_bytes + RECORD_BYTES))


def _sample(config: PipelineConfig, corpus: Corpus) -> Sample:
    """Cut pages from the beginnings of parts that are spread over the corpus."""
    step = max(1, len(corpus.parts) // SAMPLE_PARTS)
    parts = corpus.parts[::step][:SAMPLE_PARTS]
    cutter = cutter_of(Context(config, None, None))  # which reads the settings and the tokenizer alone

    notes, documents, seconds = PartNotes(), [], 0.0
    for part in parts:
        # Cutting is what takes time: the pages are read outside the clock.
        pages = list(itertools.islice(part.pages(notes), SAMPLE_PAGES // len(parts)))
        with _timed() as clock:
            for passages in cutting.cut_pages(pages, cutter):
                documents += [passage["document"] for passage in passages]
        seconds += clock[0]
    if not documents:
        raise ValueError(f"{corpus.description}: not one passage in a sample of {notes.num_lines:,} pages")

    # Passages of the whole to those of the sample are as the corpus' size to what was read of it, in its unit.
    return Sample(documents, round(len(documents) * corpus.size / notes.size), seconds)


def _index(retrieval: RetrievalConfig, sample: Sample) -> Estimate:
    num_passages = sample.num_passages
    if retrieval.retriever == "bm25":
        with tempfile.TemporaryDirectory() as folder, _timed() as clock:
            BM25(sample.documents).save(Path(folder))
            weight_bytes = sum(file.stat().st_size for file in Path(folder).glob("data.*"))
        # Each weight has its passage's number beside it, of equal size. The vocabulary hardly grows with the corpus.
        disk = 2 * weight_bytes * sample.scale
        return Estimate("index", f"{num_passages:,} passages for bm25", clock[0] * sample.scale, BM25_MEMORY * disk,
                        disk)

    # The first text warms the encoder up.
    encoder, texts = load_encoder(retrieval), sample.documents[:SAMPLE_TEXTS]
    encoder.documents(texts[:1])
    with _timed() as clock:
        vectors = encoder.documents(texts)

    # Dense vectors are fp16 on the disk, and memory-mapped. Sparse ones have 8 bytes for each weight and its word, and
    # are searched in memory.
    is_dense = retrieval.retriever == "dense"
    bytes_a_passage = 2 * encoder.width if is_dense else 8 * vectors.nnz / len(texts)
    disk = bytes_a_passage * num_passages
    return Estimate("index", f"{num_passages:,} passages encoded by {retrieval.model}",
                    clock[0] / len(texts) * num_passages, disk if retrieval.retriever == "splade" else 0, disk)


def _retrieval(config: PipelineConfig, sample: Sample, num_queries: int) -> Estimate:
    retrieval, top_k = config.retrieval, config.retrieval.top_k_retrieval
    what, seconds, memory = f"{top_k} passages a query by {retrieval.retriever}", 0.0, 0.0
    if retrieval.retriever == "run":
        what = f"{len(read_run(retrieval.run_file)):,} queries in {retrieval.run_file}"
    elif any(part.retriever == "bm25" for part in retrieval.parts):
        # The search in vectors has no estimate, alone or beside BM25's.
        seconds = _search_seconds(sample.num_passages, top_k) * num_queries
        memory = 4.0 * sample.num_passages  # one float32 score a passage
    return Estimate("retrieval", what, seconds, memory, num_queries * (60 + 18 * top_k))


def _search_seconds(num_passages: int, top_k: int) -> float:
    """Return the time of a BM25 search: that of going over one score a passage, give or take a half."""
    # Measured on an array of limited size; the rest by proportion.
    num_scores = min(num_passages, LARGEST_SCORES)
    scores = np.random.default_rng(0).random(num_scores, dtype=np.float32)
    with _timed() as clock:
        np.partition(scores, -min(top_k, num_scores))
    return 2 * clock[0] * num_passages / num_scores


def _reranking_seconds(config: PipelineConfig, sample: Sample) -> float:
    """Return the time of one pair."""
    pairs = [(SAMPLE_QUERY, document) for document in sample.documents[:SAMPLE_PAIRS]]
    reranker = Reranker(config.reranker)
    list(reranker.scores(pairs[:1]))  # warms up
    with _timed() as clock:
        list(reranker.scores(pairs))
    return clock[0] / len(pairs)


def _teacher_seconds(config: PipelineConfig, sample: Sample) -> float:
    """Return the time of one answer."""
    num_documents = config.records.top_k_reranking
    questions = [(SAMPLE_QUERY, sample.documents[start:start + num_documents]) for start in range(SAMPLE_QUESTIONS)]
    teacher = load_teacher(config.teacher)
    with _timed() as clock:
        list(teacher.answers(questions))
    return clock[0] / len(questions)


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Yield a list to which the seconds spent inside are appended at the end."""
    clock, start = [], time.perf_counter()
    yield clock
    clock.append(time.perf_counter() - start)


def _duration(seconds: float) -> str:
    """Return the seconds in the largest unit of which there are at least two: 90 min, not 1.5 h."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _size(num_bytes: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB" if num_bytes else "small"
