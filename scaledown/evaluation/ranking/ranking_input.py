"""Flags that say what is ranked, and the task that they mean: records, a BEIR folder, or files of one's own."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from scaledown.config import positive, require, setting
from scaledown.data.pipeline.trec import read_qrels, read_run
from scaledown.data.records import Record, read_records
from scaledown.data.world.candidates import qrels_of, ranking_records
from scaledown.evaluation.ranking.ranking_task import Collection, RankingTask, collection, of_records, read_texts

EMBEDDED_SEED = 4242
"""Of the embedded world's evaluation questions; calibration takes others."""


@dataclass(frozen=True)
class RankingInput:
    """What is ranked."""

    data: str | None = setting(
        None, "records (JSON or JSONL), whose documents are ranked, or a BEIR folder [the embedded world]")
    corpus: str | None = setting(
        None, "documents: lines of 'id TAB text', a TSV or CSV with a heading, or BEIR's JSONL")
    queries: str | None = setting(None, "queries: lines of 'id TAB text', a TSV or CSV with a heading, or BEIR's JSONL")
    qrels: str | None = setting(
        None, "relevance, TREC or BEIR [qrels/test.tsv of a BEIR folder; of records, the documents that hold a gold "
        "answer]")
    run: str | None = setting(None, "a TREC run whose documents are ranked again, of a corpus [BM25's]")
    judged: bool = setting(False, "rank the documents that the qrels judge, in their order, of a corpus")
    num_candidates: int = setting(20, "documents a query that are ranked, of a corpus or the embedded world")
    num_queries: int = setting(500, "queries, the first ones")

    def __post_init__(self) -> None:
        faults = positive(self, "num_candidates", "num_queries")
        if (self.corpus is None) != (self.queries is None) or (self.corpus and not self.qrels):
            faults.append("--corpus, --queries and --qrels go together")
        if self.data and self.corpus:
            faults.append("--data and --corpus are two ways to say what is ranked; give one")
        if (self.run or self.judged) and not self._has_corpus:
            faults.append("--run and --judged choose documents of a corpus; give --corpus or a BEIR folder as --data")
        if self.run and self.judged:
            faults.append("--run and --judged are two ways to choose documents; give one")
        require(faults)

    @property
    def _has_corpus(self) -> bool:
        return bool(self.corpus) or (self.data is not None and Path(self.data).is_dir())

    def read(self, seed: int = EMBEDDED_SEED) -> tuple[RankingTask, dict[str, dict[str, float]]]:
        """The task, and the teacher's scores by query and document where records have them.

        Raises:
            ValueError: where a file is missing or malformed, or the files do not belong together.
        """
        if self._has_corpus:
            return self._of_corpus(), {}
        if self.data is None:
            records = list(ranking_records(self.num_queries, seed, "eval", self.num_candidates))
            return of_records(records, qrels_of(records)), {}
        records = read_records(self.data)[:self.num_queries]
        task = of_records(records, read_qrels(self.qrels) if self.qrels else None)
        return task, _teacher_scores(records, task)

    def _of_corpus(self) -> RankingTask:
        if self.corpus:
            paths = Path(self.corpus), Path(self.queries), Path(self.qrels)
        else:
            folder = Path(self.data)
            qrels = Path(self.qrels) if self.qrels else folder / "qrels" / "test.tsv"
            paths = folder / "corpus.jsonl", folder / "queries.jsonl", qrels
        corpus, queries = read_texts(paths[0]), read_texts(paths[1])
        found = _first(collection(queries, corpus, read_qrels(paths[2])), self.num_queries)
        if self.run:
            run = read_run(self.run)
            return found.task({query: list(scores)[:self.num_candidates] for query, scores in run.items()})
        return found.judged() if self.judged else found.found_by_bm25(self.num_candidates)


def _first(found: Collection, num_queries: int) -> Collection:
    queries = dict(list(found.queries.items())[:num_queries])
    return replace(found, queries=queries, qrels={query: found.qrels[query] for query in queries})


def _teacher_scores(records: list[Record], task: RankingTask) -> dict[str, dict[str, float]]:
    kept = [record for record in records if record.id in task.queries]
    if any(record.reranking_scores is None for record in kept):
        return {}
    return {record.id: dict(zip(task.candidates[record.id], record.reranking_scores, strict=True)) for record in kept}


def describe(task: RankingTask, args: argparse.Namespace) -> str:
    """What is ranked, in a line."""
    source = args.data or args.corpus or "the embedded world"
    relevant = sum(grade > 0 for grades in task.qrels.values() for grade in grades.values())
    return (f"{source}: {len(task.queries)} queries with {task.num_candidates:.1f} candidates and "
            f"{relevant / len(task.queries):.1f} relevant documents each")
