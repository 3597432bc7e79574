"""A stand-in for a Trainium: a device named ``neuron`` whose tensors are computed on the CPU, one operation at a time.

Whatever mixes the two devices or asks for a kernel that a new device lacks fails here as it would there. A process that
called :func:`register` keeps the device for good, so tests do it in a process of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

MATH = 0
"""The attention of plain products, which runs anywhere."""


class NeuronTensor(torch.Tensor):
    """A tensor of device ``neuron`` that keeps its values in a tensor on the CPU, ``values``."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> NeuronTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls, values.size(), strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            device="neuron")
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(operation, *args, **(kwargs or {}))


def _compute(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Run ``operation`` on the CPU; what it returns is on ``neuron`` unless it says otherwise, or returns an input."""
    if operation is torch.ops.aten._fused_sdp_choice.default:
        return MATH
    given = [each for each in tree_iter((args, kwargs)) if isinstance(each, torch.Tensor)]
    place = kwargs.get("device")
    place = torch.device("neuron") if place is None else torch.device(place)
    if place.type == "neuron" and "device" in kwargs:
        kwargs = kwargs | {"device": torch.device("cpu")}
    found = operation(*tree_map(_values, args), **tree_map(_values, kwargs))

    def named(each: Any) -> Any:
        if not isinstance(each, torch.Tensor):
            return each
        same = [tensor for tensor in given if _values(tensor) is each]
        return same[0] if same else NeuronTensor(each) if place.type == "neuron" else each

    return tree_map(named, found)


def _values(each: Any) -> Any:
    return each.values if isinstance(each, NeuronTensor) else each


def register() -> torch.library.Library:
    """Make torch know the device; the returned library must be kept."""
    _setup_privateuseone_for_python_backend("neuron")
    library = torch.library.Library("_", "IMPL")
    library.fallback(_compute, "PrivateUse1")
    return library
