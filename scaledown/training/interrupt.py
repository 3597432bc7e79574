"""Ctrl-C ends a training after the step that it is in, with a checkpoint: from half a step none could go on."""

from __future__ import annotations

import signal
import threading
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


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
