"""Callbacks around a training step: freezing the generator, evaluating, stopping, averaging and guarding the losses."""

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
LOSS, GRADIENT = "loss", "norm of the gradient"
"""What is guarded."""
MOST_SKIPPED = 20
"""Steps in a row that may be skipped since their scaled gradients are infinite: each halves the scale, which begins at
65,536. If 1/16 is still too much, the scale is not the reason."""
IN_FLOAT16 = "; and some models have numbers above 65,504, which float16 has not: --dtype float32 takes them"


class CompressorFirst(TrainerCallback):
    """Drops the generator's gradients in the first ``steps`` steps."""

    def __init__(self, generator: nn.Module, steps: int) -> None:
        self.generator, self.steps = generator, steps

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                              **kwargs: Any) -> None:
        """Drop the gradients; the trainer calls this when all gradients of a step are computed."""
        if state.global_step < self.steps:
            self.generator.zero_grad(set_to_none=True)


class EvaluateEvery(TrainerCallback):
    """Asks for an evaluation every ``steps`` steps and at the end; the trainer evaluates when it has logged the step.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask if it is due."""
        is_last = state.global_step == state.max_steps
        control.should_evaluate = is_last or state.global_step % self.steps == 0


class RunningMean:
    """Means over steps, such as those of the loss's parts, held as tensors so that no step waits for the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.num_steps: Counter[str] = Counter()
        self._of_step: set[str] = set()

    def add(self, **values: Tensor | None) -> None:
        """Add values to the current step; None is ignored."""
        for name, value in values.items():
            if value is not None:
                self.sums[name] = self.sums.get(name, 0.0) + value.detach()
                self._of_step.add(name)

    def end_step(self) -> None:
        """End the current step: what was added since the last call is one step."""
        self.num_steps.update(self._of_step)
        self._of_step = set()

    def take(self) -> dict[str, float]:
        """Return the means since the last call, over all processes and the steps that had such a value."""
        means = {}
        for name, value in self.sums.items():
            # Of all processes, whose number of steps is the same.
            total = processes.summed(value)
            means[name] = (total / (self.num_steps[name] * processes.count())).item()
        self.sums, self.num_steps = {}, Counter()
        return means


class LossGuard:
    """Guards that the losses and gradients of a run are finite; checked on demand, so that no step waits for a device.

    Args:
        is_scaled: whether losses are scaled, as in float16. A step whose gradients become infinite by that is skipped,
            and no fault, unless many follow one another.
    """

    def __init__(self, is_scaled: bool = False) -> None:
        self._is_scaled, self._num_skipped = is_scaled, 0
        self._seen: list[tuple[str, Sequence[str], Tensor]] = []

    def add(self, step: int, record_ids: Sequence[str], value: Tensor, what: str = LOSS) -> None:
        """Remember the loss of a step, or the norm of its gradient, with the ids of its records."""
        self._seen.append((f"{what} of step {step}", record_ids, value.detach().float()))

    def check(self) -> None:
        """Check the values since the last call.

        Raises:
            ValueError: if one is not finite, with its step and its records.
        """
        seen, self._seen = self._seen, []
        if not seen:
            return

        # One copy from the device for all of them.
        are_finite = torch.stack([value for _, _, value in seen]).isfinite().tolist()
        for (what, record_ids, value), is_finite in zip(seen, are_finite, strict=True):
            if self._is_scaled and what.startswith(GRADIENT):
                self._num_skipped = 0 if is_finite else self._num_skipped + 1
                is_finite = self._num_skipped <= MOST_SKIPPED
            if not is_finite:
                num_more = len(record_ids) - SHOWN_RECORDS
                more = f" and {num_more} more" if num_more > 0 else ""
                raise ValueError(
                    f"the {what} is {value.item()}, on the records {', '.join(record_ids[:SHOWN_RECORDS])}"
                    f"{more}. Nothing was saved since. A lower learning rate may help, from the last checkpoint on "
                    "(--init_compressor CHECKPOINT in a new --output_dir), or a look at these records"
                    + (IN_FLOAT16 if self._is_scaled else ""))


class Interrupt(TrainerCallback):
    """Within its context the first Ctrl-C ends the run in order, with a checkpoint; the second ends it at once.

    Attributes:
        is_asked: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        # Only the main thread may handle signals; in others Ctrl-C stays as it is. And a shell that starts a command in
        # the background lets Ctrl-C be ignored; so it stays.
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *fault: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                    **kwargs: Any) -> None:
        """Save and stop after this step if that was asked for."""
        if self.is_asked:
            control.should_save = control.should_training_stop = True

    def _ask(self, *signal_and_frame: object) -> None:
        # A second Ctrl-C does what it did before.
        self.is_asked = True
        signal.signal(signal.SIGINT, self._before)
        print("\nstopping after this step, with a checkpoint (Ctrl-C again: at once, without one)", flush=True)
