"""Measure the recall of BM25, dense vectors and both together, on SQuAD's questions over a corpus.

A passage counts if it states a gold answer; more strictly, if it is also from the article that the question is about.
Passages, vectors and results are kept in the folder, so a second start computes only what has changed.

    python -m lab.recall --source dev-v1.1.json --corpus_path kilt_sample.jsonl --retriever_model minilm
    python -m lab.recall --source squad/ --corpus_path corpus.jsonl --generator_model embedded --eval_examples 200
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from scaledown import cli, hub
from scaledown.config import MINILM, SMOLLM2, EvaluationConfig
from scaledown.data.pipeline.corpus.corpus_files import require_corpus
from scaledown.data.pipeline.pipeline_config import CorpusConfig, PipelineConfig, RecordsConfig
from scaledown.data.pipeline.pipeline_run import RECALL_DEPTHS, places_with_answer, search
from scaledown.data.pipeline.queries import QueriesConfig, Query
from scaledown.data.pipeline.retrieval import RetrievalConfig
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.pipeline.stages.preparing import prepare_queries
from scaledown.data.pipeline.stages.search_results import SearchResults
from scaledown.data.pipeline.teacher import TeacherConfig
from scaledown.data.qa.question import QAQuestion
from scaledown.data.qa.reading import read_questions
from scaledown.data.qa.sources import open_local
from scaledown.data.reranking.cross_encoder import RerankerConfig
from scaledown.data.storage.work_folder import WorkFolder
from scaledown.evaluation.figures.text_tables import console_table
from scaledown.evaluation.metrics import bootstrap_ci95, interval_text
from scaledown.files import disk_faults, whole_file, write_json
from scaledown.processes import Processes

RETRIEVERS = ("bm25", "dense", "hybrid")
MEASURES = [(strictness, depth) for strictness in ("article", "anywhere") for depth in RECALL_DEPTHS]
"""The columns: a gold answer in the first passages of the question's article, or of any."""
QUERIES_FILE, WORK_FOLDER, RESULTS_FILE = "queries.jsonl", "work", "recall.json"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "lab.recall", "--source FILE --corpus_path FILE [--FLAG VALUE ...]")
    parser.add_argument("--source", required=True, metavar="NAME", help="SQuAD's official file, or a folder with it")
    parser.add_argument("--corpus_path", required=True, metavar="FILE", help="the corpus that is searched, with the "
                        "questions' articles in it under their titles")
    parser.add_argument("--retriever_model", default=MINILM, metavar="NAME",
                        help=f"encoder of the dense vectors [{MINILM}]")
    parser.add_argument("--generator_model", default=SMOLLM2, metavar="NAME",
                        help=f"model whose tokenizer counts the 128 tokens of a passage [{SMOLLM2}]")
    parser.add_argument("--eval_examples", type=int, default=1_000, metavar="N", help="questions, at random [1000]")
    parser.add_argument("--output_dir", default="recall", metavar="FOLDER",
                        help=f"folder of all results, the figures in {RESULTS_FILE} [recall]")
    cli.add_seed(parser, "seed of the questions and of the intervals' resamples")
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Search by each retriever, and print the recalls and their paired differences."""
    args = build_parser().parse_args(argv)
    if args.eval_examples < 1:
        raise ValueError(f"--eval_examples must be above 0, got {args.eval_examples}")
    require_corpus(args.corpus_path)
    hub.locate(args.generator_model)
    hub.locate(args.retriever_model)
    source = open_local("squad", "validation", Path(args.source), random.Random(args.seed))
    questions = read_questions(source, args.eval_examples, random.Random(args.seed), Counter())[:args.eval_examples]

    folder = Path(args.output_dir)
    with disk_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _write_queries(folder / QUERIES_FILE, questions)
    found = {retriever: _found(retriever, args, questions) for retriever in RETRIEVERS}

    # Only now: the comparison loads torch, which --help and mistakes do not wait for.
    from scaledown.evaluation.report.paired import mcnemar_p

    figures = {"recall": {name: _with_interval(values, args.seed) for name, values in found.items()}, "differences": {}}
    for other, name in combinations(RETRIEVERS, 2):
        figures["differences"][f"{name} - {other}"] = _difference(found[name], found[other], args.seed, mcnemar_p)
    write_json(folder / RESULTS_FILE, {"num_questions": len(next(iter(found.values()))), **figures})
    print(_tables(figures))
    print(f"results: {folder / RESULTS_FILE}")
    return 0


def _write_queries(path: Path, questions: Sequence[QAQuestion]) -> None:
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        for question in questions:
            file.write(json.dumps({"id": question.id, "question": question.query, "answers": question.answers}) + "\n")


def _found(retriever: str, args: argparse.Namespace, questions: Sequence[QAQuestion]) -> np.ndarray:
    """Search by one retriever; return 1 or 0 by question and measure (questions, measures)."""
    print(f"\n{retriever}:")
    folder = Path(args.output_dir)
    model = None if retriever == "bm25" else args.retriever_model
    config = PipelineConfig(
        QueriesConfig(queries_file=str(folder / QUERIES_FILE)),
        CorpusConfig(args.corpus_path, generator_model=args.generator_model),
        RetrievalConfig(retriever, model, top_k_retrieval=max(RECALL_DEPTHS)), RerankerConfig(), TeacherConfig(),
        RecordsConfig(work_dir=str(folder / WORK_FOLDER), last_stage="retrieval"))

    # One work folder for all retrievers: the passages are cut once, and hybrid searches the indexes of the others.
    work = WorkFolder(config.records.work_folder, Processes())
    try:
        context = Context(config, work, Processes())
        queries = prepare_queries(context)
        results = search(context, queries)
    finally:
        work.close()

    title_of = {question.id: question.paragraphs[0].title for question in questions}
    return np.array([_is_found(query, results, title_of[query.id]) for query in queries], dtype=float)


def _is_found(query: Query, results: SearchResults, title: str) -> list[bool]:
    """Return for each of ``MEASURES`` whether a passage that counts is found."""
    places, numbers, store = places_with_answer(query, results), results.retrieved(query), results.documents.store
    best = {"anywhere": next(iter(places), None),
            "article": next((place for place in places if store.title(numbers[place]) == title), None)}
    return [best[strictness] is not None and best[strictness] < depth for strictness, depth in MEASURES]


def _with_interval(values: np.ndarray, seed: int) -> dict[str, Any]:
    """Return the means of the columns of ``values`` (questions, measures), and their intervals."""
    ci95 = bootstrap_ci95(values, EvaluationConfig.bootstrap_resamples, seed)
    return {"means": values.mean(axis=0).tolist(), "ci95": ci95.tolist()}


def _difference(values: np.ndarray, others: np.ndarray, seed: int, mcnemar_p: Any) -> dict[str, Any]:
    """Compare question by question: the differences, their intervals, and McNemar's exact test."""
    num_better, num_worse = (values > others).sum(axis=0), (values < others).sum(axis=0)
    p_values = [mcnemar_p(int(better), int(worse)) for better, worse in zip(num_better, num_worse, strict=True)]
    return _with_interval(values - others, seed) | {"p_values": p_values}


def _tables(figures: Mapping[str, Any]) -> str:
    """Return the recalls and the differences as two tables."""
    header = [f"{strictness} @{depth}" for strictness, depth in MEASURES]
    rows = []
    for name, system in figures["recall"].items():
        cells = zip(system["means"], system["ci95"], strict=True)
        rows.append([name, *(f"{mean:.3f}\n{interval_text(ends)}" for mean, ends in cells)])

    paired_rows = []
    for name, pair in figures["differences"].items():
        cells = zip(pair["means"], pair["ci95"], pair["p_values"], strict=True)
        paired_rows.append([name, *(f"{mean:+.3f}\n{interval_text(ends)}\np {p:.2g}" for mean, ends, p in cells)])
    return "\n\n".join([console_table(["recall [95%]", *header], rows),
                        console_table(["difference", *header], paired_rows)])


if __name__ == "__main__":
    sys.exit(main())
