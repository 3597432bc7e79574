"""Measure the recall of bm25, dense and hybrid retrieval.

SQuAD's questions are searched in a corpus. A passage counts if it states a gold answer; more strictly, if it is
also from the article that the question is about. Passages, vectors and results are kept in the folder, so a second
start computes only what has changed.

    python -m lab.recall --source dev-v1.1.json --corpus_path kilt_sample.jsonl --retriever_model minilm
    python -m lab.recall --source squad/ --corpus_path corpus.jsonl --generator_model embedded --eval_examples 200
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scaledown import cli, hub
from scaledown.config import MINILM, SMOLLM2
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
from scaledown.files import disk_faults, whole_file, write_json
from scaledown.processes import Processes

RETRIEVERS = ("bm25", "dense", "hybrid")
MEASURES = [*(("article", depth) for depth in RECALL_DEPTHS), *(("anywhere", depth) for depth in RECALL_DEPTHS)]
"""The columns: a gold answer in the first passages of the question's article, or of any."""
QUERIES_FILE, WORK_FOLDER, RESULTS_FILE = "queries.jsonl", "work", "recall.json"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    # Settings of the pipeline that are not offered here keep their defaults.
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
    from lab.recall.recall_figures import compare_all, tables

    figures = compare_all(found, args.seed)
    write_json(folder / RESULTS_FILE, figures)
    print(tables(figures, [f"{strictness} @{depth}" for strictness, depth in MEASURES]))
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


if __name__ == "__main__":
    sys.exit(main())
