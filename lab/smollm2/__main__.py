"""Train the checkpoint "smollm2" on real questions.

First the compressor learns from the readout alone to find answers in passages; then the generator learns to copy an
answer from ideal memory; then both learn from several documents, some without the answer. A killed run goes on where it
was.

    python -m lab.smollm2 --train_data squad.json nq.json --output_dir smollm2_run
    python -m lab.smollm2 --train_data squad.json --init_compressor smollm2 --keep_layers 0-11,18-29 --copying_steps 0
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
    from scaledown.models.model import ScaleDownModel

PASSAGES, COPYING, DOCUMENTS = "passages", "copying", "documents"
"""The stages, each with a folder of this name."""
BATCH_SIZE = 16
ANSWER_TOKENS = 32


@dataclass(frozen=True)
class LessonSteps:
    """Length of each stage, in steps of 16 questions, and its peak learning rate."""

    passage_steps: int = setting(1500, "steps of the compressor alone, one to three documents")
    copying_steps: int = setting(60, "steps of the generator alone, from ideal memory")
    document_steps: int = setting(150, "steps of both, one to ten documents")
    passage_rate: float = setting(8e-4, "peak learning rate of the first stage")
    copying_rate: float = setting(1e-3, "of the second stage")
    document_rate: float = setting(3e-4, "of the third stage; the generator's is 1e-3")
    seed: int = setting(42, "seed of new weights and of the lessons")

    def __post_init__(self) -> None:
        require(not_negative(self, "passage_steps", "copying_steps", "document_steps", "passage_rate", "copying_rate",
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
    """Yield the stages that train the compressor; each starts from the weights of the one before it."""
    from lab.embedded.stages import TrainingStage
    from lab.smollm2.lessons import Lesson, records_of

    # The readout loss has its full weight in each stage: it tells the compressor of every document by itself.
    base = {"seed": steps.seed, "weight_decay": 0.01, "answer_tokens": ANSWER_TOKENS, "readout_loss_weight": 1.0,
            "batch_size": BATCH_SIZE, "learning_rate_generator": 1e-3, "save_steps": 20, "logging_steps": 5,
            "warmup_ratio": 0.06}
    passages = Lesson(num_documents=(1, 2, 3))
    documents = Lesson(num_documents=(1, 2, 3, 5, 5, 8, 10), unanswered_share=0.15, own_share=0.15)

    plan = ((PASSAGES, passages, steps.passage_steps, steps.passage_rate, {"readout_steps": steps.passage_steps}),
            (DOCUMENTS, documents, steps.document_steps, steps.document_rate, {}))
    for number, (name, lesson, num_steps, rate, more) in enumerate(plan):
        if not num_steps:
            continue
        training = TrainingConfig(**base | more, learning_rate_compressor=rate)
        make_records = partial(records_of, lesson, records, num_steps, BATCH_SIZE, steps.seed + number)
        yield TrainingStage(name, lambda model, make=make_records: make(), training)


def copy_first(model: ScaleDownModel, records: Sequence[Record], steps: LessonSteps, folder: Path) -> None:
    """Teach the generator to copy from ideal memory, or load the result of an earlier start from ``folder``."""
    from lab.smollm2.copying import learn_to_copy
    from lab.smollm2.lessons import Lesson, records_of
    from scaledown.models.loading.checkpoint import CONFIG_FILE

    if (folder / CONFIG_FILE).is_file():
        print(f"{COPYING}: done already, in {folder}")
        model.load_trained(folder)
        return

    # As many documents as later, so that the generator learns to find the one memory that says the answer.
    lesson = Lesson(num_documents=(1, 2, 3, 5), unanswered_share=0.1)
    lesson_records = records_of(lesson, records, steps.copying_steps, BATCH_SIZE, steps.seed + 10)
    print(f"{COPYING}: {len(lesson_records)} records, batch {BATCH_SIZE}, into {folder}")
    learn_to_copy(model, lesson_records, BATCH_SIZE, steps.copying_rate, ANSWER_TOKENS)
    model.save_pretrained(folder)


def build_parser() -> cli.Parser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "lab.smollm2", "--train_data FILE ... [--FLAG VALUE ...]")
    parser.add_argument("--train_data", nargs="+", required=True, metavar="FILE", help="records, JSON or JSONL")
    parser.add_argument("--generator_model", default="smollm2", metavar="NAME", help="the generator [smollm2]")
    parser.add_argument("--init_compressor", metavar="NAME", help="go on from this checkpoint [a new compressor]")
    parser.add_argument("--keep_layers", metavar="RANGES",
                        help="keep only these layers of the compressor that it has, such as 0-11,18-29 [all]")
    parser.add_argument("--output_dir", default="smollm2_run", metavar="FOLDER",
                        help="gets a folder for each stage, and the result in checkpoint/ [smollm2_run]")
    cli.add_device(parser)
    cli.add_dtype(parser)
    cli.add_flags(parser, LessonSteps)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train, stage by stage."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.keep_layers and not args.init_compressor:
        parser.error("--keep_layers takes layers away from a trained compressor: name it with --init_compressor")
    steps, folder = cli.config_from(args, LessonSteps), Path(args.output_dir)

    records = []
    for path in args.train_data:
        records += read_records(path)

    # Only now, so that --help and mistakes need not wait for torch.
    from lab.embedded.stages import save_small, train_all
    from lab.smollm2.fewer_layers import with_fewer_layers
    from scaledown.training import run

    model = run.build_model(model_config(args.generator_model), args.device, steps.seed, args.init_compressor,
                            args.dtype)
    if args.keep_layers:
        model = with_fewer_layers(model, args.keep_layers)

    for stage in stages(records, steps):
        if stage.name == DOCUMENTS and steps.copying_steps:
            copy_first(model, records, steps, folder / COPYING)
        train_all([stage], model, folder)
    save_small(model, folder / "checkpoint")
    print(f"done: {folder / 'checkpoint'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
