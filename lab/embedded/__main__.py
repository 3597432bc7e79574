"""Make a generator from nothing: python -m lab.embedded

By itself it makes the embedded weights again, on their own world. With --train_data it makes a generator for real
questions instead, from records of prepare_small_real_dataset.py. Killed, it goes on where it was.
``torchrun --nproc_per_node 2 -m lab.embedded --device cpu`` shares the work.
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
from lab.embedded.course import Course, world_course
from lab.embedded.pretrain import STATE_FILE, Pretraining
from lab.embedded.real_course import real_course
from lab.embedded.tokenizer import build_tokenizer, record_texts, world_texts
from lab.embedded.transfer import load_source, start_from, with_all_layers
from scaledown import cli
from scaledown.data.records import Record, eval_path, read_records
from scaledown.hub import EMBEDDED_FOLDER
from scaledown.training import inputs, run_folder
from scaledown.training.devices import DEVICES, keep_freed_memory, resolve_device

REAL_OUTPUT = "generator"


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data", nargs="+", help="records to learn from, JSON or JSONL; the evaluation half of "
                        "each, X_eval.json beside X.json, measures it [the embedded world]")
    parser.add_argument("--work_dir", default="embedded_training", help="gets the log, the tokenizer and the state to "
                        "resume from [embedded_training]")
    parser.add_argument("--output_dir", help="gets the finished generator, which --generator_model then takes "
                        f"[WORK_DIR/{REAL_OUTPUT}; without --train_data {EMBEDDED_FOLDER}]")
    parser.add_argument("--init_generator", help="start from the layers of this generator, which can look things up: "
                        "a folder, a Hub id or \"embedded\" [random weights]")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to train [auto]")
    cli.add_flags(parser, PretrainConfig)
    return parser


def read_halves(paths: Sequence[str]) -> tuple[list[Record], list[Record]]:
    """The training records of all ``paths``, and their evaluation halves, one record of each in turn.

    Raises:
        ValueError: for files that are missing or have faults.
    """
    train = [record for path in paths for record in read_records(path)]
    halves = [read_records(eval_path(path)) for path in paths]
    in_turn = [half[number] for number in range(max(map(len, halves))) for half in halves if number < len(half)]
    return train, in_turn


def find_tokenizer(work_dir: Path, records: Sequence[Record] | None,
                   config: PretrainConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of the run whose state is in ``work_dir``, or a new one, which is left there."""
    folder = work_dir / "tokenizer"
    is_first = not dist.is_initialized() or dist.get_rank() == 0
    if is_first and not ((work_dir / STATE_FILE).is_file() and folder.is_dir()):
        texts = world_texts(config.seed) if records is None else record_texts(records)
        build_tokenizer(texts, config.vocabulary_tokens).save_pretrained(folder)
    if dist.is_initialized():
        dist.barrier()
    return AutoTokenizer.from_pretrained(folder)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train to the last step, then write the generator."""
    args = build_parser().parse_args(argv)
    config, work_dir, device = cli.config_from(args, PretrainConfig), Path(args.work_dir), resolve_device(args.device)
    source = load_source(args.init_generator, config) if args.init_generator else None
    train, held_out = read_halves(args.train_data) if args.train_data else (None, None)
    output_dir = Path(args.output_dir or (work_dir / REAL_OUTPUT if args.train_data else EMBEDDED_FOLDER))
    run_folder.make(work_dir, "--work_dir")
    run_folder.make(output_dir)
    join_processes(device)
    tokenizer = find_tokenizer(work_dir, train, config)
    course = real_course(tokenizer, train, held_out, config.seed) if train else world_course(tokenizer, config.seed)
    model = build_generator(config, tokenizer)
    if source is not None:
        start_from(source, model, tokenizer, config.seed)
        course = with_all_layers(course)
    about = {"train_data": " ".join(args.train_data or ()), "init_generator": args.init_generator}
    pretraining = Pretraining(config, model.to(device), course, work_dir, about, read_by(args, train, held_out))
    print(f"training a generator of {model.num_parameters():,} weights for {config.steps} steps on {device}"
          f"{told(course, train)}; log and state in {work_dir}")
    pretraining.run()
    if pretraining.rank == 0:
        model.config.num_hidden_layers = config.num_layers
        model.half().save_pretrained(output_dir)
        tokenizer.save_pretrained(output_dir)
        print(f"done: {output_dir}")
    return 0


def read_by(args: argparse.Namespace, train: Sequence[Record] | None,
            held_out: Sequence[Record] | None) -> inputs.Inputs:
    """What the run reads: records and a generator to start from, where they are asked for."""
    found = {}
    if args.train_data:
        path = " ".join(args.train_data)
        found |= inputs.of_records("--train_data", path, train)
        found |= inputs.of_records("the evaluation half of --train_data", path, held_out)
    if args.init_generator:
        found |= inputs.of_model("--init_generator", args.init_generator, None)
    return found


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


def told(course: Course, train: Sequence[Record] | None) -> str:
    """What is said of the records, where there are some."""
    if train is None:
        return ""
    return (f" from {len(course.train.asked)} of {len(train)} records ({course.train.num_left_out} have no document "
            "that holds their answer)")


if __name__ == "__main__":
    sys.exit(main())
