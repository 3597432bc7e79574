"""Make the compressors that ship: python -m scaledown.training.embedded.compressors --compressor_type n_layers

What the main job learns in a quarter of an hour, and then what it has no time for: up to ten documents, passages as
long as a document may be, candidates as a search engine finds them, and all of that in larger batches; at last
(``--enable_reranking``) scores, first whom a short document is about, then beside answers. Killed, it goes on where it
was.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from scaledown import cli
from scaledown.config import COMPRESSOR_TYPES, EMBEDDED, ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record
from scaledown.data.synthetic import Difficulty, synthetic_records
from scaledown.data.synthetic_lengths import of_many_lengths
from scaledown.data.synthetic_ranking import ranking_records
from scaledown.models.checkpoint import CONFIG_FILE, whole_folder
from scaledown.models.model import ScaleDownModel
from scaledown.settings import positive, require, setting
from scaledown.training import checkpoints, run, run_folder
from scaledown.training.devices import DEVICES
from scaledown.training.embedded import recipe

MANY = Difficulty((1, 10), (3, 6), hard_share=0.7, two_hop_share=0.05)
CANDIDATES = (2, 10)
USUAL = Difficulty((2, 6), (3, 6), hard_share=0.65)
"""Documents as questions of the embedded world have them, give or take a few."""
NAMES_WEIGHT, JOINT_WEIGHT = 0.5, 0.1
"""Weights of the reranking loss while scores are still as good as guessed, and then."""
LARGE_BATCH = 16
READOUT_WEIGHT = 1.0
"""A compressor that went through the lessons without it went on guessing how a name ends (docs/EXPERIMENTS.md)."""
LESSONS = "lessons"


@dataclass(frozen=True)
class StageSteps:
    """What is learnt, and how long each stage is."""

    enable_reranking: bool = setting(False, "learn to score documents, too")
    many_steps: int = setting(1800, "steps on many documents of many lengths")
    mixed_steps: int = setting(1500, "steps on these and on those of the usual kind, in larger batches")
    name_steps: int = setting(900, "with scores: steps on short documents, to learn whom one is about")
    joint_steps: int = setting(1300, "with scores: steps on all kinds again, for answers and scores together")
    seed: int = setting(TrainingConfig.seed, "seed of weights and records")

    def __post_init__(self) -> None:
        require(positive(self, "many_steps", "mixed_steps", "name_steps", "joint_steps"))


@dataclass(frozen=True)
class Stage:
    """Records in the order in which they are learnt, and how."""

    name: str
    records: Sequence[Record]
    training: TrainingConfig
    with_scores: bool = False


def stages(steps: StageSteps) -> Iterator[Stage]:
    """What a compressor goes through; each stage starts where the one before it ended."""
    base = TrainingConfig(**recipe.TRAINING | {"seed": steps.seed, "save_steps": 200, "logging_steps": 25,
                                               "readout_loss_weight": READOUT_WEIGHT})
    slower = dataclasses.replace(base, learning_rate_generator=1e-3, learning_rate_compressor=2e-3)
    large = dataclasses.replace(slower, batch_size=LARGE_BATCH, readout_loss_weight=0.0,
                                reranking_loss_weight=JOINT_WEIGHT)
    yield Stage(LESSONS, recipe.lessons(steps.seed), base)
    yield Stage("many", many(steps.many_steps * base.batch_size, steps.seed), slower)
    yield Stage("mixed", mixed(steps.mixed_steps * LARGE_BATCH, steps.seed), large)
    if steps.enable_reranking:
        names = synthetic_records(steps.name_steps * LARGE_BATCH, steps.seed + 1, difficulty=recipe.NAMES)
        yield Stage("names", list(names), dataclasses.replace(base, batch_size=LARGE_BATCH,
                                                              reranking_loss_weight=NAMES_WEIGHT), with_scores=True)
        yield Stage("joint", mixed(steps.joint_steps * LARGE_BATCH, steps.seed + 100), large, with_scores=True)


def many(num_records: int, seed: int) -> list[Record]:
    """Up to ten documents of many lengths, half of the records with candidates as a search engine finds them."""
    fewest, most = CANDIDATES
    plain = synthetic_records(num_records // 2, seed + 2, difficulty=MANY)
    found = [record for count in range(fewest, most + 1)
             for record in ranking_records(num_records // (2 * (most - fewest + 1)) + 1, seed + count,
                                           num_candidates=count)]
    records = [*plain, *found]
    random.Random(f"many-{seed}").shuffle(records)
    return list(of_many_lengths(records, seed))[:num_records]


def mixed(num_records: int, seed: int) -> list[Record]:
    """Half :func:`many`, half documents as questions usually have them."""
    records = many(num_records // 2, seed + 300)
    records += synthetic_records(num_records - len(records), seed + 301, difficulty=USUAL)
    random.Random(seed).shuffle(records)
    return records


def train(stage: Stage, model: ScaleDownModel, folder: Path) -> None:
    """Train ``model`` through ``stage``, or load what an earlier start made of it."""
    if (folder / run.FINAL / CONFIG_FILE).is_file():
        print(f"{stage.name}: done already, in {folder / run.FINAL}")
        model.load_trained(folder / run.FINAL)
        return
    print(f"{stage.name}: {len(stage.records)} records, batch {stage.training.batch_size}, into {folder}")
    run.train(model, stage.training, stage.records, folder, checkpoints.last(folder), in_order=True)


def save_small(model: ScaleDownModel, folder: Path) -> None:
    """Save ``model`` with its weights in half precision: what ships should be small, and its answers stay the same."""
    with whole_folder(folder) as draft:
        model.save_pretrained(draft)
        for path in draft.glob("*.safetensors"):
            halves = {name: weight.half() for name, weight in load_file(path).items()}
            save_file(halves, path, metadata={"format": "pt"})


def build_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compressor_type", default="n_layers", choices=COMPRESSOR_TYPES, help="[n_layers]")
    parser.add_argument("--init_compressor", help="start from this checkpoint, which has been through the lessons")
    parser.add_argument("--output_dir", default="embedded_compressor", help="gets a folder a stage, and the result in "
                        "final/ [embedded_compressor]")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to train [auto]")
    cli.add_flags(parser, StageSteps)
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train, stage by stage."""
    args = build_parser().parse_args(argv)
    steps, folder = cli.config_from(args, StageSteps), Path(args.output_dir)
    settings: dict[str, Any] = {"generator_model": EMBEDDED, "compressor_type": args.compressor_type}
    model = run.build_model(ScaleDownConfig(**settings | recipe.MODEL[args.compressor_type]), args.device, steps.seed,
                            args.init_compressor)
    run_folder.claim(folder, {run_folder.SETTINGS: vars(args)}, resume=(folder / run_folder.RUN_FILE).exists())
    for stage in stages(steps):
        if stage.name == LESSONS and args.init_compressor:
            continue
        if stage.with_scores and not model.config.enable_reranking:
            model.enable_reranking()
        train(stage, model, folder / stage.name)
    save_small(model, folder / run.FINAL)
    print(f"done: {folder / run.FINAL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
