"""Make the embedded model's pretrained compressor again: python -m scaledown.training.embedded.compressor

Auto-encoding and continuation on texts of the embedded world, spans growing from a few words on; see
:mod:`scaledown.training.pretraining`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scaledown import cli
from scaledown.config import EMBEDDED, ScaleDownConfig, TrainingConfig
from scaledown.training import run
from scaledown.training.embedded import recipe


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", default="embedded_training/compressor", help="gets the checkpoints on the way")
    parser.add_argument("--output_dir", default=str(recipe.PRETRAINED), help="gets the pretrained checkpoint")
    parser.add_argument("--pretrain_steps", type=int, default=1000, help="steps [1000]")
    parser.add_argument("--compressor_type", default="n_layers", help="[n_layers]")
    parser.add_argument("--seed", type=int, default=42, help="[42]")
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Pretrain, and write the checkpoint."""
    args = build_parser().parse_args(argv)
    config = ScaleDownConfig(generator_model=EMBEDDED, compressor_type=args.compressor_type, **recipe.MODEL)
    training = TrainingConfig(seed=args.seed, save_steps=args.pretrain_steps, **recipe.TRAINING)
    model = run.build_model(config, "auto", args.seed)
    records = recipe.spans(args.pretrain_steps * training.batch_size, args.seed)
    run.train(model, training, records, Path(args.work_dir), in_order=True)
    model.save_pretrained(args.output_dir)
    print(f"done: {args.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
