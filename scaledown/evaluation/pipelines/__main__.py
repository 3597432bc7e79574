"""Compare three ways to rerank and answer.

Quality and cost if a cross-encoder chooses the documents and the generator reads them as text; if it chooses them and
ScaleDown compresses them; and if ScaleDown does both in one pass (paper, table 2). For comparison BM25 chooses, and all
documents are read. Without data the shipped checkpoint answers questions of the demo world, 20 candidates each.

    python -m scaledown.evaluation.pipelines --reranker_model cross-encoder/ms-marco-MiniLM-L6-v2
    python -m scaledown.evaluation.pipelines --checkpoint ranker/final --eval_data scored_eval.json --keep_documents 3
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scaledown import cli, files, hub
from scaledown.config import EvaluationConfig
from scaledown.data.records import Record, read_records
from scaledown.data.reranking.cross_encoder import Reranker, RerankerConfig
from scaledown.data.storage.run_information import run_information
from scaledown.data.world.candidates import NUM_CANDIDATES, ranking_records
from scaledown.evaluation.ranking.ranking_input import EMBEDDED_SEED
from scaledown.settings import positive, require

if TYPE_CHECKING:
    from scaledown.evaluation.evaluator import SystemResult
    from scaledown.evaluation.pipelines.comparison import PipelineFlops

DEFAULT_KEPT = 5
USAGE = "[--checkpoint NAME] [--eval_data FILE] [--reranker_model NAME] [--output_file FILE] [--FLAG VALUE ...]"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.evaluation.pipelines", USAGE)
    cli.add_checkpoint(parser)
    cli.add_eval_data(parser, "records whose documents are the candidates [the demo world's]")
    parser.add_argument("--num_candidates", type=int, default=NUM_CANDIDATES, metavar="N", group="data",
                        help=f"candidates for each question of the demo world [{NUM_CANDIDATES}]")
    cli.add_long_documents(parser)
    cli.add_output_file(parser)

    # How documents are chosen, and answers measured.
    parser.add_argument("--keep_documents", type=int, default=DEFAULT_KEPT, metavar="N", group="reranker",
                        help=f"number of documents that the generator reads [{DEFAULT_KEPT}]")
    cli.add_flags(parser, RerankerConfig, reranker_model=None)
    cli.add_flags(parser, EvaluationConfig, but=("timed_queries",), eval_examples=300)
    cli.add_device(parser)
    cli.add_seed(parser, "seed of the intervals' resamples")
    return parser


def load_records(args: argparse.Namespace, num_records: int) -> list[Record]:
    """Load the questions with their candidates.

    Raises:
        ValueError: if a count is below 1, or the file cannot be read.
    """
    require(positive(args, "num_candidates", "keep_documents"))
    if args.eval_data:
        return read_records(args.eval_data)[:num_records]
    return list(ranking_records(num_records, EMBEDDED_SEED, "eval", args.num_candidates))


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Answer the questions with every pipeline and compare them."""
    args = build_parser().parse_args(argv)
    config = cli.config_from(args, EvaluationConfig)
    records = load_records(args, config.eval_examples)

    output_file = files.output_file(args.output_file)
    hub.check_checkpoint(args.checkpoint)

    # Torch takes seconds to load; a wrong flag, file or name has been reported by now.
    from scaledown.evaluation.evaluator import evaluate_system
    from scaledown.evaluation.pipelines.comparison import pipeline_flops, pipelines, rankings, reranker_shape, table
    from scaledown.evaluation.ranking.ranking_task import of_records
    from scaledown.evaluation.ranking.rankings import load_scoring_model
    from scaledown.training import devices

    reranker = Reranker(cli.config_from(args, RerankerConfig)) if args.reranker_model else None
    device = devices.resolve_device(args.device)
    cli.tell(f"loading {args.checkpoint} ...")
    model = load_scoring_model(args.checkpoint, device, long_documents=args.long_documents)
    without = "" if reranker else "; no --reranker_model, so no pipeline with a cross-encoder"
    print(f"{len(records)} questions; the generator reads {args.keep_documents} documents{without}")

    runs = rankings(of_records(records), reranker)
    shape = reranker_shape(reranker.cross_encoder) if reranker else None
    results = {}
    for pipeline in pipelines(records, runs, args.keep_documents, model.config.keep_threshold is not None):
        result = evaluate_system(model, pipeline.system, pipeline.records, config, args.seed)
        # Of the rerankers only a cross-encoder costs FLOPs that count; BM25 looks up words.
        cross_encoder_shape = shape if pipeline.chosen_by == "cross-encoder" else None
        flops = pipeline_flops(model, result, records, pipeline.records, cross_encoder_shape)
        results[pipeline.name] = result, flops

    print(table(results))
    if output_file:
        files.write_json(output_file, _report(args, device, results))
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
