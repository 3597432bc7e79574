"""Teach an embedded checkpoint to score documents too: python -m scaledown.training.embedded.reranking_head

The compressor learns scores while its memory is held to what it was, so the generator, which is left alone, goes on
answering from it. No prompt is read, so a step costs less than one of joint training (docs/EXPERIMENTS.md).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from scaledown import cli
from scaledown.config import EMBEDDED, TrainingConfig
from scaledown.data.records import Record
from scaledown.data.reranking import Reranker, RerankerConfig, pairs_of, score_pairs, with_scores
from scaledown.data.synthetic import Difficulty, synthetic_records
from scaledown.data.synthetic_ranking import ranking_records
from scaledown.models.compressor import Compressed
from scaledown.models.model import ScaleDownModel
from scaledown.settings import positive, require, setting
from scaledown.training.devices import keep_freed_memory
from scaledown.training.embedded import recipe
from scaledown.training.optimizer import build_optimizer

WARMUP_STEPS = 20
NAMES = Difficulty((2, 4), (1, 1), hard_share=1.0, two_hop_share=0.0, fillers=False)
"""Short documents of one fact: there is nothing to tell them apart by but the entity asked for."""


@dataclass(frozen=True)
class HeadTrainingConfig:
    """Two lessons: whom a document is about, on short ones; then candidates as a search engine finds them."""

    name_steps: int = setting(700, "steps on short documents, for the scores alone")
    candidate_steps: int = setting(500, "steps on candidates, which bring the memory back to what it was")
    num_candidates: int = setting(6, "documents of a question in the second lesson, one or two of them relevant")
    learning_rate: float = setting(3e-3, "peak learning rate of either lesson")
    reranking_loss_weight: float = setting(0.05, "weight of the squared error of the scores, beside the memory's")
    seed: int = setting(TrainingConfig.seed, "seed of the questions and of the head")

    def __post_init__(self) -> None:
        require(positive(self, "name_steps", "candidate_steps", "num_candidates", "learning_rate",
                         "reranking_loss_weight"))


@dataclass(frozen=True)
class Lesson:
    """Records, and how they are learnt: the rate falls to 0 over the last ``decay_share`` of the steps."""

    records: Sequence[Record]
    batch_size: int
    decay_share: float
    keeps_memory: bool

    @property
    def num_steps(self) -> int:
        """One step a batch."""
        return len(self.records) // self.batch_size

    def batches(self) -> Iterator[Sequence[Record]]:
        """The records in order."""
        for step in range(self.num_steps):
            yield self.records[step * self.batch_size:(step + 1) * self.batch_size]


def lessons(config: HeadTrainingConfig, score: Callable[[list[Record]], list[Record]]) -> list[Lesson]:
    """Both lessons; ``score`` gives the candidates their teacher's scores."""
    names = list(synthetic_records(config.name_steps * 16, config.seed, difficulty=NAMES))
    candidates = list(ranking_records(config.candidate_steps * 10, config.seed, num_candidates=config.num_candidates))
    return [Lesson(names, 16, 0.25, keeps_memory=False), Lesson(score(candidates), 10, 0.6, keeps_memory=True)]


def learn(model: ScaleDownModel, wanted: ScaleDownModel, lesson: Lesson, config: HeadTrainingConfig) -> None:
    """Train the compressor of ``model``; its memory is drawn to that of ``wanted`` where the lesson says so."""
    compressor = model.compressor
    groups = [group for group in model.parameter_groups(0.0, config.learning_rate, recipe.TRAINING["weight_decay"])
              if group["name"].startswith("compressor")]
    optimizer = build_optimizer("muon", groups, model)

    def rate(step: int) -> float:
        left = (lesson.num_steps - step) / (lesson.decay_share * lesson.num_steps)
        return min(1.0, (step + 1) / WARMUP_STEPS) * min(1.0, left)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    bar = tqdm(lesson.batches(), total=lesson.num_steps, desc="candidates" if lesson.keeps_memory else "names")
    for records in bar:
        found, memory = compressed(model, records), None
        if lesson.keeps_memory:
            with torch.no_grad():
                memory = compressed(wanted, records).embeddings
        score_loss, memory_loss = losses(found, memory, records)
        (config.reranking_loss_weight * score_loss + memory_loss).backward()
        torch.nn.utils.clip_grad_norm_(compressor.parameters(), TrainingConfig.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        bar.set_postfix(score=f"{score_loss.item():.2f}", memory=f"{memory_loss.item():.3f}", refresh=False)
    model.eval()


def compressed(model: ScaleDownModel, records: Sequence[Record]) -> Compressed:
    """All the records' documents, with gradients where they are on."""
    texts = model.processor.compressor_input([record.query for record in records],
                                             [record.documents for record in records])
    return model.compressor(texts.to(model.device), model.generator.embed)


def losses(found: Compressed, memory: Tensor | None, records: Sequence[Record]) -> tuple[Tensor, Tensor]:
    """The scores' mean squared error, and the memory's as a share of its own size; 0 without a memory to keep."""
    teacher = torch.tensor([score for record in records for score in record.reranking_scores])
    score_loss = (found.scores - teacher.to(found.scores.device)).square().mean()
    if memory is None:
        return score_loss, score_loss.new_zeros(())
    return score_loss, (found.embeddings - memory).square().mean() / memory.square().mean()


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=EMBEDDED, help=f"a checkpoint of the embedded generator [{EMBEDDED}]")
    parser.add_argument("--output_dir", default="embedded_reranking", help="gets the checkpoint with the head "
                        "[embedded_reranking]")
    cli.add_flags(parser, HeadTrainingConfig)
    cli.add_flags(parser, RerankerConfig, reranker_model=None)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train the head, and write the checkpoint."""
    args = build_parser().parse_args(argv)
    config, folder = cli.config_from(args, HeadTrainingConfig), Path(args.output_dir)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"--output_dir {folder}: is not empty; give another folder, or delete it")
    reranker = Reranker(cli.config_from(args, RerankerConfig)) if args.reranker_model else None
    keep_freed_memory()
    torch.manual_seed(config.seed)
    wanted, model = (ScaleDownModel.from_pretrained(args.checkpoint) for _ in range(2))
    if not model.config.enable_reranking:
        model.enable_reranking()
    print(f"teaching {args.checkpoint} to score documents, {config.name_steps} + {config.candidate_steps} steps; the "
          f"teacher is {args.reranker_model or 'relevance as known by construction'}")
    for lesson in lessons(config, lambda records: _scored(records, reranker)):
        learn(model, wanted, lesson, config)
    model.config = dataclasses.replace(model.config, keep_threshold=None)
    model.save_pretrained(folder)
    print(f"done: {folder}; how well it ranks: python -m scaledown.evaluation.ranking --checkpoint {folder}")
    return 0


def _scored(records: list[Record], reranker: Reranker | None) -> list[Record]:
    return with_scores(records, score_pairs(reranker, pairs_of(records))) if reranker else records


if __name__ == "__main__":
    sys.exit(main())
