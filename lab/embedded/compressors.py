"""Make the compressors that ship.

Training has the stages of the main job, of a quarter of an hour, and then those that it has no time for: up to ten
documents, passages as long as a document may be, candidates as a search engine finds them, and all of these in larger
batches. With ``--enable_reranking`` the model then learns scores, first for short documents that differ in the entity
alone, then beside answers, and answers from the documents that it scores best. A killed run goes on from its last
checkpoint if it is started again.

    python -m lab.embedded.compressors --compressor_type n_layers
    python -m lab.embedded.compressors --compressor_type modernbert --output_dir encoder
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.embedded.recipe import StageSteps
from scaledown import cli
from scaledown.config import COMPRESSOR_TYPES, EMBEDDED, ScaleDownConfig


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "lab.embedded.compressors",
                            "[--output_dir FOLDER] [--device NAME] [--FLAG VALUE ...]")
    parser.add_argument("--compressor_type", default="n_layers", choices=COMPRESSOR_TYPES,
                        help="compressor [n_layers]")
    parser.add_argument("--init_compressor", metavar="NAME",
                        help="start from this checkpoint, which has been through the lessons")
    parser.add_argument("--output_dir", default="embedded_compressor", metavar="FOLDER",
                        help="has a folder for each stage, and the result in final/ [embedded_compressor]")
    cli.add_device(parser)
    cli.add_flags(parser, StageSteps)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train, stage by stage."""
    args = build_parser().parse_args(argv)
    steps, folder = cli.config_from(args, StageSteps), Path(args.output_dir)

    # Only now, so that --help and mistakes need not wait for torch.
    from lab.embedded.stages import LESSONS, save_small, stages, train_all
    from scaledown.training import run, run_folder
    from scaledown.training.presets import demo

    config = ScaleDownConfig(generator_model=EMBEDDED, compressor_type=args.compressor_type,
                             **demo.MODEL[args.compressor_type])
    model = run.build_model(config, args.device, steps.seed, args.init_compressor)
    information = {run_folder.SETTINGS: vars(args),
                   run_folder.INPUTS: run_folder.inputs_of_run(model.config, args.init_compressor)}

    with run_folder.claimed(folder, information, resume=(folder / run_folder.RUN_FILE).exists()):
        # A given checkpoint has been through the lessons.
        own_stages = [stage for stage in stages(steps) if stage.name != LESSONS or not args.init_compressor]
        train_all(own_stages, model, folder)
        save_small(model, folder / run.FINAL)
        print(f"done: {folder / run.FINAL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
