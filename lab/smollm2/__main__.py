"""Train the checkpoint "smollm2" on real questions.

First the compressor learns from the readout alone to find answers in passages; then the generator learns to answer
from their memory; then from more documents, some without the answer. A killed run goes on where it was.

    python -m lab.smollm2 --train_data squad.json nq.json --output_dir smollm2_run
    python -m lab.smollm2 --train_data squad.json --init_compressor smollm2 --passage_steps 0 --output_dir longer
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scaledown import cli
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record, read_records
from scaledown.settings import not_negative, require, setting

if TYPE_CHECKING:
    from lab.embedded.stages import TrainingStage


@dataclass(frozen=True)
class LessonSteps:
    """Length of each stage, and its peak learning rate of the compressor."""

    passage_steps: int = setting(220, "steps of 32 questions, the compressor alone")
    answer_steps: int = setting(50, "steps of 32 questions, one to three documents")
    document_steps: int = setting(45, "steps of 16 questions, one to ten documents")
    passage_rate: float = setting(1e-3, "peak learning rate of the first stage")
    answer_rate: float = setting(7e-4, "of the second stage")
    document_rate: float = setting(5e-4, "of the third stage")
    seed: int = setting(42, "seed of new weights and of the lessons")

    def __post_init__(self) -> None:
        require(not_negative(self, "passage_steps", "answer_steps", "document_steps", "passage_rate", "answer_rate",
                             "document_rate"))


def model_config(generator_model: str) -> ScaleDownConfig:
    """Return the settings of the model: a compressor made of the generator itself, both changed by LoRA alone.

    The system prompt is short because a trained generator needs no longer one, and every prompt pays for it.
    """
    return ScaleDownConfig(
        generator_model=generator_model, compressor_type="llm", compressor_model=generator_model,
        compressor_lora_rank=16, lora_rank=8, lora_alpha=16, lora_dropout=0.0,
        input_order="document_first", memory_init="reply", soft_tokens=True, enable_reranking=True,
        system_prompt="Answer briefly.")


def stages(records: Sequence[Record], steps: LessonSteps) -> Iterator[TrainingStage]:
    """Yield the stages; each starts from the weights of the one before it."""
    from lab.embedded.stages import TrainingStage
    from lab.smollm2.lessons import Lesson, records_of

    # The readout loss starts each stage at its full weight: it tells the compressor of every document by itself.
    base = {"seed": steps.seed, "weight_decay": 0.01, "answer_tokens": 32, "readout_loss_weight": 1.0,
            "learning_rate_generator": 1e-3, "save_steps": 20, "logging_steps": 5, "warmup_ratio": 0.06}
    passages = Lesson(num_documents=(1, 2))
    few = Lesson(num_documents=(1, 2, 2, 3), unanswered_share=0.05)
    many = Lesson(num_documents=(1, 2, 3, 4, 5, 5, 5, 6, 8, 10), unanswered_share=0.12, own_share=0.2)

    plan = (("passages", passages, steps.passage_steps, 32, steps.passage_rate, {"readout_steps": steps.passage_steps}),
            ("answers", few, steps.answer_steps, 32, steps.answer_rate, {}),
            ("documents", many, steps.document_steps, 16, steps.document_rate, {}))
    for number, (name, lesson, num_steps, batch_size, rate, more) in enumerate(plan):
        if not num_steps:
            continue
        training = TrainingConfig(**base | more, batch_size=batch_size, learning_rate_compressor=rate)
        make_records = partial(records_of, lesson, records, num_steps, batch_size, steps.seed + number)
        yield TrainingStage(name, lambda model, make=make_records: make(), training)


def build_parser() -> cli.Parser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "lab.smollm2", "--train_data FILE ... [--FLAG VALUE ...]")
    parser.add_argument("--train_data", nargs="+", required=True, metavar="FILE", help="records, JSON or JSONL")
    parser.add_argument("--generator_model", default="smollm2", metavar="NAME", help="the generator [smollm2]")
    parser.add_argument("--init_compressor", metavar="NAME", help="go on from this checkpoint [a new compressor]")
    parser.add_argument("--output_dir", default="smollm2_run", metavar="FOLDER",
                        help="gets a folder for each stage, and the result in checkpoint/ [smollm2_run]")
    cli.add_device(parser)
    cli.add_flags(parser, LessonSteps)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train, stage by stage."""
    args = build_parser().parse_args(argv)
    steps, folder = cli.config_from(args, LessonSteps), Path(args.output_dir)

    records = []
    for path in args.train_data:
        records += read_records(path)

    # Only now, so that --help and mistakes need not wait for torch.
    from lab.embedded.stages import save_small, train_all
    from scaledown.training import run

    model = run.build_model(model_config(args.generator_model), args.device, steps.seed, args.init_compressor)
    train_all(stages(records, steps), model, folder)
    save_small(model, folder / "checkpoint")
    print(f"done: {folder / 'checkpoint'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
