"""Compare three ways to rerank and answer: python -m scaledown.evaluation.pipelines --reranker_model M

Quality and cost if a cross-encoder chooses the documents and the generator reads them as text; if it chooses them and
ScaleDown compresses them; and if ScaleDown does both in one pass (paper, table 2). For comparison BM25 chooses, and all
documents are read. Without data the shipped checkpoint answers questions of the demo world, 20 candidates each.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scaledown import cli
from scaledown.config import DEVICES, EMBEDDED, EvaluationConfig, TrainingConfig
from scaledown.data.records import Record, read_records
from scaledown.data.reranking.cross_encoder import Reranker, RerankerConfig
from scaledown.data.world.candidates import NUM_CANDIDATES, ranking_records
from scaledown.evaluation.ranking.ranking_input import EMBEDDED_SEED
from scaledown.files import write_json
from scaledown.run_information import run_information
from scaledown.settings import positive, require

if TYPE_CHECKING:
    from scaledown.evaluation.evaluator import SystemResult
    from scaledown.evaluation.pipelines.comparison import PipelineFlops

DEFAULT_KEPT = 5


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.evaluation.pipelines")

    # The model and its questions.
    parser.add_argument("--checkpoint", default=EMBEDDED,
                        help=f"a folder that training wrote, a Hub id, or a name that ships [{EMBEDDED}]")
    parser.add_argument("--data", help="records whose documents are the candidates [the demo world's]")
    parser.add_argument("--num_candidates", type=int, default=NUM_CANDIDATES,
                        help=f"candidates per question of the demo world [{NUM_CANDIDATES}]")
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
    records = load_records(args, config.eval_examples)

    # Torch takes seconds to load; a wrong flag or file has been reported by now.
    from scaledown.evaluation.evaluator import evaluate_system
    from scaledown.evaluation.pipelines.comparison import pipeline_flops, pipelines, rankings, reranker_shape, table
    from scaledown.evaluation.ranking.ranking_task import of_records
    from scaledown.evaluation.ranking.rankings import load_scoring_model
    from scaledown.training import devices, run_folder

    output_file = run_folder.output_file(args.output_file)
    reranker = Reranker(cli.config_from(args, RerankerConfig)) if args.reranker_model else None
    device = devices.resolve_device(args.device)
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
