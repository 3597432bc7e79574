"""The number format that suits a device: to answer, to train, to load a model for its answers, and to rank."""

from __future__ import annotations

import functools
import warnings
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BFLOAT16_CAPABILITY = (8, 0)
"""NVIDIA's GPUs have units for bfloat16 from Ampere on."""
FLOAT16_CAPABILITY = (7, 0)
"""They have units for float16 from Volta on."""
EMULATED_FROM = 4.0
"""A number format that takes a CPU this many times as long as float32 is one that it has no instructions for."""
_TIMED_SIZE, _NUM_TIMED = 256, 3


def dtype_for(device: torch.device) -> torch.dtype:
    """Return bfloat16 if ``device`` computes in it (CUDA from Ampere on, Trainium), else float32."""
    import torch

    is_fast = device.type == "neuron"
    if device.type == "cuda":
        is_fast = torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
    return torch.bfloat16 if is_fast else torch.float32


def dtype_to_train(device: torch.device) -> torch.dtype:
    """Return the number format in which a training computes on ``device``.

    It is that of :func:`dtype_for`, or float16 on a GPU that is fast in it and not in bfloat16. Answers are computed in
    float16 only if asked for: a model with numbers above 65,504 would give bad ones without a word, while a training
    ends with a message.
    """
    import torch

    found = dtype_for(device)
    if device.type == "cuda" and found == torch.float32:
        is_fast = torch.cuda.get_device_capability(device) >= FLOAT16_CAPABILITY
        return torch.float16 if is_fast else found
    return found


def dtype_to_load(device: torch.device | str) -> torch.dtype | str:
    """Return the ``dtype`` with which a causal LM is loaded onto ``device`` that is not trained here.

    Many are stored in bfloat16. On hardware made for it they compute as they are stored ("auto"), on an older GPU in
    float16, which is several times as fast there as float32, and elsewhere in float32.
    """
    import torch

    device = torch.device(device)
    if dtype_for(device) == torch.bfloat16:
        return "auto"
    return torch.float16 if device.type == "cuda" else torch.float32


def dtype_to_rank(device: torch.device | str) -> torch.dtype:
    """Return the ``dtype`` of an encoder or a reranker on ``device``: float16 on any GPU of CUDA, else float32.

    Not bfloat16, in which many scores are equal, so that documents change places: it has 8 bits of precision, float16
    has 11.
    """
    import torch

    return torch.float16 if torch.device(device).type == "cuda" else torch.float32


def warn_if_emulated(dtype: torch.dtype, device: torch.device) -> None:
    """Warn if ``device`` is a CPU without instructions for ``dtype``: there a minute in float32 can become an hour.

    Not if there is a GPU: a model that is loaded onto the CPU beside one is mostly on its way to it.
    """
    import torch

    if device.type != "cpu" or dtype == torch.float32 or torch.cuda.is_available():
        return
    slowdown = slowdown_of(dtype)
    if slowdown >= EMULATED_FROM:
        name = str(dtype).removeprefix("torch.")
        warnings.warn(f"this CPU has no instructions for {name}: a product of matrices takes it {slowdown:.0f} times "
                      "as long as in float32, which gives better results, too", stacklevel=3)


@functools.cache
def slowdown_of(dtype: torch.dtype) -> float:
    """Return how many times as long as in float32 a product of matrices takes the CPU in ``dtype``.

    It is measured, in a tenth of a second at most: what libraries say of a processor's instructions differs between
    makers, and what counts is whether torch uses them.
    """
    import torch

    return _seconds_of_product(dtype) / _seconds_of_product(torch.float32)


def _seconds_of_product(dtype: torch.dtype) -> float:
    import torch

    matrix = torch.ones(_TIMED_SIZE, _TIMED_SIZE, dtype=dtype)
    seconds = []
    # The first product also sets up the library, and other work may slow one of them down: the shortest time counts.
    for _ in range(_NUM_TIMED):
        start = perf_counter()
        matrix @ matrix
        seconds.append(perf_counter() - start)
    return min(seconds)
