"""Rerank and answer, three ways, in quality and cost: python -m scaledown.evaluation.pipelines --reranker_model M

A cross-encoder chooses the documents and the generator reads them as text; it chooses them and ScaleDown compresses
them; ScaleDown does both in one pass (paper, table 2). BM25's choice and all documents stand beside. With no data the
shipped checkpoint answers questions of the embedded world, 20 candidates each.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scaledown import cli
from scaledown.config import EMBEDDED, EvaluationConfig, TrainingConfig, positive, require
from scaledown.data.pipeline.trec import Run
from scaledown.data.records import Record, read_records
from scaledown.data.reranking.cross_encoder import Reranker, RerankerConfig
from scaledown.data.world.candidates import NUM_CANDIDATES, ranking_records
from scaledown.evaluation.evaluator import SystemResult, evaluate_system
from scaledown.evaluation.pipelines.pipeline_cost import PipelineFlops, pipeline_flops, reranker_shape
from scaledown.evaluation.ranking.ranking_input import EMBEDDED_SEED
from scaledown.evaluation.ranking.ranking_task import RankingTask, document_ids, of_records
from scaledown.evaluation.ranking.scorers import bm25, cross_encoder, load_scoring_model
from scaledown.evaluation.systems import FULL_TEXT, SCALEDOWN, System, keeping
from scaledown.files import write_json
from scaledown.models.memory import AUTO, by_score
from scaledown.run_information import run_information
from scaledown.training import run_folder
from scaledown.training.devices import DEVICES, resolve_device

DEFAULT_KEPT = 5


@dataclass(frozen=True)
class Pipeline:
    """One way from candidates to an answer.

    Attributes:
        chosen_by: the reranker that chose the documents before the system saw them; None where nothing was chosen.
        records: the questions with the documents that the system gets.
    """

    name: str
    chosen_by: str | None
    records: Sequence[Record]
    system: System


def pipelines(records: Sequence[Record], runs: Mapping[str, Run], num_kept: int, has_threshold: bool) -> list[Pipeline]:
    """The pipelines to compare; those of the cross-encoder only where ``runs`` has its scores."""
    found = []
    if "cross-encoder" in runs:
        best = _best(records, runs["cross-encoder"], num_kept)
        found += [Pipeline("cross-encoder, full text", "cross-encoder", best, FULL_TEXT),
                  Pipeline("cross-encoder, ScaleDown", "cross-encoder", best, SCALEDOWN)]
    found.append(Pipeline("ScaleDown in one pass", None, records, keeping(num_kept)))
    if has_threshold:
        found.append(Pipeline("the same, auto", None, records, keeping(AUTO)))
    return [*found, Pipeline("BM25, ScaleDown", "BM25", _best(records, runs["BM25"], num_kept), SCALEDOWN),
            Pipeline("ScaleDown, all", None, records, SCALEDOWN), Pipeline("full text, all", None, records, FULL_TEXT)]


def _best(records: Sequence[Record], run: Run, num_kept: int) -> list[Record]:
    """The records with their ``num_kept`` best documents, best first."""
    chosen = []
    for record in records:
        scores = [run[record.id][name] for name in document_ids(record)]
        documents = tuple(record.documents[number] for number in by_score(scores)[:num_kept])
        chosen.append(Record(record.id, record.query, documents, record.answer, record.answers))
    return chosen


def rankings(task: RankingTask, reranker: Reranker | None) -> dict[str, Run]:
    """BM25's scores and, where there is one, the cross-encoder's."""
    return {"BM25": bm25(task)} | ({"cross-encoder": cross_encoder(task, reranker)} if reranker else {})


def table(results: Mapping[str, tuple[SystemResult, PipelineFlops]]) -> str:
    """Quality and cost, one line a pipeline."""
    lines = [f"{'':<26}{'exact match':>22}{'token F1':>10}{'prompt':>9}  | GFLOPs: {'rerank':>8}{'compress':>10}"
             f"{'generate':>10}{'total':>9}"]
    for name, (result, flops) in results.items():
        averages = result.averages
        low, high = averages["exact_match_ci95"]
        lines.append(f"{name:<26}{averages['exact_match_avg']:>8.3f} [{low:.3f}, {high:.3f}]"
                     f"{averages['token_f1_avg']:>10.3f}{result.mean_prompt_tokens:>9.1f}  | {'':<7} "
                     + "".join(f"{value / 1e9:>{width}.3f}" for value, width in (
                         (flops.rerank, 8), (flops.compress, 10), (flops.generate, 10), (flops.total, 9))))
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(prog="python -m scaledown.evaluation.pipelines", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=EMBEDDED,
                        help=f"a folder that training wrote, a Hub id, or a name that ships [{EMBEDDED}]")
    parser.add_argument("--data", help="records whose documents are the candidates [the embedded world's]")
    parser.add_argument("--num_candidates", type=int, default=NUM_CANDIDATES,
                        help=f"candidates of a question of the embedded world [{NUM_CANDIDATES}]")
    parser.add_argument("--num_kept", type=int, default=DEFAULT_KEPT,
                        help=f"documents that the generator reads [{DEFAULT_KEPT}]")
    parser.add_argument("--output_file", help="write the figures there, as JSON")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to run [auto]")
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed,
                        help=f"seed of the intervals' resamples [{TrainingConfig.seed}]")
    cli.add_flags(parser, RerankerConfig, reranker_model=None)
    cli.add_flags(parser, EvaluationConfig, but=("timed_queries",), eval_examples=300)
    return parser


def load_records(args: argparse.Namespace, num_records: int) -> list[Record]:
    """The questions with their candidates.

    Raises:
        ValueError: for a count below 1, or a file that cannot be read.
    """
    require(positive(args, "num_candidates", "num_kept"))
    if args.data:
        return read_records(args.data)[:num_records]
    return list(ranking_records(num_records, EMBEDDED_SEED, "eval", args.num_candidates))


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Answer by every pipeline, and compare."""
    args = build_parser().parse_args(argv)
    config = cli.config_from(args, EvaluationConfig)
    output_file = run_folder.output_file(args.output_file)
    records = load_records(args, config.eval_examples)
    reranker = Reranker(cli.config_from(args, RerankerConfig)) if args.reranker_model else None
    device = resolve_device(args.device)
    model = load_scoring_model(args.checkpoint, device)
    print(f"{len(records)} questions; the generator reads {args.num_kept} documents"
          + "; no --reranker_model, so no pipeline with a cross-encoder" * (reranker is None))
    runs = rankings(of_records(records), reranker)
    shape = reranker_shape(reranker.cross_encoder) if reranker else None
    results = {}
    for each in pipelines(records, runs, args.num_kept, model.config.keep_threshold is not None):
        result = evaluate_system(model, each.system, each.records, config, args.seed)
        reads = shape if each.chosen_by == "cross-encoder" else None
        results[each.name] = result, pipeline_flops(model, result, records, each.records, reads)
    print(table(results))
    if output_file:
        write_json(output_file, _report(args, device, results))
        print(f"figures: {output_file}")
    return 0


def _report(args: argparse.Namespace, device: Any,
            results: Mapping[str, tuple[SystemResult, PipelineFlops]]) -> dict[str, Any]:
    return {"pipelines": {name: {**result.summary(), "flops": dataclasses.asdict(flops) | {"total": flops.total}}
                          for name, (result, flops) in results.items()},
            "run": run_information(args.seed, device, sys.argv, vars(args))}


if __name__ == "__main__":
    sys.exit(main())
