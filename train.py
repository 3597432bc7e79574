"""Train a compressor and a generator by distillation: python train.py --train_data data.json

With --pretrain_steps it first pretrains them on plain text, as a compressor that is not the generator's own layers
needs (modernbert, llm); without --train_data it does only that. OUTPUT_DIR/pretraining/final then is for
--init_compressor.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scaledown import cli
from scaledown.config import DEVICES, DTYPES, PretrainingConfig, ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record, eval_path, read_records
from scaledown.training import presets

if TYPE_CHECKING:
    import torch


def build_parser() -> argparse.ArgumentParser:
    """The script's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data", help="training records, JSON or JSONL")
    parser.add_argument("--eval_data", help="evaluation records, whose loss is logged [X_eval.json beside X.json]")
    parser.add_argument("--eval_steps", type=cli.positive, default=500, help="steps between two evaluations [500]")
    parser.add_argument("--output_dir", default="./checkpoints", help="gets checkpoint-N/ and final/ [./checkpoints]")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to train [auto]")
    parser.add_argument("--dtype", default="auto", choices=("auto", *DTYPES),
                        help="of the arithmetic [bfloat16 where the device is fast in it, else float32]")
    parser.add_argument("--init_compressor", help="start from this checkpoint, as a pretraining left it; a reranking "
                        "head that it has stays, and learns from records with scores; --train_memory_tokens may differ")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --output_dir")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --output_dir")
    presets.add_flag(parser)
    cli.add_flags(parser, ScaleDownConfig)
    cli.add_flags(parser, TrainingConfig)
    cli.add_flags(parser, PretrainingConfig)
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags, with the preset's settings where no flag says otherwise."""
    parser = build_parser()
    args = parser.parse_args(argv)
    parser.set_defaults(**presets.settings(args.preset, args.compressor_type, args.enable_reranking, ScaleDownConfig,
                                           TrainingConfig))
    return parser.parse_args(argv)


def load_data(args: argparse.Namespace) -> tuple[list[Record], list[Record]]:
    """Training and evaluation records; none where the run only pretrains. An evaluation half is found by itself.

    Raises:
        ValueError: where there is nothing to do, or a file has faults.
    """
    if args.train_data is None:
        if args.pretrain_steps is None:
            raise ValueError("nothing to train on: give --train_data, or --pretrain_steps to pretrain alone")
        return [], []
    eval_data = eval_file(args)
    return read_records(args.train_data), read_records(eval_data) if eval_data else []


def eval_file(args: argparse.Namespace) -> str | Path | None:
    """The evaluation records: those that are asked for, else the training records' other half, if there is one."""
    if args.eval_data or args.train_data is None:
        return args.eval_data
    return path if (path := eval_path(args.train_data)).exists() else None


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train, and say where the checkpoints are.

    Torch takes seconds to load and what is built on it takes more: each is loaded when it is needed, so that a wrong
    flag is told at once, and a wrong file soon.
    """
    args = parse(argv)
    for cls in (ScaleDownConfig, TrainingConfig, PretrainingConfig):
        cli.config_from(args, cls)

    from scaledown import processes
    from scaledown.training.devices import resolve_device

    device = processes.join(resolve_device(args.device))
    return train(args, device, *load_data(args))


def train(args: argparse.Namespace, device: torch.device, records: Sequence[Record],
          eval_records: Sequence[Record]) -> int:
    """Build the model, pretrain it where that is asked for, train it, and say where it is."""
    from scaledown import processes
    from scaledown.data.overlap import overlap
    from scaledown.run_information import run_information
    from scaledown.training import objective, pretraining, run, run_folder
    from scaledown.training.batches import pads_to_max

    config, training = cli.config_from(args, ScaleDownConfig), cli.config_from(args, TrainingConfig)
    folder = Path(args.output_dir)
    objective.check_scores(config, training, records, args.train_data)
    first_stage = pretraining.prepare(cli.config_from(args, PretrainingConfig), training, config.document_tokens,
                                      folder, args.resume)
    model = run.build_model(config, device, training.seed, args.init_compressor, args.dtype)
    pads_to_max(training, model)  # before anything is written
    settings = vars(args) | dataclasses.asdict(model.config)
    information = run_information(training.seed, device, sys.argv, settings)
    information[run_folder.INPUTS] = {
        **run_folder.inputs_of_run(model.config, args.init_compressor), **(first_stage.inputs if first_stage else {}),
        **run_folder.inputs_of_records("--train_data", args.train_data, records),
        **run_folder.inputs_of_records("--eval_data", eval_file(args), eval_records)}
    with run_folder.claimed(folder, information, args.overwrite, args.resume) as resume_from:
        what = f"{config.generator_model} with a {config.compressor_type} compressor"
        processes.warn(overlap(records, eval_records).note(), objective.note_before(model, training, records))
        if first_stage is not None:
            processes.say(f"pretraining {what} for {first_stage.config.max_steps} steps on {device}, into "
                          f"{first_stage.folder}")
            first_stage.run(model)
            processes.say(f"pretrained: {first_stage.final}")
        if records:
            processes.say(f"training {what} on {len(records)} records, on {device}; evaluating on {len(eval_records)}")
            run.train(model, training, records, folder, resume_from,
                      run.mean_loss(model, eval_records, training) if eval_records else None, args.eval_steps)
            processes.warn(objective.note_after(model))
            processes.say(f"done: {folder / run.FINAL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
