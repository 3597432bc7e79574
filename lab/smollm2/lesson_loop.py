"""Training steps of a lesson that is no training of the whole model: one loss of a batch, AdamW, a falling rate.

A lesson that was killed goes on from its last checkpoint, with the moments of AdamW at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from scaledown.data.records import Record
from scaledown.models.model import ScaleDownModel
from scaledown.progress import Bar
from scaledown.training import checkpoints
from scaledown.training.optimizer import build_optimizer

LOG_STEPS, SAVE_STEPS = 5, 50


def train_steps(name: str, model: ScaleDownModel, part: str, records: Sequence[Record], batch_size: int, rate: float,
                loss_of: Callable[[Sequence[Record]], Tensor], folder: Path | None = None) -> list[float]:
    """Train one part of ``model``, once over ``records`` in their order; return the loss of each step taken.

    Args:
        name: of the lesson, as printed.
        model: all else in it stays as it is.
        part: "generator" or "compressor".
        records: to learn from.
        batch_size: records a step.
        rate: peak learning rate; it falls to 0 along a line.
        loss_of: the loss of a step's records.
        folder: gets a checkpoint now and then; if there is one, the lesson goes on from it [none].
    """
    groups = [group for group in model.parameter_groups(rate, rate, 0.0) if group["name"].startswith(part)]
    optimizer = build_optimizer("adamw", groups, model)
    # Records that fill no whole step are left out.
    num_steps, num_done = len(records) // batch_size, _go_on(name, model, folder)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - (num_done + step) / num_steps)

    model.train()
    losses = []
    for step in Bar(range(num_done, num_steps), name):
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
        if folder is not None and (step + 1) % SAVE_STEPS == 0:
            draft = folder / checkpoints.DRAFT / f"checkpoint-{step + 1}"
            model.save_pretrained(draft)
            checkpoints.keep(draft, folder, num_kept=1)
    model.eval()
    return losses


def _go_on(name: str, model: ScaleDownModel, folder: Path | None) -> int:
    """Load the last checkpoint in ``folder``, if there is one; return the number of steps before it."""
    checkpoint = checkpoints.last(folder) if folder is not None else None
    if checkpoint is None:
        return 0
    print(f"{name}: goes on from {checkpoint}")
    model.load_trained(checkpoint)
    return checkpoints.step_of(checkpoint)
