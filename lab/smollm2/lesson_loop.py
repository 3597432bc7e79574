"""Training steps of a lesson that is no training of the whole model: one loss of a batch, AdamW, a falling rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scaledown.data.records import Record
from scaledown.models.model import ScaleDownModel
from scaledown.progress import Bar
from scaledown.training.optimizer import build_optimizer

LOG_STEPS = 5


def train_steps(name: str, model: ScaleDownModel, part: str, records: Sequence[Record], batch_size: int, rate: float,
                loss_of: Callable[[Sequence[Record]], Tensor]) -> list[float]:
    """Train one part of ``model``, once over ``records`` in their order; return the loss of each step.

    Args:
        name: of the lesson, as printed.
        model: all else in it stays as it is.
        part: "generator" or "compressor".
        records: to learn from.
        batch_size: records a step.
        rate: peak learning rate; it falls to 0 along a line.
        loss_of: the loss of a step's records.
    """
    groups = [group for group in model.parameter_groups(rate, rate, 0.0) if group["name"].startswith(part)]
    optimizer = build_optimizer("adamw", groups, model)
    # Records that fill no whole step are left out.
    num_steps = len(records) // batch_size
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / num_steps)

    model.train()
    losses = []
    for step in Bar(range(num_steps), name):
        with torch.autocast(model.device.type, model.dtype, enabled=model.dtype != torch.float32):
            loss = loss_of(records[step * batch_size:(step + 1) * batch_size])

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

        losses.append(loss.item())
        if (step + 1) % LOG_STEPS == 0:
            recent = losses[-LOG_STEPS:]
            print(f"{name}: step {step + 1} of {num_steps}, loss {sum(recent) / len(recent):.3f}", flush=True)
    model.eval()
    return losses
