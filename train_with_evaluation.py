"""The main job: evaluate, train, evaluate again, and show what changed.

With no arguments it runs on the embedded data and the embedded generator: offline, on a CPU, in minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaledown import cli, processes
from scaledown.config import (
    DEFAULT_GENERATOR,
    DEVICES,
    DTYPES,
    EMBEDDED,
    EvaluationConfig,
    ScaleDownConfig,
    TrainingConfig,
)
from scaledown.data.overlap import overlap
from scaledown.data.records import Record, eval_path, read_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.evaluation.report import before_after
from scaledown.run_information import run_information
from scaledown.training import demo, objective, presets, run, run_folder
from scaledown.training.batches import pads_to_max
from scaledown.training.devices import resolve_device

LOSS_RECORDS = 100
CONFIGS = (ScaleDownConfig, TrainingConfig, EvaluationConfig)
OWN_FLAGS = ("generator_model", "learning_rate_generator", "learning_rate_compressor")


def build_parser() -> argparse.ArgumentParser:
    """The script's flags; a default that depends on the generator is told in its help."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data", help="training records, JSON or JSONL [those of the embedded world]")
    parser.add_argument("--eval_data", help="evaluation records [X_eval.json beside X.json]")
    parser.add_argument("--generator_model", help="a Hub id, a local folder, or 'embedded' "
                        f"[embedded; with --train_data {DEFAULT_GENERATOR}]")
    parser.add_argument("--learning_rate", type=float, help="peak learning rate of generator and compressor "
                        f"[1e-4; for the embedded generator {demo.TRAINING['learning_rate_generator']}]")
    parser.add_argument("--init_compressor", help="start from this checkpoint, as a pretraining left it; a reranking "
                        "head that it has stays, and learns from records with scores; --train_memory_tokens may differ")
    parser.add_argument("--output_dir", default="./training_with_eval", help="[./training_with_eval]")
    parser.add_argument("--eval_steps", type=cli.positive, default=100,
                        help="steps between two looks at the loss [100]")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to run [auto]")
    parser.add_argument("--dtype", default="auto", choices=("auto", *DTYPES),
                        help="of the arithmetic [bfloat16 where the device is fast in it, else float32]")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --output_dir")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --output_dir")
    presets.add_flag(parser)
    cli.add_flags(parser, ScaleDownConfig, but=OWN_FLAGS)
    cli.add_flags(parser, TrainingConfig, but=OWN_FLAGS, batch_size=4)
    cli.add_flags(parser, EvaluationConfig)
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags, with the defaults of the preset, and those that fit the generator."""
    parser = build_parser()
    args = parser.parse_args(argv)
    learns = args.compressor_type, args.enable_reranking, *CONFIGS
    settings = presets.settings(args.preset, *learns)
    generator = (args.generator_model or settings.get("generator_model")
                 or (DEFAULT_GENERATOR if args.train_data else EMBEDDED))
    if generator == EMBEDDED:
        settings = presets.settings(presets.DEMO, *learns) | settings
    parser.set_defaults(**settings | {"generator_model": generator})
    args = parser.parse_args(argv)
    if args.learning_rate is not None:
        args.learning_rate_generator = args.learning_rate_compressor = args.learning_rate
    return args


def load_data(args: argparse.Namespace) -> tuple[list[Record], list[Record]]:
    """Training and evaluation records: from files, or made from the seed."""
    if args.train_data is None:
        evaluation = list(synthetic_records(args.eval_examples, args.seed, split="eval"))
        return demo.lessons(args.seed), evaluation
    records = read_records(args.train_data)
    eval_data = eval_file(args)
    if not eval_data.exists():
        raise ValueError(f"{eval_data}: no evaluation records; give them with --eval_data")
    return records, read_records(eval_data)[:args.eval_examples]


def eval_file(args: argparse.Namespace) -> Path:
    """The evaluation records: those that are asked for, or the other half of the training records."""
    return Path(args.eval_data) if args.eval_data else eval_path(args.train_data)


def inputs_of(args: argparse.Namespace, config: ScaleDownConfig, records: Sequence[Record],
              eval_records: Sequence[Record]) -> run_folder.Inputs:
    """What the run reads; records of the embedded world are made from the seed, which is a setting."""
    found = run_folder.inputs_of_run(config, args.init_compressor)
    if args.train_data is None:
        return found
    return {**found, **run_folder.inputs_of_records("--train_data", args.train_data, records),
            **run_folder.inputs_of_records("--eval_data", eval_file(args), eval_records)}


def start_note(args: argparse.Namespace) -> str:
    """What a reader of the report must know about where training started."""
    if args.init_compressor:
        return f"Training started from the pretrained checkpoint {args.init_compressor}."
    return "Training started from a new compressor: nothing but the generator was pretrained."


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, train, measure again, report."""
    args = parse(argv)
    config, training = cli.config_from(args, ScaleDownConfig), cli.config_from(args, TrainingConfig)
    evaluation, folder = cli.config_from(args, EvaluationConfig), Path(args.output_dir)
    records, eval_records = load_data(args)
    objective.check_scores(config, training, records, args.train_data)
    device = processes.join(resolve_device(args.device))
    model = run.build_model(config, device, training.seed, args.init_compressor, args.dtype)
    pads_to_max(training, model)  # before anything is written
    settings: dict[str, Any] = vars(args) | dataclasses.asdict(model.config)
    information = run_information(training.seed, device, sys.argv, settings)
    information[run_folder.INPUTS] = inputs_of(args, model.config, records, eval_records)
    with run_folder.claimed(folder, information, args.overwrite, args.resume) as resume_from:
        processes.say(f"{config.generator_model} with a {config.compressor_type} compressor on {device}: "
                      f"{len(records)} training records, {len(eval_records)} evaluation records; results go to "
                      f"{folder}")
        known = [overlap(records, eval_records).note(), objective.note_before(model, training, records)]
        processes.warn(*known)
        before = before_after.measure_before(model, eval_records, evaluation, training.seed, folder)
        history = run.train(model, training, records, folder / "checkpoints", resume_from,
                            run.mean_loss(model, eval_records[:LOSS_RECORDS], training), args.eval_steps,
                            in_order=args.train_data is None)
        if args.train_data is None:
            history = [*demo.lesson_starts(training.batch_size), *history]
        learnt = objective.note_after(model)
        processes.warn(learnt)
        notes = [start_note(args), *(f"Note: {note}." for note in (*known, learnt) if note)]
        report = before_after.measure_after(model, eval_records, evaluation, training.seed, folder, before, history,
                                            information, notes=notes)
        processes.say(before_after.summary(report, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
