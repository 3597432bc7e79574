"""Train a reranking teacher on the made-up world.

A cross-encoder as deep as the generator of the demo, started from its weights: its later layers already find the
document about the entity asked for (lab/LOG.md). It takes minutes on a CPU and does not ship.

    python -m lab.embedded.reranker
    python -m lab.embedded.reranker --num_questions 4800 --output_dir longer
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaledown import cli
from scaledown.config import EMBEDDED
from scaledown.data.world.candidates import ranking_records
from scaledown.data.world.synthetic import GOLD_SCORE, synthetic_records
from scaledown.hub import EMBEDDED_FOLDER, load_tokenizer
from scaledown.prompt import Prompt
from scaledown.prompt.plain_text import plain_ids
from scaledown.settings import positive, require, setting
from scaledown.training.presets import demo

LINE, REPLY = "LINE", "REPLY"
"""Names, in the tokenizer's template, of the line break after a query and of the ids that come before an answer."""


@dataclass(frozen=True)
class RerankerTrainingConfig:
    """Settings of the cross-encoder's training."""

    num_name_questions: int = setting(9600, "questions of the first lesson, about a few short documents that differ in "
                                            "the name alone")
    num_questions: int = setting(2400, "questions of the second, with candidates as a search engine finds them")
    num_candidates: int = setting(6, "documents of each of these, of which one or two are relevant")
    batch_size: int = setting(48, "pairs of a question and a document a step")
    learning_rate: float = setting(1e-3, "peak learning rate of AdamW, falling linearly")
    seed: int = setting(42, "seed of the questions, of their order and of the head")

    def __post_init__(self) -> None:
        require(positive(self, "num_name_questions", "num_questions", "num_candidates", "batch_size", "learning_rate"))


def build_cross_encoder(seed: int) -> Any:
    """Return the demo's generator with a new head, which reads the state at the end of a pair.

    A pair is laid out as in the generator's training, ``[query][line break][document][reply]``: it was trained to
    answer there, or to say that the document does not answer, so the head finds there what it needs.
    """
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoModelForSequenceClassification

    from lab.embedded.world_batches import UNKNOWN

    tokenizer = load_tokenizer(EMBEDDED)
    _lay_out_pairs(tokenizer)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        EMBEDDED_FOLDER, num_labels=1, pad_token_id=tokenizer.pad_token_id, dtype=torch.float32)

    # The score starts as minus the logit of "unknown", its first token: a document that answers scores high.
    unknown_id = plain_ids(tokenizer, [UNKNOWN])[0][0]
    with torch.no_grad():
        model.score.weight.copy_(-model.get_input_embeddings().weight[[unknown_id]])       # (1, D)

    # CrossEncoder loads from a folder alone.
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return CrossEncoder(folder)


def _lay_out_pairs(tokenizer: Any) -> None:
    """Let ``tokenizer`` put a line break between the texts of a pair, and the start of a reply after them."""
    from tokenizers.processors import TemplateProcessing

    special_tokens = []
    for name, ids in ((LINE, plain_ids(tokenizer, ["\n"])[0]), (REPLY, Prompt(tokenizer).reply)):
        special_tokens.append({"id": name, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {REPLY}", pair=f"$A {LINE} $B {REPLY}", special_tokens=special_tokens)


def lessons(config: RerankerTrainingConfig) -> Iterator[list[dict[str, Any]]]:
    """Yield two lessons: questions, each with each of its documents, and 1 as the label of those that are relevant.

    Documents of one fact come first: nothing but the name distinguishes them. Without this lesson a compressor learned
    to match the relation asked for and not the entity; whether it helps a reranker was not measured.
    """
    names = demo.LESSONS[0][1]
    for records in (synthetic_records(config.num_name_questions, config.seed, difficulty=names),
                    ranking_records(config.num_questions, config.seed, num_candidates=config.num_candidates)):
        pairs = []
        for record in records:
            for document, score in zip(record.documents, record.reranking_scores, strict=True):
                pairs.append({"query": record.query, "document": document, "label": float(score == GOLD_SCORE)})

        # Within each lesson, so that the documents of a question are in different batches.
        random.Random(config.seed).shuffle(pairs)
        yield pairs


def train(model: Any, config: RerankerTrainingConfig, folder: Path) -> None:
    """Train by binary cross-entropy, so that a logit is the log-odds of relevance, and save to ``folder``."""
    import torch
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    from scaledown.training.steps.step_lines import print_in_lines

    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=config.batch_size, num_train_epochs=1,
        learning_rate=config.learning_rate, warmup_steps=0.05, lr_scheduler_type="linear", seed=config.seed,
        save_strategy="no", logging_steps=20, report_to=[], disable_tqdm=True, use_cpu=not torch.cuda.is_available())

    # Each lesson has a warm-up and a fall of the rate.
    for pairs in lessons(config):
        trainer = CrossEncoderTrainer(model, arguments, Dataset.from_list(pairs), loss=BinaryCrossEntropyLoss(model))
        print_in_lines(trainer)
        trainer.train()
    model.save_pretrained(str(folder))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "lab.embedded.reranker")
    parser.add_argument("--output_dir", default="embedded_reranker", metavar="FOLDER",
                        help="folder for the cross-encoder [embedded_reranker]")
    cli.add_flags(parser, RerankerTrainingConfig)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train, and say how to use the result."""
    args = build_parser().parse_args(argv)
    config, folder = cli.config_from(args, RerankerTrainingConfig), Path(args.output_dir)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"--output_dir {folder}: is not empty; give another folder, or delete it")

    # Only now, so that --help and mistakes need not wait for torch.
    from scaledown.training.devices import keep_freed_memory

    keep_freed_memory()
    model = build_cross_encoder(config.seed)
    print(f"training a cross-encoder of {sum(weight.numel() for weight in model.parameters()):,} weights on "
          f"{config.num_name_questions} easy questions, then {config.num_questions} with {config.num_candidates} "
          "documents each")
    train(model, config, folder)
    print(f"done: {folder}; as a teacher: --reranker_model {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
