"""The log of a training for people: a line now and then, in words; on a terminal also a bar below the lines.

All numbers stay in the Trainer's own log, which is the history, ``trainer_state.json`` and TensorBoard.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import monotonic
from typing import Any

from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from scaledown.progress import LONGEST_SILENCE_SECONDS, SECONDS_A_LINE, Bar, duration

HELD_OUT = "eval_"
"""Prefix of the names of what is measured on held-out records."""
RATE = "learning_rate_"
LINES_A_RUN = 12
"""About the largest number of lines of a run that takes hours; held-out checks and short runs come to fewer."""


def step_line(logs: Mapping[str, Any], step: int, num_steps: int, seconds_left: float | None = None) -> str:
    """Return a training step in one line.

    Args:
        logs: the Trainer's entry: ``loss``, its parts before they are weighted (``answer_loss``), ``learning_rate``, or
            one for each part of the model (``learning_rate_compressor``).
        step: the number of steps so far.
        num_steps: of the whole run.
        seconds_left: as far as known.
    """
    parts = [f"{name.removesuffix('_loss')} {number(value)}" for name, value in logs.items() if name.endswith("_loss")]
    fields = [_place("step", step, num_steps)]

    # A single part is the loss itself.
    if "loss" not in logs:
        fields.append(f"loss {', '.join(parts)}")
    elif len(parts) > 1:
        fields.append(f"loss {number(logs['loss'])} (unweighted: {', '.join(parts)})")
    else:
        fields.append(f"loss {number(logs['loss'])}")

    rates = {name.removeprefix(RATE): rate for name, rate in logs.items() if name.startswith(RATE)}
    if rates:
        fields.append("lr " + ", ".join(f"{name} {rates[name]:.1e}" for name in sorted(rates, reverse=True)))
    elif "learning_rate" in logs:
        fields.append(f"lr {logs['learning_rate']:.1e}")
    return " | ".join(fields + _left(seconds_left))


def held_out_line(logs: Mapping[str, Any], in_training: Mapping[str, Any], step: int, num_steps: int,
                  seconds_left: float | None = None) -> str:
    """Return a held-out check in one line, each value beside that of the latest training steps, if they have it.

    Args:
        logs: the Trainer's entry, with names such as ``eval_answer_loss``.
        in_training: the Trainer's entry of the latest training steps.
        step: as in :func:`step_line`, like the others.
    """
    values = []
    for key, value in logs.items():
        # The Trainer adds the epoch.
        if not key.startswith(HELD_OUT):
            continue

        name = key.removeprefix(HELD_OUT)
        beside = f" (in training {number(in_training[name])})" if name in in_training else ""
        values.append(f"{name.replace('_', ' ')} {number(value)}{beside}")
    return " | ".join([_place("held-out check, step", step, num_steps), ", ".join(values), *_left(seconds_left)])


def number(value: float) -> str:
    """Return a number with three digits that count."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def _place(what: str, step: int, num_steps: int) -> str:
    total = f"{num_steps:,}"
    return f"{what} {step:>{len(total)},} of {total}"


def _left(seconds: float | None) -> list[str]:
    return [] if seconds is None else [f"{duration(seconds)} left"]


class StepLines(TrainerCallback):
    """Prints the first entry of the log, the last one, some between them, and every held-out check.

    Between two lines at least ``SECONDS_A_LINE`` pass, and about a ``LINES_A_RUN``-th of the run's time, but not more
    than ``LONGEST_SILENCE_SECONDS``. If the steps are so slow that the next entry is far away, lines with the place and
    the time left come before it; on a terminal the bar has both.
    """

    def __init__(self) -> None:
        self._bar: Bar | None = None
        # Of the latest training steps: their entry, and their line as long as it has not been printed.
        self._in_training: Mapping[str, Any] = {}
        self._not_printed: str | None = None
        self._last_time: float | None = None
        # When the last line of any kind was printed, at first when the training began; and the wait for the next one
        # that has no losses.
        self._last_sign, self._wait_for_sign = 0.0, float(SECONDS_A_LINE)
        # The step from which the speed is measured, and its end.
        self._first_step, self._first_end = 0, 0.0
        self._seconds_a_step: float | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                       **kwargs: Any) -> None:
        """Draw the bar; elsewhere than on a terminal tqdm draws none."""
        if state.is_world_process_zero:
            self._bar = Bar(total=state.max_steps, initial=state.global_step, desc="training", unit="step",
                            dynamic_ncols=True, leave=False, disable=None)
        self._last_sign = monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                    **kwargs: Any) -> None:
        """Move the bar, and measure the speed: from the end of the first step on, which compiles or warms up.

        Without a bar, print the place if there was no line for long and none is near.
        """
        now = monotonic()
        if not self._first_step:
            self._first_step, self._first_end = state.global_step, now
        else:
            self._seconds_a_step = (now - self._first_end) / (state.global_step - self._first_step)
        if self._bar is None:
            return

        self._bar.update()
        is_silent = self._bar.disable and now - self._last_sign >= self._wait_for_sign
        if is_silent and self._seconds_a_step and not control.should_log:
            # A line with losses is better, if it comes soon.
            if args.logging_steps * self._seconds_a_step > 2 * self._wait_for_sign:
                place = [_place("step", state.global_step, state.max_steps), *_left(self._seconds_left(state))]
                self._write(" | ".join(place))
                self._wait_for_sign = self._wait(state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
               logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Print the new entry of the log, if it is time for it or a held-out check."""
        if self._bar is None or not logs:
            return

        step, num_steps, seconds_left = state.global_step, state.max_steps, self._seconds_left(state)
        # The last entry of all is about the whole run.
        if "train_runtime" in logs:
            self._print_last()
            self._print(f"trained up to step {step:,} of {num_steps:,} in {duration(logs['train_runtime'])}")
        elif any(name.startswith(HELD_OUT) for name in logs):
            # It has the training's values, too, so a line of theirs is not missed.
            self._print(held_out_line(logs, self._in_training, step, num_steps, seconds_left))
        else:
            self._in_training, self._not_printed = logs, step_line(logs, step, num_steps, seconds_left)
            if self._is_due(state):
                self._print(self._not_printed)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
                     **kwargs: Any) -> None:
        """Wipe the bar out, after the last line; whoever ends a training early calls this."""
        self._print_last()
        if self._bar is not None:
            self._bar.close()

    def _seconds_left(self, state: TrainerState) -> float | None:
        num_left = state.max_steps - state.global_step
        return self._seconds_a_step * num_left if self._seconds_a_step and num_left else None

    def _is_due(self, state: TrainerState) -> bool:
        return self._last_time is None or monotonic() - self._last_time >= self._wait(state)

    def _wait(self, state: TrainerState) -> float:
        seconds_of_run = (self._seconds_a_step or 0.0) * state.max_steps
        return max(SECONDS_A_LINE, min(seconds_of_run / LINES_A_RUN, LONGEST_SILENCE_SECONDS))

    def _print(self, line: str) -> None:
        self._write(line)
        self._not_printed, self._last_time = None, self._last_sign

    def _write(self, line: str) -> None:
        # tqdm's print, which draws the bar again below the line.
        Bar.write(line, file=sys.stdout)
        # A pipe would show the line when its buffer is full.
        sys.stdout.flush()
        self._last_sign = monotonic()

    def _print_last(self) -> None:
        if self._not_printed is not None:
            self._print(self._not_printed)


def print_in_lines(trainer: Trainer) -> None:
    """Replace the print-outs of ``trainer``, which has ``disable_tqdm``, by :class:`StepLines`."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(StepLines())
