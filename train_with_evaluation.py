"""The main job: evaluate, train, evaluate again, compare.

Without --train_data it trains on the demo's data and generator: offline, on a CPU, in minutes.

    python train_with_evaluation.py
    python train_with_evaluation.py --train_data small_real_dataset.json --preset laptop --output_dir squad_run
"""

from __future__ import annotations

from scaledown import cli, hub  # first, so that Ctrl-C ends quietly from here on

# isort: split
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scaledown.config import SPLIT, EvaluationConfig, RunConfig, ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record, eval_path, read_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.training import presets
from scaledown.training.presets import demo

CONFIGS = {RunConfig: "data", ScaleDownConfig: "model", TrainingConfig: "training", EvaluationConfig: "evaluation"}
LOSS_RECORDS = 100
USAGE = ("[--train_data FILE] [--eval_data FILE] [--preset NAME] [--compressor_type NAME] [--output_dir FOLDER] "
         "[--resume] [--FLAG VALUE ...]")


def build_parser() -> argparse.ArgumentParser:
    """Return the script's flags."""
    return cli.settings_parser(__doc__, USAGE, CONFIGS, output_dir="./training_with_eval", eval_steps=100, batch_size=4,
                               generator_model=None)


def read_data(args: argparse.Namespace) -> tuple[list[Record], Path | None, list[Record]]:
    """Return the training records, the file of the evaluation records, and these; without files, the demo's."""
    if args.train_data is None:
        if args.eval_data is not None:
            raise ValueError(f"--eval_data {args.eval_data} needs --train_data: without it the demo's own questions "
                             "are used")
        return demo.lessons(args.seed), None, list(synthetic_records(args.eval_examples, args.seed, split="eval"))
    records, eval_data = read_records(args.train_data), Path(args.eval_data or eval_path(args.train_data))
    # A file that was named is missed by its reader.
    if not args.eval_data and not eval_data.exists():
        raise ValueError(f"{eval_data}: no evaluation records; give them with --eval_data")
    return records, eval_data, read_records(eval_data)[:args.eval_examples]


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, train, measure again, report."""
    args = presets.parse_or_offline(build_parser(), argv)
    _, config, training, evaluation = (cli.config_from(args, cls) for cls in CONFIGS)
    if config.reads_text:
        raise ValueError("--compressor_type none: this script measures a compressor; tune on full text with train.py, "
                         "then compare: python -m scaledown.evaluation.answering --checkpoint OURS TUNED_TEXT")
    records, eval_data, eval_records = read_data(args)
    hub.check_models(config, args.init_compressor)

    # Torch takes seconds to load; a wrong flag, file or name has been reported by now.
    from scaledown import processes
    from scaledown.data.overlap import overlap
    from scaledown.data.storage.run_information import next_commands
    from scaledown.evaluation.cost.machine_check import check_machine
    from scaledown.evaluation.report import before_after
    from scaledown.evaluation.report.phases import Phases
    from scaledown.evaluation.report.run_summary import summary
    from scaledown.training import batches, devices, objective, run, run_folder
    from scaledown.training.steps.schedule import num_steps, schedule_warnings

    device, folder = processes.join(devices.resolve_device(args.device)), Path(args.output_dir)
    objective.check_scores(config, training, records, args.train_data, args.resume)
    check_machine(config, training, records, device, args.dtype)
    cli.tell(f"loading {args.init_compressor or config.generator_model} ...")
    model = run.build_model(config, device, training.seed, args.init_compressor, args.dtype)
    batches.pads_to_max(training, model)  # Refuses what cannot be trained, before anything is written.
    information = run_folder.information(args, model, records, eval_data, eval_records)
    # Measured as people will ask; training has another default.
    model.long_documents, way = args.long_documents or SPLIT, args.long_documents

    with run_folder.claimed(folder, information, args.overwrite, args.resume) as resume_from:
        processes.say(f"generator {config.generator_model}, compressor {config.compressor_type}, on {device}: "
                      f"{len(records):,} training and {len(eval_records):,} evaluation records; results go to {folder}")
        warnings = [overlap(records, eval_records).note(), objective.note_before(model, training, records),
                    *schedule_warnings(len(records), training, args.eval_steps)]
        processes.warn(*warnings)
        phases = Phases(5)
        before = before_after.measure_before(model, eval_records, evaluation, training.seed, folder, phases.begin)
        phases.begin(f"training for {num_steps(len(records), training):,} steps of {training.batch_size} questions")
        evaluate = run.mean_loss(model, run.with_long_documents(model, eval_records[:LOSS_RECORDS], way), training)
        # The demo's records go from easy to hard; those of a file are shuffled.
        history = run.train(model, training, run.with_long_documents(model, records, way), folder / "checkpoints",
                            resume_from, evaluate, args.eval_steps, in_order=args.train_data is None,
                            name=args.train_data or demo.NAME)
        if args.train_data is None:
            history = [*demo.lesson_starts(training.batch_size), *history]
        warnings.append(objective.note_after(model))
        processes.warn(warnings[-1])
        report = before_after.measure_after(model, eval_records, evaluation, training.seed, folder, before, history,
                                            information, before_after.notes(args.init_compressor, warnings),
                                            phases.begin, folder / "checkpoints" / run.FINAL)
        given = sys.argv[1:] if argv is None else argv
        processes.say(f"{summary(report, folder, len(records), phases.seconds)}\n"
                      f"{next_commands(Path(__file__).name, given, folder / 'checkpoints' / run.FINAL, folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
