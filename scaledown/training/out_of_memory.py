"""Out of memory: the message says how many questions at a time do fit, because that was tried."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable

import torch
from accelerate.utils.memory import should_reduce_batch_size

FAULTS = (RuntimeError, MemoryError)
"""What devices raise when they are full; :func:`is_out_of_memory` tells these from others of their kind."""


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an error says that a device, or this machine, has no memory left."""
    return isinstance(fault, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(fault)


def largest_that_fits(sizes: Iterable[int], attempt: Callable[[int], object]) -> int | None:
    """The first of ``sizes`` (in falling order) for which ``attempt`` finds memory enough; None where none does."""
    for size in sizes:
        _free()
        if _fits(attempt, size):
            return size
    return None


def smaller_parts(size: int) -> list[int]:
    """The sizes of equal parts of a batch of ``size``, large ones first."""
    return [part for part in range(size // 2, 0, -1) if size % part == 0]


def _fits(attempt: Callable[[int], object], size: int) -> bool:
    try:
        attempt(size)
    except FAULTS as fault:
        if not is_out_of_memory(fault):
            raise
        return False
    return True


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
