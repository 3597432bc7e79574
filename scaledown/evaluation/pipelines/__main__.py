"""Compare three ways to rerank and answer: python -m scaledown.evaluation.pipelines --reranker_model M

Quality and cost if a cross-encoder chooses the documents and the generator reads them as text; if it chooses them and
ScaleDown compresses them; and if ScaleDown does both in one pass (paper, table 2). For comparison BM25 chooses, and all
documents are read. Without data the shipped checkpoint answers questions of the embedded world, 20 candidates each.
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
from scaledown.data.reranking.reranker import Reranker, RerankerConfig
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
        chosen_by: the reranker that chose the documents before the system saw them; None if it sees all of them.
        records: the questions with the documents that the system gets.
    """

    name: str
    chosen_by: str | None
    records: Sequence[Record]
    system: System


def pipelines(records: Sequence[Record], runs: Mapping[str, Run], num_kept: int, has_threshold: bool) -> list[Pipeline]:
    """Return the pipelines to compare; those of the cross-encoder only if ``runs`` has its scores."""
    compared = []
    if "cross-encoder" in runs:
        best = _best(records, runs["cross-encoder"], num_kept)
        compared += [Pipeline("cross-encoder, full text", "cross-encoder", best, FULL_TEXT),
                     Pipeline("cross-encoder, ScaleDown", "cross-encoder", best, SCALEDOWN)]

    # In one pass ScaleDown gets all candidates, and chooses among them itself.
    compared.append(Pipeline("ScaleDown in one pass", None, records, keeping(num_kept)))
    if has_threshold:
        compared.append(Pipeline("the same, auto", None, records, keeping(AUTO)))

    best = _best(records, runs["BM25"], num_kept)
    return [*compared, Pipeline("BM25, ScaleDown", "BM25", best, SCALEDOWN),
            Pipeline("ScaleDown, all", None, records, SCALEDOWN), Pipeline("full text, all", None, records, FULL_TEXT)]


def _best(records: Sequence[Record], run: Run, num_kept: int) -> list[Record]:
    """Return the records with their ``num_kept`` best documents, best first."""
    chosen = []
    for record in records:
        scores = [run[record.id][name] for name in document_ids(record)]
        documents = tuple(record.documents[number] for number in by_score(scores)[:num_kept])
        # A new record, since ids and scores of the old one belong to all of its documents.
        chosen.append(Record(record.id, record.query, documents, record.answer, record.answers))
    return chosen


def rankings(task: RankingTask, reranker: Reranker | None) -> dict[str, Run]:
    """Return BM25's scores and, given a reranker, the cross-encoder's."""
    runs = {"BM25": bm25(task)}
    if reranker:
        runs["cross-encoder"] = cross_encoder(task, reranker)
    return runs


def table(results: Mapping[str, tuple[SystemResult, PipelineFlops]]) -> str:
    """Return quality and cost, one line per pipeline."""
    lines = [f"{'':<26}{'exact match':>22}{'token F1':>10}{'prompt':>9}  | GFLOPs: {'rerank':>8}{'compress':>10}"
             f"{'generate':>10}{'total':>9}"]
    for name, (result, flops) in results.items():
        averages = result.averages
        low, high = averages["exact_match_ci95"]
        # The columns are as wide as in the heading.
        lines.append(f"{name:<26}{averages['exact_match_avg']:>8.3f} [{low:.3f}, {high:.3f}]"
                     f"{averages['token_f1_avg']:>10.3f}{result.mean_prompt_tokens:>9.1f}  | {'':<7} "
                     f"{flops.rerank / 1e9:>8.3f}{flops.compress / 1e9:>10.3f}{flops.generate / 1e9:>10.3f}"
                     f"{flops.total / 1e9:>9.3f}")

    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = argparse.ArgumentParser(prog="python -m scaledown.evaluation.pipelines", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)

    # The model and its questions.
    parser.add_argument("--checkpoint", default=EMBEDDED,
                        help=f"a folder that training wrote, a Hub id, or a name that ships [{EMBEDDED}]")
    parser.add_argument("--data", help="records whose documents are the candidates [the embedded world's]")
    parser.add_argument("--num_candidates", type=int, default=NUM_CANDIDATES,
                        help=f"candidates per question of the embedded world [{NUM_CANDIDATES}]")
    parser.add_argument("--num_kept", type=int, default=DEFAULT_KEPT,
                        help=f"documents that the generator reads [{DEFAULT_KEPT}]")

    # Output, machine and settings.
    parser.add_argument("--output_file", help="write the figures there, as JSON")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="device to run on [auto]")
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed,
                        help=f"seed of the intervals' resamples [{TrainingConfig.seed}]")
    cli.add_flags(parser, RerankerConfig, reranker_model=None)
    cli.add_flags(parser, EvaluationConfig, but=("timed_queries",), eval_examples=300)
    return parser


def load_records(args: argparse.Namespace, num_records: int) -> list[Record]:
    """Load the questions with their candidates.

    Raises:
        ValueError: if a count is below 1, or the file cannot be read.
    """
    require(positive(args, "num_candidates", "num_kept"))
    if args.data:
        return read_records(args.data)[:num_records]
    return list(ranking_records(num_records, EMBEDDED_SEED, "eval", args.num_candidates))


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Answer the questions with every pipeline and compare them."""
    args = build_parser().parse_args(argv)
    config = cli.config_from(args, EvaluationConfig)
    output_file = run_folder.output_file(args.output_file)
    records = load_records(args, config.eval_examples)

    reranker = Reranker(cli.config_from(args, RerankerConfig)) if args.reranker_model else None
    device = resolve_device(args.device)
    model = load_scoring_model(args.checkpoint, device)
    without = "" if reranker else "; no --reranker_model, so no pipeline with a cross-encoder"
    print(f"{len(records)} questions; the generator reads {args.num_kept} documents{without}")

    runs = rankings(of_records(records), reranker)
    shape = reranker_shape(reranker.cross_encoder) if reranker else None
    results = {}
    for pipeline in pipelines(records, runs, args.num_kept, model.config.keep_threshold is not None):
        result = evaluate_system(model, pipeline.system, pipeline.records, config, args.seed)
        # Of the rerankers only a cross-encoder costs FLOPs that count; BM25 looks up words.
        cross_encoder_shape = shape if pipeline.chosen_by == "cross-encoder" else None
        flops = pipeline_flops(model, result, records, pipeline.records, cross_encoder_shape)
        results[pipeline.name] = result, flops

    print(table(results))
    if output_file:
        write_json(output_file, _report(args, device, results))
        print(f"figures: {output_file}")
    return 0


def _report(args: argparse.Namespace, device: Any,
            results: Mapping[str, tuple[SystemResult, PipelineFlops]]) -> dict[str, Any]:
    summaries = {}
    for name, (result, flops) in results.items():
        # asdict leaves properties out, so the total is added.
        summaries[name] = {**result.summary(), "flops": dataclasses.asdict(flops) | {"total": flops.total}}

    return {"pipelines": summaries, "run": run_information(args.seed, device, sys.argv, vars(args))}


if __name__ == "__main__":
    sys.exit(main())
