"""The loss that a step learns from: the parts that the model measures, weighed (paper, equation 3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from scaledown.config import TrainingConfig
from scaledown.models.losses import Losses


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
