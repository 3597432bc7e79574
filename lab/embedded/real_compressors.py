"""Train a compressor on a generator for real questions: python -m lab.embedded.real_compressors

The generator is what ``python -m lab.embedded --train_data`` made, the records are those it learnt
from. They make easy lessons first: phrases, then sentences, then passages, at last their own questions with all
documents. With --pretrained it is a model that can read already: passages with their questions, learnt at first from
the readout alone, then the questions. Killed, it goes on where it was.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.embedded.real_lessons import passages, phrases, sentences
from lab.embedded.shared_passages import on_all_documents, on_one_passage
from lab.embedded.stages import Stage, train_all
from scaledown import cli
from scaledown.config import COMPRESSOR_TYPES, EMBEDDED, ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record, read_records
from scaledown.settings import positive, require, setting
from scaledown.training import demo, inputs, run, run_folder
from scaledown.training.devices import DEVICES


@dataclass(frozen=True)
class LessonSteps:
    """How long each lesson is."""

    phrase_steps: int = setting(700, "steps of 16 questions on phrases")
    sentence_steps: int = setting(600, "steps of 16 questions on sentences")
    passage_steps: int = setting(600, "steps of 12 questions on one to three passages [--pretrained: of 24 on one]")
    question_steps: int = setting(900, "steps of 8 questions on three to five passages, most of them the records' own "
                                  "[--pretrained: on all documents of theirs]")
    seed: int = setting(TrainingConfig.seed, "seed of weights and lessons")

    def __post_init__(self) -> None:
        require(positive(self, "phrase_steps", "sentence_steps", "passage_steps", "question_steps"))


def model_settings(compressor_type: str, generator_model: str) -> dict[str, Any]:
    """Settings of a compressor made of the generator's layers, if it can in the order that they learnt to read."""
    own = {"n_layers": {"input_order": "document_first"}, "modernbert": {"compressor_model": EMBEDDED},
           "llm": {"input_order": "document_first", "compressor_model": generator_model}}[compressor_type]
    return demo.MODEL[compressor_type] | own | {"memory_init": "reply"}


def pretrained_settings(compressor_type: str, generator_model: str) -> dict[str, Any]:
    """Settings of a compressor made of a pretrained generator's layers: the paper's sizes.

    Raises:
        ValueError: for an encoder, which would have to be pretrained first.
    """
    if compressor_type == "modernbert":
        raise ValueError("--pretrained is for compressors made of the generator, n_layers or llm: train an encoder "
                         "with train.py --pretrain_steps")
    own = {"compressor_model": generator_model} if compressor_type == "llm" else {}
    return own | {"input_order": "document_first", "memory_init": "reply", "memory_norm": True, "lora_dropout": 0.0}


def pretrained_stages(records: Sequence[Record], steps: LessonSteps) -> Iterator[Stage]:
    """The lessons for a generator that can read: a copy of it learns to read off, then it to read what that hands on.

    Two thirds of the first lesson are for the copy alone.
    """
    common = {"seed": steps.seed, "weight_decay": 0.01, "answer_tokens": 32, "readout_loss_weight": 1.0,
              "save_steps": 20, "logging_steps": 10, "warmup_ratio": 0.08}
    for name, make, num_steps, batch_size, settings in (
            ("passages", on_one_passage, steps.passage_steps, 24,
             {"readout_steps": 2 * steps.passage_steps // 3, "learning_rate_compressor": 3e-4,
              "learning_rate_generator": 1e-3}),
            ("questions", on_all_documents, steps.question_steps, 8,
             {"learning_rate_compressor": 1e-4, "learning_rate_generator": 1e-3})):
        training = TrainingConfig(batch_size=batch_size, **common, **settings)
        yield Stage(name, lambda _, make=make, count=num_steps, size=batch_size: make(records, count, size, steps.seed),
                    training)


def stages(records: Sequence[Record], steps: LessonSteps) -> Iterator[Stage]:
    """The lessons; each starts where the one before it ended, and keeps a little of what came before."""
    seed = steps.seed

    def words(count: int) -> list[Record]:
        return phrases(records, count, seed)

    def near(count: int) -> list[Record]:
        return _shuffled(seed, phrases(records, count // 5, seed + 1),
                         sentences(records, count - count // 5, seed))

    def whole(count: int) -> list[Record]:
        return _shuffled(seed, sentences(records, 2 * count // 5, seed + 1, blank_share=0.75),
                         passages(records, count - 2 * count // 5, seed, (1, 3), blank_share=0.5))

    def asked(count: int) -> list[Record]:
        return _shuffled(seed, passages(records, 2 * count // 5, seed + 1, (1, 3), blank_share=0.5),
                         passages(records, count - 2 * count // 5, seed + 2, (3, 5), blank_share=0.35))

    for name, make, num_steps, batch_size, rate in (
            ("phrases", words, steps.phrase_steps, 16, 3e-3), ("sentences", near, steps.sentence_steps, 16, 2.5e-3),
            ("passages", whole, steps.passage_steps, 12, 2e-3), ("questions", asked, steps.question_steps, 8, 1.5e-3)):
        training = TrainingConfig(**demo.TRAINING | {
            "seed": seed, "save_steps": 200, "logging_steps": 25, "readout_loss_weight": 1.0, "answer_tokens": 32,
            "batch_size": batch_size, "learning_rate_generator": rate / 2, "learning_rate_compressor": rate})
        yield Stage(name, lambda _, make=make, count=num_steps * batch_size: make(count), training)


def _shuffled(seed: int, *parts: list[Record]) -> list[Record]:
    records = [record for part in parts for record in part]
    random.Random(seed).shuffle(records)
    return records


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data", nargs="+", required=True, help="the records, JSON or JSONL")
    parser.add_argument("--generator_model", required=True,
                        help="a folder that python -m lab.embedded --train_data wrote; with "
                        "--pretrained any generator, a Hub id or a local folder")
    parser.add_argument("--pretrained", action="store_true",
                        help="the generator reads well already: two lessons, at a fine-tuning's learning rates")
    parser.add_argument("--compressor_type", default="n_layers", choices=COMPRESSOR_TYPES, help="[n_layers]")
    parser.add_argument("--output_dir", default="real_compressor",
                        help="gets a folder a lesson, and the result in questions/final/ [real_compressor]")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to train [auto]")
    cli.add_flags(parser, LessonSteps)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train, lesson by lesson."""
    args = build_parser().parse_args(argv)
    steps, folder = cli.config_from(args, LessonSteps), Path(args.output_dir)
    records = [record for path in args.train_data for record in read_records(path)]
    settings = pretrained_settings if args.pretrained else model_settings
    lessons = pretrained_stages if args.pretrained else stages
    config = ScaleDownConfig(generator_model=args.generator_model, compressor_type=args.compressor_type,
                             **settings(args.compressor_type, args.generator_model))
    model = run.build_model(config, args.device, steps.seed)
    found = inputs.of_run(model.config) | inputs.of_records("--train_data", " ".join(args.train_data), records)
    information = {run_folder.SETTINGS: vars(args), run_folder.INPUTS: found}
    with run_folder.claimed(folder, information, resume=(folder / run_folder.RUN_FILE).exists()):
        train_all(lessons(records, steps), model, folder)
        print(f"done: {folder / 'questions' / run.FINAL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
