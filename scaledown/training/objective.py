"""The loss that a step learns from: the parts that the model measures, weighed (paper, equation 3).

A reranking head learns from teachers' scores; without them it would rank documents at random, without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record
from scaledown.models.losses import Losses
from scaledown.models.model import ScaleDownModel


def weights(config: TrainingConfig, step: int, num_steps: int) -> tuple[float, ...]:
    """Return the weight of each part of the loss, in their order in :class:`Losses`, in a step counted from 0.

    That of the readout loss falls to 0 once the generator learns: what shows the way at first would later hold the
    memory to words of one document.
    """
    alone = config.readout_steps
    share = max(0, step - alone) / max(1, num_steps - alone)
    return (1.0, config.reranking_loss_weight, config.readout_loss_weight * (1 - share))


def times(losses: Losses, factors: Sequence[float] | Tensor) -> Losses:
    """Return the parts that a batch has, each times its factor."""
    return Losses(*(None if part is None else part * factor for part, factor in zip(losses, factors, strict=True)))


def weighted(losses: Losses, weights: Sequence[float]) -> Tensor:
    """Return the sum of the parts that a batch has, each times its weight."""
    return sum(part for part in times(losses, weights) if part is not None)


def check_scores(config: ScaleDownConfig, training: TrainingConfig, records: Sequence[Record],
          train_data: Path | str | None) -> None:
    """See that there is something for the head of ``--enable_reranking`` to learn from.

    Args:
        config: the model that was asked for.
        training: how it is to be trained.
        records: what it is to be trained on; none where the run only pretrains.
        train_data: the file that they were read from.

    Raises:
        ValueError: if there is nothing: what to do.
    """
    if not config.enable_reranking:
        return
    if not training.reranking_loss_weight:
        raise ValueError("--enable_reranking and --reranking_loss_weight 0 contradict each other: the reranking head "
                         "would learn nothing")
    if not records:
        raise ValueError("--enable_reranking: pretraining has no scores to learn from. Leave it out here, and give it "
                         "with --train_data, or with --init_compressor later")
    if not has_scores(records):
        path = Path(train_data or "records.json")
        scored = path.with_name(f"{path.stem}_scored{path.suffix}")
        raise ValueError(f"--enable_reranking: none of the {len(records)} records in {path} has reranking_scores, so "
                         "the reranking head would learn nothing. Score them first:\n  python -m "
                         f"scaledown.data.reranking --train_data {path} --output_file {scored}\n(new records are made "
                         "with scores by python -m scaledown.data.prepare_dataset ... --enable_reranking)")


def has_scores(records: Sequence[Record]) -> bool:
    """Whether any document has a teacher's score."""
    return any(record.reranking_scores for record in records)


def note_before(model: ScaleDownModel, training: TrainingConfig, records: Sequence[Record]) -> str | None:
    """What to know before a training in which a reranking head that is there learns nothing; None otherwise."""
    if not model.config.enable_reranking or (has_scores(records) and training.reranking_loss_weight):
        return None
    return ("the model has a reranking head, which learns nothing here (no record has reranking_scores, or their loss "
            "has no weight) while the compressor that it reads from changes: its scores will be off")


def note_after(model: ScaleDownModel) -> str | None:
    """What to know of a model's reranking head after a training; None if there is none, or all is well."""
    return model.progress.warning() if model.config.enable_reranking else None
