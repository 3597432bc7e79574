"""The number format in which a model computes: half precision only on hardware that is made for it.

Torch is loaded by the functions, so that importing this takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BFLOAT16_CAPABILITY = (8, 0)


def dtype_for(device: torch.device) -> torch.dtype:
    """Return bfloat16 if ``device`` computes in it (CUDA from Ampere on, Trainium), else float32."""
    import torch

    # NVIDIA's GPUs have units for bfloat16 from Ampere on.
    is_fast = device.type == "neuron"
    if device.type == "cuda":
        is_fast = torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
    return torch.bfloat16 if is_fast else torch.float32


def dtype_to_load(device: torch.device | str) -> torch.dtype | str:
    """Return the ``dtype`` with which a model is loaded onto ``device`` that is not trained here.

    Many models are stored in half precision. On hardware made for it they compute as they are stored ("auto").
    Elsewhere that is slow, and documents with nearly equal scores change places: there they compute in float32.
    """
    import torch

    dtype = dtype_for(torch.device(device))
    return "auto" if dtype == torch.bfloat16 else dtype
