"""What stops a training run in time: a loss that is no number, and a batch that does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

SHOWN_RECORDS = 8
FLAGS = "--gradient_checkpointing, fewer documents a record, or fewer tokens of each (--compression_rate)"
ALLOCATION_FAULTS = ("can't allocate memory", "out of memory", "not enough memory")


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


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether ``fault`` is memory that could not be had, of any device."""
    return isinstance(fault, MemoryError | torch.OutOfMemoryError) or (
        isinstance(fault, RuntimeError) and any(text in str(fault) for text in ALLOCATION_FAULTS))


def largest_fitting(step: Callable[[Sequence[Any]], None], records: Sequence[Any], batch_size: int) -> int:
    """How many examples, ``batch_size`` halved as often as need be, ``step`` can take; 0 where not even one.

    Args:
        step: forward and backward pass over some records.
        records: tried with the longest of them.
        batch_size: what did not fit.
    """
    longest = sorted(records, key=lambda record: -len(record.query) - sum(map(len, record.documents)))[:batch_size]
    size = batch_size // 2
    while size:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            step(longest[:size])
            return size
        except (MemoryError, RuntimeError) as fault:
            if not is_out_of_memory(fault):
                raise
        size //= 2
    return 0


def out_of_memory(examples: int, num_fitting: int, accumulation_steps: int) -> str:
    """What to do, for ``examples`` a pass that did not fit where ``num_fitting`` do."""
    if not num_fitting:
        return f"out of memory: not even one example fits. What helps: a smaller --generator_model, {FLAGS}"
    steps = accumulation_steps * -(-examples // num_fitting)
    return (f"out of memory with {examples} examples at a time on this device; {num_fitting} of the longest fit: "
            f"--gradient_accumulation_steps {steps} takes as many and trains alike, and --resume goes "
            f"on with it. What else helps: {FLAGS}")


def out_of_memory_of_many(examples: int, accumulation_steps: int) -> str:
    """As :func:`out_of_memory` for a model that processes share, of which none can try alone what fits."""
    return (f"out of memory with {examples} examples at a time on this device. What helps: "
            f"--gradient_accumulation_steps {2 * accumulation_steps}, with which --resume goes on, and {FLAGS}")
