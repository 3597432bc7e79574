"""Weights that get no gradient in some step: DDP must be told if there may be any, and then looks for them in each.

If it looks without need, each step takes longer; if it does not look and a gradient is missing, the run ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from scaledown.config import TrainingConfig
from scaledown.models.loading import parameters
from scaledown.models.model import ScaleDownModel
from scaledown.training.devices import wants_one_shape


def may_be(model: ScaleDownModel, config: TrainingConfig, records: Sequence[Any]) -> bool:
    """Return whether the training of ``model`` on ``records`` may have weights without a gradient in some step.

    Steps of compressor warm-up are none of these: the generator's gradients are computed there, and dropped.
    """
    # The generator is not run in steps of the readout loss alone.
    if config.readout_steps:
        return True

    # A pass over one record, as below, would be a program to compile.
    if wants_one_shape(model.device):
        return True

    # Nor is the compressor, if no record of a process's micro-batch has a document.
    if not model.config.reads_text and any(not record.documents for record in records):
        return True
    return bool(by_a_record(model, records[0]))


def by_a_record(model: ScaleDownModel, record: Any) -> list[str]:
    """Return the names of trained weights that a record's losses do not depend on, as families may have some."""
    # Without dropout, which would change the random state of the training.
    was_training = model.training
    model.eval()
    losses = model(model.processor.collate([record]))
    model.train(was_training)

    loss = sum(part for part in losses if part is not None)
    weights = parameters.trained(model)
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return [name for name, gradient in zip(weights, gradients, strict=True) if gradient is None]
