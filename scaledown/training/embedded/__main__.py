"""Make the embedded weights again: python -m scaledown.training.embedded

Trains the generator from nothing on its own world, and writes it as half-precision safetensors. Killed, it goes on
where it was. ``torchrun --nproc_per_node 2 -m scaledown.training.embedded`` shares the work.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from scaledown import cli
from scaledown.hub import EMBEDDED_FOLDER
from scaledown.training import run_folder
from scaledown.training.devices import keep_freed_memory
from scaledown.training.embedded.batches import BatchMaker
from scaledown.training.embedded.pretrain import PretrainConfig, Pretraining, build_generator
from scaledown.training.embedded.tokenizer import build_tokenizer


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", default="embedded_training", help="gets the log and the state to resume from")
    parser.add_argument("--output_dir", default=str(EMBEDDED_FOLDER), help="gets the finished generator")
    cli.add_flags(parser, PretrainConfig)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train to the last step, then write the generator."""
    args = build_parser().parse_args(argv)
    config, work_dir, output_dir = cli.config_from(args, PretrainConfig), Path(args.work_dir), Path(args.output_dir)
    run_folder.make(work_dir, "--work_dir")
    run_folder.make(output_dir)
    keep_freed_memory()
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        torch.set_num_threads(max(1, torch.get_num_threads() // dist.get_world_size()))
    tokenizer = build_tokenizer(config.seed)
    model = build_generator(config, tokenizer)
    pretraining = Pretraining(config, model, BatchMaker(tokenizer, config.seed, "train"),
                              BatchMaker(tokenizer, config.seed, "eval"), work_dir)
    print(f"training a generator of {model.num_parameters():,} weights for {config.steps} steps; log and state in "
          f"{work_dir}")
    pretraining.run()
    if pretraining.rank == 0:
        model.config.num_hidden_layers = config.num_layers
        model.half().save_pretrained(output_dir)
        tokenizer.save_pretrained(output_dir)
        print(f"done: {output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
