"""Make the compressors that ship: python -m lab.embedded.compressors --compressor_type n_layers

What the main job learns in a quarter of an hour, and then what it has no time for: up to ten documents, passages as
long as a document may be, candidates as a search engine finds them, and all of that in larger batches; at last
(``--enable_reranking``) scores, first whom a short document is about, then beside answers, and answers from the
documents that those scores keep. Killed, it goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from lab.embedded.lessons import AS_FOUND, NEAR, many, mixed, with_kept
from lab.embedded.stages import Stage, train_all
from scaledown import cli
from scaledown.config import COMPRESSOR_TYPES, EMBEDDED, ScaleDownConfig, TrainingConfig, positive, require, setting
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.loading.checkpoint import whole_folder
from scaledown.models.model import ScaleDownModel
from scaledown.training import run, run_folder
from scaledown.training.devices import DEVICES
from scaledown.training.presets import demo

NAMES_WEIGHT, JOINT_WEIGHT, KEPT_WEIGHT = 0.5, 0.1, 0.2
"""Weights of the reranking loss: while scores are as good as guessed; beside answers that suffer; beside good ones."""
KEPT_ROUNDS = (AS_FOUND, AS_FOUND, NEAR)
"""The candidates of each round; it learns from those that the model keeps after the round before."""
LARGE_BATCH = 16
READOUT_WEIGHT = 1.0
"""A compressor that went through the lessons without it went on guessing how a name ends (lab/LOG.md)."""
LESSONS = "lessons"


@dataclass(frozen=True)
class StageSteps:
    """What is learnt, and how long each stage is."""

    enable_reranking: bool = setting(False, "learn to score documents, too")
    many_steps: int = setting(1800, "steps on many documents of many lengths")
    mixed_steps: int = setting(1500, "steps on these and on those of the usual kind, in larger batches")
    name_steps: int = setting(900, "with scores: steps on short documents, to learn whom one is about")
    joint_steps: int = setting(1300, "with scores: steps on all kinds again, for answers and scores together")
    kept_steps: int = setting(1000, f"with scores: steps of each of {len(KEPT_ROUNDS)} rounds on what it keeps")
    seed: int = setting(TrainingConfig.seed, "seed of weights and records")

    def __post_init__(self) -> None:
        require(positive(self, "many_steps", "mixed_steps", "name_steps", "joint_steps", "kept_steps"))


def stages(steps: StageSteps) -> Iterator[Stage]:
    """What a compressor goes through; each stage starts where the one before it ended."""
    seed = steps.seed
    base = TrainingConfig(**demo.TRAINING | {"seed": seed, "save_steps": 200, "logging_steps": 25,
                                               "readout_loss_weight": READOUT_WEIGHT})
    slower = dataclasses.replace(base, learning_rate_generator=1e-3, learning_rate_compressor=2e-3)
    large = dataclasses.replace(slower, batch_size=LARGE_BATCH, readout_loss_weight=0.0,
                                reranking_loss_weight=JOINT_WEIGHT)
    yield Stage(LESSONS, lambda _: demo.lessons(seed), base)
    yield Stage("many", lambda _: many(steps.many_steps * base.batch_size, seed), slower)
    yield Stage("mixed", lambda _: mixed(steps.mixed_steps * LARGE_BATCH, seed), large)
    if steps.enable_reranking:
        yield Stage("names", lambda _: list(synthetic_records(steps.name_steps * LARGE_BATCH, seed + 1,
                                                              difficulty=demo.NAMES)),
                    dataclasses.replace(base, batch_size=LARGE_BATCH, reranking_loss_weight=NAMES_WEIGHT),
                    with_scores=True)
        yield Stage("joint", lambda _: mixed(steps.joint_steps * LARGE_BATCH, seed + 100), large, with_scores=True)
        for number, candidates in enumerate(KEPT_ROUNDS, start=1):
            yield Stage(f"kept_{number}", partial(with_kept, num_records=steps.kept_steps * LARGE_BATCH,
                                                  seed=seed + 100 * (number + 1), candidates=candidates),
                        dataclasses.replace(large, reranking_loss_weight=KEPT_WEIGHT), with_scores=True)


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
    model = run.build_model(ScaleDownConfig(**settings | demo.MODEL[args.compressor_type]), args.device, steps.seed,
                            args.init_compressor)
    information = {run_folder.SETTINGS: vars(args),
                   run_folder.INPUTS: run_folder.inputs_of_run(model.config, args.init_compressor)}
    with run_folder.claimed(folder, information, resume=(folder / run_folder.RUN_FILE).exists()):
        left = (stage for stage in stages(steps) if stage.name != LESSONS or not args.init_compressor)
        train_all(left, model, folder)
        save_small(model, folder / run.FINAL)
        print(f"done: {folder / run.FINAL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
