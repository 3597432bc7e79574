"""Measure how well a checkpoint ranks documents: python -m scaledown.evaluation.ranking --checkpoint C --data X.json

nDCG@10, MRR@10 and recall@k of the compressor's scores, beside the order given, BM25 and the teacher, if there is one.
Without arguments the shipped checkpoint ranks 20 candidates per question of the embedded world.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm

from scaledown import cli
from scaledown.config import EMBEDDED, EvaluationConfig, TrainingConfig
from scaledown.data.ranking_task import RankingTask
from scaledown.data.reranking import Reranker, RerankerConfig, score_pairs
from scaledown.data.retrieval import BM25
from scaledown.data.trec import Run, require_ids, write_run
from scaledown.evaluation.ranking_input import RankingInput, describe
from scaledown.evaluation.ranking_metrics import RankingScores, score_ranking
from scaledown.evaluation.report import write_json
from scaledown.evaluation.run_information import run_information
from scaledown.models.model import ScaleDownModel
from scaledown.training import run_folder
from scaledown.training.devices import DEVICES, dtype_for, resolve_device

QUERIES_AT_ONCE = 4
SCALEDOWN = "scaledown"


def order_given(task: RankingTask) -> Run:
    """Return scores that keep the candidates in the order given."""
    run = {}
    for query, texts in task.candidates.items():
        run[query] = {name: -float(rank) for rank, name in enumerate(texts)}  # higher scores rank first
    return run


def bm25(task: RankingTask) -> Run:
    """Return BM25's scores, with word frequencies counted over the candidates of all queries together."""
    candidate_texts: dict[str, None] = {}
    for candidates in task.candidates.values():
        candidate_texts |= dict.fromkeys(candidates.values())
    texts = list(candidate_texts)  # each once, in order

    index, run = BM25(texts), {}
    for name, query in tqdm(task.queries.items(), desc="scoring, BM25", unit="query", leave=False):
        # Of the whole index, from which the query's own candidates are picked.
        score_of = {texts[hit.index]: hit.score for hit in index.search([query], len(texts))[0]}
        run[name] = {document: score_of[text] for document, text in task.candidates[name].items()}
    return run


def cross_encoder(task: RankingTask, reranker: Reranker) -> Run:
    """Return a cross-encoder's scores."""
    pairs = []
    for query, texts in task.candidates.items():
        pairs += [(task.queries[query], text) for text in texts.values()]

    # All pairs in one call, so that the reranker can batch them as it likes; scores come in the pairs' order.
    scores = iter(score_pairs(reranker, pairs))
    run = {}
    for query, texts in task.candidates.items():
        run[query] = {name: next(scores) for name in texts}
    return run


def scaledown(task: RankingTask, model: ScaleDownModel) -> Run:
    """Return the compressor's scores, from the pass that compresses."""
    names, run = list(task.queries), {}
    with tqdm(total=len(names), desc="scoring, ScaleDown", unit="query", leave=False) as bar:
        for start in range(0, len(names), QUERIES_AT_ONCE):
            batch = names[start:start + QUERIES_AT_ONCE]
            memory = model.compress([task.queries[name] for name in batch],
                                    [list(task.candidates[name].values()) for name in batch])
            for name, scores in zip(batch, memory.scores.tolist(), strict=True):  # scores (B, K)
                # A query with fewer candidates than others in its batch is padded with -inf.
                run[name] = dict(zip(task.candidates[name], scores, strict=False))
            bar.update(len(batch))
    return run


def load_scoring_model(checkpoint: str, device: torch.device) -> ScaleDownModel:
    """Load the model of ``--checkpoint``.

    Raises:
        ValueError: if it cannot be loaded or has no reranking head.
    """
    model = ScaleDownModel.from_pretrained(checkpoint, device=device, dtype=dtype_for(device))
    if not model.config.enable_reranking:
        raise ValueError(f"--checkpoint {checkpoint} has no reranking head; train one with --enable_reranking")
    return model


def table(scores: Mapping[str, RankingScores]) -> str:
    """Return one line per system, each measure with its interval."""
    measures = list(next(iter(scores.values())).means)  # the same of every system
    lines = [f"{'':<12}" + "".join(f"{measure:>24}" for measure in measures)]

    for name, system in scores.items():
        cells = []
        for measure in measures:
            low, high = system.ci95[measure]
            cells.append(f"{system.means[measure]:.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"{name:<12}" + "".join(f"{cell:>24}" for cell in cells))

    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=EMBEDDED,
                        help=f"a folder that training wrote, a Hub id, or a name that ships [{EMBEDDED}]")
    cli.add_flags(parser, RankingInput)  # which queries and documents
    parser.add_argument("--run_out", help="write ScaleDown's ranking there, as a TREC run")
    parser.add_argument("--output_file", help="write the figures there, as JSON")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="device to run on [auto]")
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed,
                        help=f"seed of the intervals' resamples [{TrainingConfig.seed}]")
    cli.add_flags(parser, RerankerConfig, reranker_model=None)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Rank the documents with every system, score the rankings and compare them."""
    args = build_parser().parse_args(argv)
    output_file = run_folder.output_file(args.output_file)
    given = cli.config_from(args, RankingInput)

    # Models first: one that cannot be loaded is reported before the data is read.
    reranker = Reranker(cli.config_from(args, RerankerConfig)) if args.reranker_model else None
    device = resolve_device(args.device)
    model = load_scoring_model(args.checkpoint, device)
    task, teacher = given.read()
    if args.run_out:
        # Before the work: ids in a TREC file have no spaces.
        require_ids(itertools.chain(task.queries, *task.candidates.values()))
    print(describe(task, args))

    runs = {"order given": order_given(task), "BM25": bm25(task)}
    if reranker or teacher:
        runs["teacher"] = cross_encoder(task, reranker) if reranker else teacher
    runs[SCALEDOWN] = scaledown(task, model)
    scores = {name: score_ranking(task.qrels, run, EvaluationConfig.bootstrap_resamples, args.seed)
              for name, run in runs.items()}
    print(table(scores))

    if output_file:
        write_json(output_file, _report(args, device, task, scores))
        print(f"figures: {output_file}")
    if args.run_out:
        write_run(args.run_out, runs[SCALEDOWN])
        print(f"run: {args.run_out}")
    return 0


def _report(args: argparse.Namespace, device: Any, task: RankingTask,
            scores: Mapping[str, RankingScores]) -> dict[str, Any]:
    return {"systems": {name: system.to_dict() for name, system in scores.items()},
            "num_candidates": task.num_candidates, "run": run_information(args.seed, device, sys.argv, vars(args))}


if __name__ == "__main__":
    sys.exit(main())
