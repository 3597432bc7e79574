"""Training in stages, each with records and settings of its own, that goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scaledown.config import TrainingConfig
from scaledown.data.records import Record
from scaledown.models.loading.checkpoint import CONFIG_FILE
from scaledown.models.model import ScaleDownModel
from scaledown.training import checkpoints, run


@dataclass(frozen=True)
class Stage:
    """What is learnt, and how.

    Attributes:
        name: names the stage's folder.
        records: makes the records, in the order in which they are learnt; it gets the model as the stage finds it.
        training: how they are learnt.
        with_scores: the model learns to score documents, too, from here on.
    """

    name: str
    records: Callable[[ScaleDownModel], Sequence[Record]]
    training: TrainingConfig
    with_scores: bool = False


def train_all(stages: Iterable[Stage], model: ScaleDownModel, folder: Path) -> None:
    """Take ``model`` through ``stages``; those that an earlier start finished are loaded from ``folder``."""
    for stage in stages:
        if stage.with_scores and not model.config.enable_reranking:
            model.enable_reranking()
        _train(stage, model, folder / stage.name)


def _train(stage: Stage, model: ScaleDownModel, folder: Path) -> None:
    if (folder / run.FINAL / CONFIG_FILE).is_file():
        print(f"{stage.name}: done already, in {folder / run.FINAL}")
        model.load_trained(folder / run.FINAL)
        return
    records = stage.records(model)
    print(f"{stage.name}: {len(records)} records, batch {stage.training.batch_size}, into {folder}")
    run.train(model, stage.training, records, folder, checkpoints.last(folder), in_order=True)
