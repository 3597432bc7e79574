"""Make training records as OSCAR's authors did.

Queries, retrieved and reranked passages, and a teacher's answers. After a kill at any moment, the same command goes on.
Under accelerate launch or torchrun, processes on one machine or many share the work, over a work folder that all see.

    python -m scaledown.data.prepare_dataset --num_synthetic_queries 200 --teacher_model embedded
    python -m scaledown.data.prepare_dataset --download_ms_marco --corpus_path kilt_knowledgesource.json
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from scaledown import cli
from scaledown.data.pipeline.pipeline_config import CorpusConfig, PipelineConfig, RecordsConfig
from scaledown.data.pipeline.pipeline_run import check_needs, run
from scaledown.data.pipeline.plan import tell_plan
from scaledown.data.pipeline.queries import QueriesConfig
from scaledown.data.pipeline.retrieval import RetrievalConfig
from scaledown.data.pipeline.stages.context import Context
from scaledown.data.pipeline.teacher import TeacherConfig
from scaledown.data.reranking.cross_encoder import RerankerConfig
from scaledown.data.storage.work_folder import WorkFolder
from scaledown.processes import join_processes

STAGE_CONFIGS = {"queries": QueriesConfig, "corpus": CorpusConfig, "retrieval": RetrievalConfig,
                 "reranker": RerankerConfig, "teacher": TeacherConfig, "records": RecordsConfig}
USAGE = ("(--queries_file FILE | --num_synthetic_queries N | --download_ms_marco) [--corpus_path FILE] "
         "[--retriever NAME] [--teacher_model NAME] [--output_file FILE] [--FLAG VALUE ...]")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "scaledown.data.prepare_dataset", USAGE, has_help_all=True)
    for config in STAGE_CONFIGS.values():
        cli.add_flags(parser, config)
    parser.add_argument("--dry_run", action="store_true",
                        help="print the plan, time, memory and disk, and end")
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Make the records, and print a summary of them."""
    args = build_parser().parse_args(argv)
    configs = {name: cli.config_from(args, config_class) for name, config_class in STAGE_CONFIGS.items()}
    config = PipelineConfig(**configs)

    # Tokenizers stop using threads after a fork, as by a DataLoader; there is none here, and threads are wanted.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    check_needs(config)
    if args.dry_run:
        tell_plan(config)
        return 0

    # The folder is unlocked however the run ends.
    processes = join_processes()
    work = WorkFolder(config.records.work_folder, processes)
    try:
        run(Context(config, work, processes))
    finally:
        work.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
