"""Training stops at the first loss or gradient that is not a finite number, before it can reach a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from scaledown.training import checkpoints

SHOWN_IDS = 20


class FiniteWatch:
    """Looks at losses and gradient norms: at once on a CPU, elsewhere when the log or a checkpoint is due.

    A look at a tensor waits for the device, so there it is not taken at every step; the values of the steps between
    are kept, and the first bad one is still told with its step and records.

    Args:
        folder: the run's, whose last checkpoint is named.
        is_eager: look at each step.
    """

    def __init__(self, folder: Path, is_eager: bool) -> None:
        self._folder, self._is_eager = folder, is_eager
        self._losses: list[Tensor] = []
        self._ids: list[Sequence[str]] = []
        self._steps: list[tuple[int, Tensor, list[Tensor], list[Sequence[str]]]] = []

    def add_loss(self, loss: Tensor, ids: Sequence[str]) -> None:
        """Note the loss of a batch with the ids of its records."""
        self._losses.append(loss.detach())
        self._ids.append(ids)

    def end_step(self, step: int, gradient_norm: Tensor | float) -> None:
        """Note that the batches since the last call were one step, about to change the weights.

        Raises:
            ValueError: as :meth:`check`.
        """
        self._steps.append((step, torch.as_tensor(gradient_norm).detach(), self._losses, self._ids))
        self._losses, self._ids = [], []
        if self._is_eager:
            self.check()

    def check(self) -> None:
        """Look at what was noted.

        Raises:
            ValueError: for the first step with a value that is not finite: its records, and how to go on.
        """
        steps, self._steps = self._steps, []
        for step, norm, losses, ids in steps:
            bad = [batch for loss, batch in zip(losses, ids, strict=True) if not torch.isfinite(loss)]
            if bad or not torch.isfinite(norm):
                raise ValueError(self._message(step, "loss" if bad else "gradient", bad or ids))

    def _message(self, step: int, what: str, batches: Sequence[Sequence[str]]) -> str:
        ids = [id for batch in batches for id in batch]
        more = f" and {len(ids) - SHOWN_IDS} more" * (len(ids) > SHOWN_IDS)
        saved = max(checkpoints.found(self._folder), key=checkpoints.step_of, default=None)
        kept = f"the last good checkpoint is {saved}" if saved else "no checkpoint was written yet"
        return (f"step {step}: the {what} is not a finite number, so training stopped; {kept}. The records of that "
                f"batch: {', '.join(ids[:SHOWN_IDS])}{more}. What helps: lower learning rates, a longer "
                "--warmup_ratio, a smaller --max_grad_norm, or mending those records")
