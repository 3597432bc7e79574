"""How well a checkpoint ranks documents: python -m scaledown.evaluation.ranking --checkpoint C --data X.json

The compressor's scores, beside the order given, BM25 and, where there is one, the teacher: nDCG@10, MRR@10 and
recall@k. With no arguments the shipped checkpoint ranks 20 candidates a question of the embedded world.
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
from scaledown.data.pipeline.retrieval import BM25
from scaledown.data.pipeline.trec import Run, require_ids, write_run
from scaledown.data.reranking.__main__ import Reranker, RerankerConfig, score_pairs
from scaledown.evaluation.ranking.ranking_input import RankingInput, describe
from scaledown.evaluation.ranking.ranking_metrics import RankingScores, score_ranking
from scaledown.evaluation.ranking.ranking_task import RankingTask
from scaledown.evaluation.report.results import write_json
from scaledown.models.model import ScaleDownModel
from scaledown.run_information import run_information
from scaledown.training import run_folder
from scaledown.training.devices import DEVICES, dtype_for, resolve_device

QUERIES_AT_ONCE = 4
SCALEDOWN = "scaledown"


def order_given(task: RankingTask) -> Run:
    """The candidates as they came."""
    return {query: {name: -float(rank) for rank, name in enumerate(texts)} for query, texts in task.candidates.items()}


def bm25(task: RankingTask) -> Run:
    """BM25's scores; how rare a word is, is counted over all queries' candidates together."""
    texts = list(dict.fromkeys(text for each in task.candidates.values() for text in each.values()))
    index, run = BM25(texts), {}
    for name, query in tqdm(task.queries.items(), desc="scoring, BM25", unit="query", leave=False):
        score_of = {texts[hit.index]: hit.score for hit in index.search([query], len(texts))[0]}
        run[name] = {document: score_of[text] for document, text in task.candidates[name].items()}
    return run


def cross_encoder(task: RankingTask, reranker: Reranker) -> Run:
    """A cross-encoder's scores."""
    pairs = [(task.queries[query], text) for query, texts in task.candidates.items() for text in texts.values()]
    scores = iter(score_pairs(reranker, pairs))
    return {query: {name: next(scores) for name in texts} for query, texts in task.candidates.items()}


def scaledown(task: RankingTask, model: ScaleDownModel) -> Run:
    """The compressor's scores, in the pass that compresses."""
    names, run = list(task.queries), {}
    with tqdm(total=len(names), desc="scoring, ScaleDown", unit="query", leave=False) as bar:
        for start in range(0, len(names), QUERIES_AT_ONCE):
            batch = names[start:start + QUERIES_AT_ONCE]
            memory = model.compress([task.queries[name] for name in batch],
                                    [list(task.candidates[name].values()) for name in batch])
            for name, scores in zip(batch, memory.scores.tolist(), strict=True):
                # A query with fewer candidates than others has -inf behind them.
                run[name] = dict(zip(task.candidates[name], scores, strict=False))
            bar.update(len(batch))
    return run


def load_scoring_model(checkpoint: str, device: torch.device) -> ScaleDownModel:
    """The model of ``--checkpoint``.

    Raises:
        ValueError: where there is none, or it has no reranking head.
    """
    model = ScaleDownModel.from_pretrained(checkpoint, device=device, dtype=dtype_for(device))
    if not model.config.enable_reranking:
        raise ValueError(f"--checkpoint {checkpoint} has no reranking head; train one with --enable_reranking")
    return model


def table(scores: Mapping[str, RankingScores]) -> str:
    """One line a system, each measure with its interval."""
    measures = list(next(iter(scores.values())).means)
    lines = [f"{'':<12}" + "".join(f"{measure:>24}" for measure in measures)]
    for name, row in scores.items():
        cells = (f"{row.means[measure]:.3f} [{row.ci95[measure][0]:.3f}, {row.ci95[measure][1]:.3f}]"
                 for measure in measures)
        lines.append(f"{name:<12}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=EMBEDDED,
                        help=f"a folder that training wrote, a Hub id, or a name that ships [{EMBEDDED}]")
    cli.add_flags(parser, RankingInput)
    parser.add_argument("--run_out", help="write ScaleDown's ranking there, as a TREC run")
    parser.add_argument("--output_file", help="write the figures there, as JSON")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to run [auto]")
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed,
                        help=f"seed of the intervals' resamples [{TrainingConfig.seed}]")
    cli.add_flags(parser, RerankerConfig, reranker_model=None)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Rank, score and compare."""
    args = build_parser().parse_args(argv)
    output_file = run_folder.output_file(args.output_file)
    given = cli.config_from(args, RankingInput)
    reranker = Reranker(cli.config_from(args, RerankerConfig)) if args.reranker_model else None
    device = resolve_device(args.device)
    model = load_scoring_model(args.checkpoint, device)
    task, teacher = given.read()
    if args.run_out:
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
    return {"systems": {name: row.to_dict() for name, row in scores.items()}, "num_candidates": task.num_candidates,
            "run": run_information(args.seed, device, sys.argv, vars(args))}


if __name__ == "__main__":
    sys.exit(main())
