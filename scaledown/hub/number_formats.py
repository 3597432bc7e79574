"""The number format that suits a device: to answer, to train, to load a model for its answers, and to rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BFLOAT16_CAPABILITY = (8, 0)
"""NVIDIA's GPUs have units for bfloat16 from Ampere on."""
FLOAT16_CAPABILITY = (7, 0)
"""They have units for float16 from Volta on."""


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
