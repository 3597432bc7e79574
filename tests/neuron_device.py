"""A stand-in for a Trainium: a device named ``neuron`` whose tensors are computed on the CPU (``stand_in.py``)."""

from __future__ import annotations

import stand_in
import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

MATH = 0
"""The attention of plain products, which runs anywhere."""


def register() -> torch.library.Library:
    """Make torch know the device; the returned library must be kept."""
    _setup_privateuseone_for_python_backend("neuron")
    stand_in.KERNELS["_fused_sdp_choice"] = lambda *given, **settings: MATH
    return stand_in.install("neuron", "PrivateUse1")
