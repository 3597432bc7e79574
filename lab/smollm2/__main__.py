"""Train the checkpoint "smollm2" on real questions.

First the compressor learns from the readout alone to find answers in passages; then the generator learns to copy an
answer from ideal memory; then both learn from several documents, some without the answer. A smaller compressor imitates
the memory of a trained one before that, and a new encoder first learns to read. A killed run goes on where it was.

    python -m lab.smollm2 --train_data squad.json nq.json --output_dir smollm2_run
    python -m lab.smollm2 --train_data squad.json --compressor_model minilm --memory_of smollm2 --copying_steps 0
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.smollm2.lesson_steps import LessonSteps
from scaledown import cli
from scaledown.data.records import read_records

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel


def build_parser() -> cli.Parser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "lab.smollm2", "--train_data FILE ... [--FLAG VALUE ...]")
    parser.add_argument("--train_data", nargs="+", required=True, metavar="FILE", help="records, JSON or JSONL")
    parser.add_argument("--generator_model", default="smollm2", metavar="NAME", help="the generator [smollm2]")
    parser.add_argument("--init_compressor", metavar="NAME", help="go on from this checkpoint [a new compressor]")
    parser.add_argument("--keep_layers", metavar="RANGES",
                        help="keep only these layers of the compressor that it has, such as 0-11,18-29 [all]")

    # A compressor that learns from another one's memory.
    parser.add_argument("--compressor_model", metavar="NAME",
                        help="a new compressor made of this encoder, beside the generator of --memory_of")
    parser.add_argument("--memory_of", metavar="NAME",
                        help="the compressor first learns to make the memory of this checkpoint")
    parser.add_argument("--output_dir", default="smollm2_run", metavar="FOLDER",
                        help="gets a folder for each stage, and the result in checkpoint/ [smollm2_run]")
    cli.add_device(parser)
    cli.add_dtype(parser)
    cli.add_flags(parser, LessonSteps)
    return parser


def load(args: argparse.Namespace, name: str | None, seed: int = 0) -> ScaleDownModel:
    """Return a checkpoint, or a new model, on the device and in the number format of the command."""
    from lab.smollm2.lesson_plan import model_config
    from scaledown import hub
    from scaledown.training import run

    # A checkpoint on this disk says what its model is.
    config = hub.checkpoint_config(name) if name else None
    return run.build_model(config or model_config(args.generator_model), args.device, seed, name, args.dtype)


def first_model(args: argparse.Namespace, steps: LessonSteps, larger: ScaleDownModel | None) -> ScaleDownModel:
    """Return the model that the lessons start from: new, trained, trained with fewer layers, or with an encoder."""
    from lab.smollm2.fewer_layers import with_fewer_layers
    from lab.smollm2.imitation import with_encoder

    if args.compressor_model:
        return with_encoder(larger, args.compressor_model, steps.seed)
    model = load(args, args.init_compressor, steps.seed)
    return with_fewer_layers(model, args.keep_layers) if args.keep_layers else model


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train, stage by stage."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.keep_layers and not args.init_compressor:
        parser.error("--keep_layers takes layers away from a trained compressor: name it with --init_compressor")
    if args.compressor_model and (args.init_compressor or not args.memory_of):
        parser.error("--compressor_model is a new compressor's, and goes with --memory_of instead of --init_compressor")
    steps, folder = cli.config_from(args, LessonSteps), Path(args.output_dir)

    records = []
    for path in args.train_data:
        records += read_records(path)

    # Only now, so that --help and mistakes need not wait for torch.
    from lab.embedded.stages import save_small
    from lab.smollm2.lesson_plan import imitate_first, train

    larger = load(args, args.memory_of) if args.memory_of else None
    model = first_model(args, steps, larger)
    if larger is not None:
        imitate_first(model, larger, records, steps, folder)
    train(model, records, steps, folder)
    save_small(model, folder / "checkpoint")
    print(f"done: {folder / 'checkpoint'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
