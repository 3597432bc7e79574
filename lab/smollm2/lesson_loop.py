"""Training steps of a lesson that is no training of the whole model: one loss of a batch, AdamW, a falling rate.

A lesson that was killed goes on from its last checkpoint, with the moments of AdamW at zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scaledown.data.records import Record
from scaledown.models.model import ScaleDownModel
from scaledown.progress import Bar
from scaledown.training import checkpoints
from scaledown.training.optimizer import build_optimizer

ParameterGroup = dict[str, Any]
LOG_STEPS, SAVE_STEPS = 5, 50
WARMUP_SHARE = 0.06
LARGEST_GRADIENT = 1.0
"""Norm to which gradients are cut, as in the stages that train the whole model."""


def train_steps(name: str, model: ScaleDownModel, groups: Sequence[ParameterGroup], items: Sequence[Any],
                batch_size: int, loss_of: Callable[[Sequence[Any]], Tensor], folder: Path | None = None) -> list[float]:
    """Train some parameters, once over ``items`` in their order; return the loss of each step taken.

    Args:
        name: of the lesson, as printed.
        model: all of it that is in no group stays as it is.
        groups: parameters with their peak learning rates, which rise at first and then fall to 0, along lines.
        items: to learn from, such as records.
        batch_size: items a step.
        loss_of: the loss of a step's items.
        folder: gets a checkpoint now and then; if there is one, the lesson goes on from it [none].
    """
    optimizer = build_optimizer("adamw", groups, model)
    # Items that fill no whole step are left out.
    num_steps, num_done = len(items) // batch_size, _go_on(name, model, folder)
    num_warmup = max(1, round(WARMUP_SHARE * num_steps))

    def rate_share(step: int) -> float:
        return min(1.0, (num_done + step + 1) / num_warmup) * (1 - (num_done + step) / num_steps)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_share)
    parameters = list(itertools.chain.from_iterable(group["params"] for group in groups))

    model.train()
    losses = []
    for step in Bar(range(num_done, num_steps), name):
        with torch.autocast(model.device.type, model.dtype, enabled=model.dtype != torch.float32):
            loss = loss_of(items[step * batch_size:(step + 1) * batch_size])

        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
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


def groups_of(model: ScaleDownModel, part: str, rate: float) -> list[ParameterGroup]:
    """Return the groups of the trained parameters of "generator" or "compressor", with one learning rate."""
    return [group for group in model.parameter_groups(rate, rate, 0.0) if group["name"].startswith(part)]


def note_scores(model: ScaleDownModel, num_steps: int, records: Sequence[Record]) -> None:
    """Add the steps of a lesson, and the scores that it trained the reranking head on, to the model's own count."""
    num_scores = sum(len(record.reranking_scores or ()) for record in records)
    model.progress = model.progress.after(num_steps, num_scores)


def _go_on(name: str, model: ScaleDownModel, folder: Path | None) -> int:
    """Load the last checkpoint in ``folder``, if there is one; return the number of steps before it."""
    checkpoint = checkpoints.last(folder) if folder is not None else None
    if checkpoint is None:
        return 0
    print(f"{name}: goes on from {checkpoint}")
    model.load_trained(checkpoint)
    return checkpoints.step_of(checkpoint)
