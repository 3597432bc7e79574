"""Flags that choose what is ranked, and the task that they mean: records, a BEIR folder, or a user's own files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from scaledown.data.pipeline.trec import read_qrels, read_run
from scaledown.data.records import Record, read_records
from scaledown.data.world.candidates import qrels_of, ranking_records
from scaledown.evaluation.ranking.ranking_task import Collection, RankingTask, collection, of_records, read_texts
from scaledown.settings import positive, require, setting

EMBEDDED_SEED = 4242
"""Seed of the demo world's evaluation questions; calibration takes others."""


@dataclass(frozen=True)
class RankingInput:
    """The queries and documents to rank; their flags are among the data."""

    eval_data: str | None = setting(
        None, "records (JSON or JSONL), whose documents are ranked, or a BEIR folder [the demo world]")
    corpus_path: str | None = setting(
        None, "documents: lines of 'id TAB text', a TSV or CSV with a heading, or BEIR's JSONL")
    queries_file: str | None = setting(None, "their queries, in the same formats")
    qrels_file: str | None = setting(
        None, "relevance, TREC or BEIR [qrels/test.tsv of a BEIR folder; of records, the documents that hold a gold "
        "answer]")
    run_file: str | None = setting(None, "a TREC run whose documents are ranked again, of a corpus [BM25's]")
    judged: bool = setting(False, "rank the documents that the qrels judge, in their order, of a corpus")
    num_candidates: int = setting(20, "documents to rank per query, of a corpus or the demo world")
    eval_examples: int = setting(500, "evaluation questions, the first ones")

    def __post_init__(self) -> None:
        faults = positive(self, "num_candidates", "eval_examples")
        if (self.corpus_path is None) != (self.queries_file is None) or (self.corpus_path and not self.qrels_file):
            faults.append("--corpus_path, --queries_file and --qrels_file go together")
        if self.eval_data and self.corpus_path:
            faults.append("--eval_data and --corpus_path are two ways to say what is ranked; give one")
        if (self.run_file or self.judged) and not self._has_corpus:
            faults.append("--run_file and --judged choose documents of a corpus; give --corpus_path, or a BEIR "
                          "folder as --eval_data")
        if self.run_file and self.judged:
            faults.append("--run_file and --judged are two ways to choose documents; give one")
        # All mistakes are told together.
        require(faults)

    @property
    def _has_corpus(self) -> bool:
        return bool(self.corpus_path) or (self.eval_data is not None and Path(self.eval_data).is_dir())

    def read(self, seed: int = EMBEDDED_SEED) -> tuple[RankingTask, dict[str, dict[str, float]]]:
        """Return the task, and the teacher's scores by query and document if the records have them.

        Raises:
            ValueError: if a file is missing or malformed, or the files do not belong together.
        """
        if self._has_corpus:
            return self._of_corpus(), {}
        if self.eval_data is None:
            records = list(ranking_records(self.eval_examples, seed, "eval", self.num_candidates))
            return of_records(records, qrels_of(records)), {}

        # Without qrels a document of a record is relevant if it holds a gold answer.
        records = read_records(self.eval_data)[:self.eval_examples]
        task = of_records(records, read_qrels(self.qrels_file) if self.qrels_file else None)
        return task, _teacher_scores(records, task)

    def _of_corpus(self) -> RankingTask:
        """Return the task of a corpus: ``--corpus_path`` with its queries and qrels, or a folder in BEIR's layout."""
        if self.corpus_path:
            paths = Path(self.corpus_path), Path(self.queries_file), Path(self.qrels_file)
        else:
            folder = Path(self.eval_data)
            qrels = Path(self.qrels_file) if self.qrels_file else folder / "qrels" / "test.tsv"
            paths = folder / "corpus.jsonl", folder / "queries.jsonl", qrels
        corpus_path, queries_path, qrels_path = paths

        corpus, queries = read_texts(corpus_path), read_texts(queries_path)
        whole = collection(queries, corpus, read_qrels(qrels_path))
        chosen = _first_queries(whole, self.eval_examples)

        # The candidates: a first stage's best, or those that were judged, or BM25's best.
        if self.run_file:
            run = read_run(self.run_file)
            return chosen.task({query: list(scores)[:self.num_candidates] for query, scores in run.items()})
        return chosen.judged() if self.judged else chosen.found_by_bm25(self.num_candidates)


def _first_queries(whole: Collection, num_queries: int) -> Collection:
    queries = dict(list(whole.queries.items())[:num_queries])
    return replace(whole, queries=queries, qrels={query: whole.qrels[query] for query in queries})


def _teacher_scores(records: list[Record], task: RankingTask) -> dict[str, dict[str, float]]:
    ranked = [record for record in records if record.id in task.queries]
    # A teacher that did not score all of them cannot be compared on the same queries.
    if any(record.reranking_scores is None for record in ranked):
        return {}
    return {record.id: dict(zip(task.candidates[record.id], record.reranking_scores, strict=True)) for record in ranked}


def describe(task: RankingTask, args: argparse.Namespace) -> str:
    """Describe the task in one line."""
    source = args.eval_data or args.corpus_path or "the embedded world"
    num_relevant = 0
    for grades in task.qrels.values():
        num_relevant += sum(grade > 0 for grade in grades.values())

    return (f"{source}: {len(task.queries)} queries with {task.num_candidates:.1f} candidates and "
            f"{num_relevant / len(task.queries):.1f} relevant documents each")
