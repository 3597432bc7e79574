"""The device and the number format that a user asks for, by name or as torch has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from scaledown.hub.number_formats import dtype_for, warn_if_emulated

AUTO = "auto"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The number formats of the arithmetic, by name."""


def device_of(device: Any = None, device_map: Any = None) -> torch.device:
    """Return the one device that a model is to lie on.

    Args:
        device: a name or a torch device; "auto" for CUDA if there is any, else the CPU [the CPU].
        device_map: the same in the forms of transformers, of which a mapping may name one device for the whole model,
            ``{"": "cuda:0"}``.

    Raises:
        ValueError: if both are given, or what is asked for is several devices, or none that is here.
    """
    if device is not None and device_map is not None:
        raise ValueError("give device or device_map, not both")
    asked = device if device_map is None else device_map
    name = "device" if device_map is None else "device_map"

    # A mapping of the whole model, whose name in it is "", to one device.
    if isinstance(asked, Mapping):
        if list(asked) != [""]:
            raise ValueError(f"{name}: a ScaleDown model lies on one device: name it, such as 'cuda:0', or "
                             "{'': 'cuda:0'}, not a map of its parts")
        asked = asked[""]

    if asked is None:
        return torch.device("cpu")
    if asked == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # A number is a GPU's, also in a process that sees none.
        found = torch.device("cuda", asked) if isinstance(asked, int) else torch.device(asked)
    except (RuntimeError, TypeError):
        raise ValueError(f"{name} must name one device, such as 'cuda:0', 'cpu' or 'auto', got {asked!r}") from None

    # Said here, before anything large is read.
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{name}: torch finds no CUDA GPU here for {str(found)!r}; give 'cpu' or 'auto'")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"{name}: torch finds no GPU of Apple's here for {str(found)!r}; give 'cpu' or 'auto'")
    return found


def dtype_of(dtype: Any, device: torch.device) -> torch.dtype:
    """Return the number format that a model is to compute in.

    Args:
        dtype: a torch dtype or its name; "auto" for bfloat16 if the device is fast in it, else float32 [float32].
        device: the model's.

    Raises:
        ValueError: if it is none that the model computes in.
    """
    if dtype is None:
        return torch.float32
    if dtype == AUTO:
        return dtype_for(device)

    # float64 is a dtype of torch, too, but autocast cannot compute in it.
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found not in DTYPES.values():
        raise ValueError(f"dtype must be 'auto' or one of {', '.join(DTYPES)}, got {dtype!r}")

    # Whoever gives torch's own dtype, as merge does, may want to store in it, not to compute.
    if isinstance(dtype, str):
        warn_if_emulated(found, device)
    return found
