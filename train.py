"""Train a compressor and a generator by distillation.

With --pretrain_steps both are first pretrained on plain text, as a modernbert or llm compressor needs; without
--train_data that is all, and OUTPUT_DIR/pretraining/final is for --init_compressor. With --compressor_type none the
generator is tuned on full text, as a baseline.

    python train.py --train_data data.json --compressor_type n_layers --num_layers 8
    python train.py --resume
"""

from __future__ import annotations

from scaledown import cli, hub  # first, so that Ctrl-C ends quietly from here on

# isort: split
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scaledown.config import PretrainingConfig, RunConfig, ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record, eval_path, read_records
from scaledown.training import presets

CONFIGS = {RunConfig: "data", ScaleDownConfig: "model", TrainingConfig: "training", PretrainingConfig: "training"}
USAGE = ("--train_data FILE [--eval_data FILE] [--preset NAME] [--compressor_type NAME] [--output_dir FOLDER] "
         "[--resume] [--FLAG VALUE ...]")


def build_parser() -> argparse.ArgumentParser:
    """Return the script's flags."""
    return cli.settings_parser(__doc__, USAGE, CONFIGS)


def read_data(args: argparse.Namespace) -> tuple[list[Record], Path | None, list[Record]]:
    """Return the training records, the file of the evaluation records if there is one, and these."""
    if args.train_data is None:
        if args.pretrain_steps is None:
            raise ValueError("nothing to train on: give --train_data, or --pretrain_steps to pretrain alone")
        if args.eval_data is not None:
            raise ValueError(f"--eval_data {args.eval_data} needs --train_data: without it the run only pretrains, and "
                             "measures nothing")
        return [], None, []
    records, eval_data = read_records(args.train_data), Path(args.eval_data or eval_path(args.train_data))
    # An evaluation half beside the training records is used without being named.
    if not args.eval_data and not eval_data.exists():
        return records, None, []
    return records, eval_data, read_records(eval_data)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train, and say where the checkpoints are."""
    args = presets.parse_or_offline(build_parser(), argv)
    _, config, training, pretraining_config = (cli.config_from(args, cls) for cls in CONFIGS)
    records, eval_data, eval_records = read_data(args)
    hub.check_models(config, args.init_compressor)

    # Torch takes seconds to load; a wrong flag, file or name has been reported by now.
    from scaledown import processes
    from scaledown.data.overlap import overlap
    from scaledown.data.storage.run_information import next_commands
    from scaledown.evaluation.cost.machine_check import check_machine
    from scaledown.training import batches, devices, objective, pretraining, run, run_folder
    from scaledown.training.steps.schedule import num_steps, schedule_warnings

    device, folder = processes.join(devices.resolve_device(args.device)), Path(args.output_dir)
    objective.check_scores(config, training, records, args.train_data, args.resume)
    first_stage = pretraining.prepare(pretraining_config, training, config.document_tokens, folder, args.resume)
    check_machine(config, training, records, device, args.dtype)
    cli.tell(f"loading {args.init_compressor or config.generator_model} ...")
    model = run.build_model(config, device, training.seed, args.init_compressor, args.dtype)
    batches.pads_to_max(training, model)  # Refuses what cannot be trained, before anything is written.
    information = run_folder.information(args, model, records, eval_data, eval_records)
    information[run_folder.INPUTS] |= first_stage.inputs if first_stage else {}

    records = run.with_long_documents(model, records, args.long_documents)
    eval_records = run.with_long_documents(model, eval_records, args.long_documents)

    with run_folder.claimed(folder, information, args.overwrite, args.resume) as resume_from:
        processes.say(f"generator {config.generator_model}, compressor {config.compressor_type}, on {device}: "
                      f"{len(records):,} training and {len(eval_records):,} held-out records; results go to {folder}")
        processes.warn(overlap(records, eval_records).note(), objective.note_before(model, training, records))
        if first_stage:
            first_stage.run(model)
        if records:
            eval_steps = args.eval_steps if eval_records else None
            processes.warn(*schedule_warnings(len(records), training, eval_steps))
            steps = num_steps(len(records), training)
            processes.say(f"training for {steps:,} steps of {training.batch_size} questions")
            evaluate = run.mean_loss(model, eval_records, training) if eval_records else None
            log = run.train(model, training, records, folder, resume_from, evaluate, args.eval_steps,
                            name=args.train_data)
            processes.warn(objective.note_after(model))
            if evaluate:
                # The training ends with a check, so nothing is measured again.
                measured = objective.in_words(run.last_check(log))
                processes.say(f"on the {len(eval_records):,} held-out records: {measured}")
            final, given = folder / run.FINAL, sys.argv[1:] if argv is None else argv
            processes.say(f"done: {final}\n{next_commands(Path(__file__).name, given, final, folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
