"""What happens around a training step: who learns, when to evaluate or stop, what is averaged, what must be finite."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from scaledown import processes

SHOWN_RECORDS = 8


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


class LossGuard:
    """Watches losses and gradients of a run; they are looked at when asked, so that no step waits for the device."""

    def __init__(self) -> None:
        self._seen: list[tuple[str, Sequence[str], Tensor]] = []

    def add(self, step: int, record_ids: Sequence[str], value: Tensor, what: str = "loss") -> None:
        """Remember the loss of a step, or the norm of its gradient, and whose it is."""
        self._seen.append((f"{what} of step {step}", record_ids, value.detach().float()))

    def check(self) -> None:
        """Forget the values since the last call, if they are numbers.

        Raises:
            ValueError: where one is not, with its step and its records.
        """
        seen, self._seen = self._seen, []
        if not seen:
            return
        are_finite = torch.stack([value for _, _, value in seen]).isfinite().tolist()
        for (what, record_ids, value), is_finite in zip(seen, are_finite, strict=True):
            if not is_finite:
                more = f" and {len(record_ids) - SHOWN_RECORDS} more" * (len(record_ids) > SHOWN_RECORDS)
                raise ValueError(
                    f"the {what} is {value.item()}, on the records {', '.join(record_ids[:SHOWN_RECORDS])}"
                    f"{more}. Nothing was saved since. A lower learning rate may help, from the last checkpoint on "
                    "(--init_compressor CHECKPOINT in a new --output_dir), or a look at these records")


class Interrupt(TrainerCallback):
    """While it is entered, the first Ctrl-C asks for an orderly end; the second one ends the run at once.

    Attributes:
        is_asked: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        # Only the main thread may take signals; elsewhere Ctrl-C keeps what it does there.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *fault: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                    **kwargs: Any) -> None:
        """The trainer's call after a step: save and stop where that was asked for."""
        if self.is_asked:
            control.should_save = control.should_training_stop = True

    def _ask(self, *signal_and_frame: object) -> None:
        self.is_asked = True
        signal.signal(signal.SIGINT, self._before)
        print("\nstopping after this step, with a checkpoint (Ctrl-C again: at once, without one)", flush=True)
