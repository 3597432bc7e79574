"""The stages of a compressor's training, each with its records and settings; a killed run goes on from the last stage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors.torch import load_file, save_file

from lab.embedded.recipe import BEST_ROUNDS, StageSteps
from lab.embedded.stage_records import many_documents, mixed_and_best_documents, mixed_documents
from scaledown.config import TrainingConfig
from scaledown.data.records import Record
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.loading.checkpoint import CONFIG_FILE, whole_folder
from scaledown.models.model import ScaleDownModel
from scaledown.training import checkpoints, run
from scaledown.training.presets import demo

LESSONS = "lessons"
"""The first stage: the curriculum of the main job."""

NAMES_WEIGHT, JOINT_WEIGHT, BEST_WEIGHT = 0.5, 0.1, 0.2
"""Weights of the reranking loss: while scores are near chance; beside answers that suffer; beside good answers."""
READOUT_WEIGHT = 1.0
"""A compressor that had its lessons without this loss continued to guess how a name ends (lab/LOG.md)."""
LARGE_BATCH = 16


@dataclass(frozen=True)
class TrainingStage:
    """One stage.

    Attributes:
        name: names the stage's folder.
        records: makes the records, in the order of training; it gets the model as it is before the stage.
        training: settings of the training.
        with_scores: the model is also trained to score documents, from here on.
    """

    name: str
    records: Callable[[ScaleDownModel], Sequence[Record]]
    training: TrainingConfig
    with_scores: bool = False


def stages(steps: StageSteps) -> Iterator[TrainingStage]:
    """Yield the stages of a compressor; each starts from the weights of the one before it."""
    seed = steps.seed
    base = TrainingConfig(**demo.TRAINING | {"seed": seed, "save_steps": 200, "logging_steps": 25,
                                             "readout_loss_weight": READOUT_WEIGHT})
    # After the lessons smaller steps, then also less noise.
    slow = dataclasses.replace(base, learning_rate_generator=1e-3, learning_rate_compressor=2e-3)
    large = dataclasses.replace(slow, batch_size=LARGE_BATCH, readout_loss_weight=0.0,
                                reranking_loss_weight=JOINT_WEIGHT)

    yield TrainingStage(LESSONS, lambda model: demo.lessons(seed), base)
    yield TrainingStage("many", lambda model: many_documents(steps.many_steps * base.batch_size, seed), slow)
    yield TrainingStage("mixed", lambda model: mixed_documents(steps.mixed_steps * LARGE_BATCH, seed), large)
    if not steps.enable_reranking:
        return

    # Each stage draws its records with a seed of its own, so that no record is seen twice.
    for_names = dataclasses.replace(base, batch_size=LARGE_BATCH, reranking_loss_weight=NAMES_WEIGHT)
    yield TrainingStage("names", lambda model: list(synthetic_records(steps.name_steps * LARGE_BATCH, seed + 1,
                                                              difficulty=demo.NAMES)), for_names, with_scores=True)
    yield TrainingStage("joint", lambda model: mixed_documents(steps.joint_steps * LARGE_BATCH, seed + 100), large,
                with_scores=True)

    for_best = dataclasses.replace(large, reranking_loss_weight=BEST_WEIGHT)
    for number, candidates in enumerate(BEST_ROUNDS, start=1):
        # partial, not lambda: a lambda would see the number of the last round.
        make_records = partial(mixed_and_best_documents, num_records=steps.kept_steps * LARGE_BATCH,
                               seed=seed + 100 * (number + 1), candidates=candidates)
        yield TrainingStage(f"kept_{number}", make_records, for_best, with_scores=True)


def train_all(stages: Iterable[TrainingStage], model: ScaleDownModel, folder: Path) -> None:
    """Train ``model`` stage by stage; load those from ``folder`` that an earlier start finished."""
    for stage in stages:
        if stage.with_scores and not model.config.enable_reranking:
            model.enable_reranking()
        _train(stage, model, folder / stage.name)


def _train(stage: TrainingStage, model: ScaleDownModel, folder: Path) -> None:
    final = folder / run.FINAL
    # A checkpoint in final/ is whole, so the stage came to its end.
    if (final / CONFIG_FILE).is_file():
        print(f"{stage.name}: done already, in {final}")
        model.load_trained(final)
        return

    records = stage.records(model)
    print(f"{stage.name}: {len(records)} records, batch {stage.training.batch_size}, into {folder}")
    run.train(model, stage.training, records, folder, checkpoints.last(folder), in_order=True)


def save_small(model: ScaleDownModel, folder: Path) -> None:
    """Save ``model`` with its weights in half precision: half the size, and the same answers."""
    with whole_folder(folder, is_checkpoint=True) as draft:
        model.save_pretrained(draft)
        for path in draft.glob("*.safetensors"):
            halves = {name: weight.half() for name, weight in load_file(path).items()}
            save_file(halves, path, metadata={"format": "pt"})
