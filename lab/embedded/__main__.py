"""Make the embedded generator again, from nothing: python -m lab.embedded

Killed, it goes on where it was. ``torchrun --nproc_per_node 2 -m lab.embedded --device cpu`` shares the work.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lab.embedded.building import PretrainConfig, build_generator
from lab.embedded.course import world_course
from lab.embedded.pretrain import STATE_FILE, Pretraining
from lab.embedded.tokenizer import build_tokenizer, world_texts
from scaledown import cli
from scaledown.hub import EMBEDDED_FOLDER
from scaledown.training import run_folder
from scaledown.training.devices import DEVICES, keep_freed_memory, resolve_device


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(prog="python -m lab.embedded", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", default="embedded_training", help="gets the log, the tokenizer and the state to "
                        "resume from [embedded_training]")
    parser.add_argument("--output_dir", default=str(EMBEDDED_FOLDER), help="gets the finished generator, which "
                        f"--generator_model then takes [{EMBEDDED_FOLDER}]")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to train [auto]")
    cli.add_flags(parser, PretrainConfig)
    return parser


def find_tokenizer(work_dir: Path, config: PretrainConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of the run whose state is in ``work_dir``, or a new one, which is left there."""
    folder = work_dir / "tokenizer"
    is_first = not dist.is_initialized() or dist.get_rank() == 0
    if is_first and not ((work_dir / STATE_FILE).is_file() and folder.is_dir()):
        build_tokenizer(world_texts(config.seed), config.vocabulary_tokens).save_pretrained(folder)
    if dist.is_initialized():
        dist.barrier()
    return AutoTokenizer.from_pretrained(folder)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train to the last step, then write the generator."""
    args = build_parser().parse_args(argv)
    config, work_dir, device = cli.config_from(args, PretrainConfig), Path(args.work_dir), resolve_device(args.device)
    output_dir = Path(args.output_dir)
    run_folder.make(work_dir, "--work_dir")
    run_folder.make(output_dir)
    join_processes(device)
    tokenizer = find_tokenizer(work_dir, config)
    model = build_generator(config, tokenizer)
    pretraining = Pretraining(config, model.to(device), world_course(tokenizer, config.seed), work_dir)
    print(f"training a generator of {model.num_parameters():,} weights for {config.steps} steps on {device}; "
          f"log and state in {work_dir}")
    pretraining.run()
    if pretraining.rank == 0:
        model.config.num_hidden_layers = config.num_layers
        model.half().save_pretrained(output_dir)
        tokenizer.save_pretrained(output_dir)
        print(f"done: {output_dir}")
    return 0


def join_processes(device: torch.device) -> None:
    """Meet the other processes of ``torchrun``, if there are any.

    Raises:
        ValueError: where they would share one GPU.
    """
    if device.type == "cpu":
        keep_freed_memory()
    if "RANK" not in os.environ:
        return
    if device.type != "cpu":
        raise ValueError(f"--device {device}: several processes are for the CPU (--device cpu); start without torchrun")
    dist.init_process_group("gloo")
    torch.set_num_threads(max(1, torch.get_num_threads() // dist.get_world_size()))


if __name__ == "__main__":
    sys.exit(main())
