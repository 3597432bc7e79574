"""What happens around a training step: who learns, when to evaluate, and what is averaged until it is logged."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from scaledown import processes


class CompressorFirst(TrainerCallback):
    """Drops the generator's gradients in the first ``steps`` steps."""

    def __init__(self, generator: nn.Module, steps: int) -> None:
        self.generator, self.steps = generator, steps

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                              **kwargs: Any) -> None:
        """Called when all gradients of a step are there."""
        if state.global_step < self.steps:
            self.generator.zero_grad(set_to_none=True)


class EvaluateEvery(TrainerCallback):
    """Asks for an evaluation every ``steps`` steps; the trainer evaluates when it has logged the step."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask where it is due; the run's end is measured by whoever started it."""
        control.should_evaluate = state.global_step % self.steps == 0 and state.global_step < state.max_steps


class RunningMean:
    """Means over steps of loss parts and the like, held as tensors so that no step waits for the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.num_steps: Counter[str] = Counter()
        self._of_step: set[str] = set()

    def add(self, **values: Tensor | None) -> None:
        """Add to what a step comes to; values that are None are left out."""
        for name, value in values.items():
            if value is not None:
                self.sums[name] = self.sums.get(name, 0.0) + value.detach()
                self._of_step.add(name)

    def end_step(self) -> None:
        """Say that what was added since the last call is a whole step."""
        self.num_steps.update(self._of_step)
        self._of_step = set()

    def take(self) -> dict[str, float]:
        """The means since the last call, over all processes and the steps that had such a part."""
        means = {name: (processes.summed(value) / (self.num_steps[name] * processes.count())).item()
                 for name, value in self.sums.items()}
        self.sums, self.num_steps = {}, Counter()
        return means
