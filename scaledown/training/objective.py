"""The loss of a training step: the weighted sum of the parts that the model returns (paper, equation 3).

A reranking head is trained on a teacher's scores; without them it would silently rank documents at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record
from scaledown.models.losses import Losses
from scaledown.models.model import ScaleDownModel


def weights(config: TrainingConfig, model: ScaleDownConfig, step: int, num_steps: int) -> tuple[float, ...]:
    """Return the weight of each part of the loss, in the order of :class:`Losses`, in a step counted from 0.

    The weight of the readout loss falls to 0 once the generator is trained: helpful initially, it would later tie the
    memory to words of one document. Soft tokens are words in any case, so there it stays: without it, SmolLM2's
    compressor soon forgot half of what the readout had taught it (lab/LOG.md).
    """
    if model.soft_tokens:
        return (1.0, config.reranking_loss_weight, config.readout_loss_weight)

    # Steps in which the generator is trained, and the share of them that is over.
    first_step = config.readout_steps
    progress = max(0, step - first_step) / max(1, num_steps - first_step)
    return (1.0, config.reranking_loss_weight, config.readout_loss_weight * (1 - progress))


def times(losses: Losses, factors: Sequence[float] | Tensor) -> Losses:
    """Return the parts that a batch has, each times its factor."""
    return Losses(*(None if part is None else part * factor for part, factor in zip(losses, factors, strict=True)))


def weighted(losses: Losses, weights: Sequence[float]) -> Tensor:
    """Return the sum of the parts that a batch has, each times its weight."""
    return sum(part for part in times(losses, weights) if part is not None)


def in_words(parts: Mapping[str, float]) -> str:
    """Return parts of a loss by name as a text, such as "answer loss 0.840, reranking loss 0.0400"."""
    return ", ".join(f"{name.replace('_', ' ')} {value:#.3g}" for name, value in parts.items())


def check_scores(config: ScaleDownConfig, training: TrainingConfig, records: Sequence[Record],
                 train_data: Path | str | None, is_resumed: bool = False) -> None:
    """Check that ``--enable_reranking`` has scores to train its head on.

    Args:
        config: the settings of the model.
        training: the settings of the training.
        records: to train on; none if the run only pretrains.
        train_data: the file that they were read from.
        is_resumed: whether a run goes on. Then it was checked before, and the head may be that of the checkpoint that
            the run started from, which needs no scores.

    Raises:
        ValueError: if there are no scores, with what to do.
    """
    if not config.enable_reranking or is_resumed:
        return
    if not training.reranking_loss_weight:
        raise ValueError("--enable_reranking and --reranking_loss_weight 0 contradict each other: the reranking head "
                         "would learn nothing")
    if training.query_dropout == 1:
        raise ValueError("--enable_reranking and --query_dropout 1 contradict each other: a score depends on the "
                         "query, so the reranking head would learn nothing; lower --query_dropout, or leave reranking "
                         "out")
    if not records:
        raise ValueError("--enable_reranking: pretraining has no scores to learn from. Leave it out here, and give it "
                         "with --train_data, or with --init_compressor later")

    if not has_scores(records):
        # The message has the command that scores this very file.
        path = Path(train_data or "records.json")
        scored = path.with_name(f"{path.stem}_scored{path.suffix}")
        raise ValueError(f"--enable_reranking: none of the {len(records)} records in {path} has reranking_scores, so "
                         "the reranking head would learn nothing. Score them first:\n  python -m "
                         f"scaledown.data.reranking --train_data {path} --output_file {scored}\n(new records are made "
                         "with scores by python -m scaledown.data.prepare_dataset ... --enable_reranking)")


def has_scores(records: Sequence[Record]) -> bool:
    """Return whether any document has a teacher's score."""
    return any(record.reranking_scores for record in records)


def note_before(model: ScaleDownModel, training: TrainingConfig, records: Sequence[Record]) -> str | None:
    """Return a warning if the model has a reranking head that this training leaves untrained, else None."""
    if not model.config.enable_reranking or (training.reranking_loss_weight and has_scores(records)):
        return None
    return ("the model has a reranking head, which learns nothing here (no record has reranking_scores, or their loss "
            "has no weight) while the compressor that it reads from changes: its scores will be off")


def note_after(model: ScaleDownModel) -> str | None:
    """Return a warning about a model's reranking head after a training; None if there is no head, or all is well."""
    return model.progress.warning() if model.config.enable_reranking else None
