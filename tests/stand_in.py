"""A device that is not there: its tensors are computed on the CPU, one operation at a time, and all is counted.

To torch the tensors are the device's, so all code takes the paths that it takes there. Whatever mixes two devices, or
asks for a kernel that a new device lacks, fails as it would there. What it can show is devices, number formats and
counts; never speed, and never the device's own kernels. A process that has a device keeps it, so tests that need one
start a process of their own.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import torch._dynamo  # it remembers functions that are replaced below
from torch.utils import _device as device_context
from torch.utils._pytree import tree_iter, tree_map

COPIES = ("copy_", "_to_copy", "_foreach_copy_")
"""Operations whose purpose is to move values from one device to another."""
BY_INDEX = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
"""Operations that move the indices they are given, a list in the second place, to the device of what is indexed."""
SIZE_FROM_VALUES = ("nonzero", "masked_select", "_unique2", "unique_consecutive", "unique_dim", "bincount", "equal",
                    "_local_scalar_dense", "repeat_interleave")
"""Operations that must read values before they can return: the host waits for the whole queue."""
NO_LAUNCH = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "_reshape_alias",
             "_local_scalar_dense", "lift_fresh", "set_", "resize_")
"""Operations beside views for which a device has nothing to compute."""
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addmv", "mv")
OWN_PLACES = ("scaledown", "transformers", "accelerate", "peft")
"""Packages in whose functions a wait is looked for."""


@dataclass
class Counts:
    """What the device was asked to do since the last :func:`counted_anew`.

    Attributes:
        launches: operations that it computes, by name.
        casts: of tensors from one number format to another, as (from, to).
        waits: of the host for the device, by operation and place.
        arrivals: copies to the device, by place.
        uploads: those of them that the host waits for, or that come from memory that is not pinned.
        products: matrix products as (number format, place).
        attentions: calls of an attention kernel, by name and number format.
        late: waits for an earlier event, by the number of operations that were queued behind it; the device works on.
    """

    launches: Counter[str] = field(default_factory=Counter)
    casts: Counter[tuple[str, str]] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    arrivals: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    products: Counter[tuple[str, str]] = field(default_factory=Counter)
    attentions: Counter[tuple[str, str]] = field(default_factory=Counter)
    late: Counter[int] = field(default_factory=Counter)

    def without(self, others: Counts) -> Counts:
        """Return what is counted here and not there."""
        return Counts(*(getattr(self, each.name) - getattr(others, each.name) for each in fields(self)))


class _State(threading.local):
    """Whether this thread is within a kernel, whose parts are not launches of their own."""

    in_kernel = False


_state = _State()
_device: list[torch.device] = []
_counts = [Counts()]
KERNELS: dict[str, Callable[..., Any]] = {}
"""What to call instead of an operation that has no kernel for the CPU, by name; on values."""


def counts() -> Counts:
    """Return what was counted up to now."""
    return _counts[0]


def counted_anew() -> Counts:
    """Count from zero, and return the counts, which grow."""
    _counts[0] = Counts()
    return _counts[0]


class DeviceTensor(torch.Tensor):
    """A tensor of the device that keeps its values in a tensor on the CPU, ``values``."""

    values: torch.Tensor
    # Python's overrides are not needed, and cost time at each call.
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> DeviceTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls, values.size(), strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            device=_device[0])
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(operation, *args, **(kwargs or {}))

    @property
    def data(self) -> torch.Tensor:
        """The tensor without its history; setting it gives a weight other values, as when a module is cast."""
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, other: DeviceTensor) -> None:
        torch.Tensor.data.__set__(self, other)
        self.values = other.values

    def __repr__(self) -> str:
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype}, {self.device})"

    def __reduce_ex__(self, protocol: int) -> Any:
        # A saved tensor is read onto the CPU, from which a trainer moves it.
        return self.values.detach().__reduce_ex__(protocol)


def values_of(each: Any) -> Any:
    """Return the values of a tensor of the device, and the CPU for the device itself; anything else as it is."""
    if isinstance(each, torch.device) and each.type == _device[0].type:
        return torch.device("cpu")
    return each.values if isinstance(each, DeviceTensor) else each


def place() -> str:
    """Return the innermost function of the project or of a library that it calls, for a list of places."""
    frame = sys._getframe(1)
    while frame is not None:
        parts = frame.f_code.co_filename.split("/")
        # The last folder of that name: a clone of the project may have the same name as its package.
        package = next((name for name in OWN_PLACES if name in parts), None)
        if package is not None:
            start = len(parts) - 1 - parts[::-1].index(package)
            return f"{'/'.join(parts[start:])} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def compute(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Run ``operation`` on the CPU; what it returns is on the device unless it says otherwise, or returns an input."""
    name = operation.__name__.partition(".")[0]
    given = [each for each in tree_iter((args, kwargs)) if isinstance(each, torch.Tensor)]
    _check_one_device(operation, name, args, given)

    # The device of the result, if the operation is asked for one.
    asked = next((each for each in (*args, *kwargs.values()) if isinstance(each, torch.device)), _device[0])
    is_for_device = asked.type == _device[0].type
    _count(operation, name, args, kwargs, given, is_for_device)

    found = KERNELS.get(name, operation)(*tree_map(values_of, args), **tree_map(values_of, kwargs))

    def named(each: Any) -> Any:
        if not isinstance(each, torch.Tensor):
            return each
        same = [tensor for tensor in given if values_of(tensor) is each]
        return same[0] if same else DeviceTensor(each) if is_for_device else each

    return tree_map(named, found)


def _check_one_device(operation: Any, name: str, args: Any, given: list[torch.Tensor]) -> None:
    """Refuse to mix devices, as torch does: all operations but copies, and these tensors, must be on one device.

    Numbers (tensors without dimensions) may be on the CPU, and so may the indices into a tensor of the device.
    """
    if name in COPIES:
        return
    indices = [each for each in args[1] if each is not None] if name in BY_INDEX else []
    if isinstance(args[0] if args else None, DeviceTensor):
        index_ids = set(map(id, indices))
        given = [each for each in given if id(each) not in index_ids]

    are_there = [isinstance(each, DeviceTensor) for each in given]
    are_elsewhere = [each.dim() > 0 and not is_there for each, is_there in zip(given, are_there, strict=True)]
    if any(are_there) and any(are_elsewhere):
        raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices, "
                           f"{_device[0]} and cpu! (when calling {operation}, in {place()})")


def _count_arrival(found: Counts, name: str, args: Any, kwargs: Any, source: torch.Tensor) -> None:
    found.arrivals[place()] += 1
    # A copy only joins the queue if it is asked to (copy_ has that as its third argument), and its memory is pinned.
    is_asked = kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))
    if not is_asked or not getattr(source, "is_in_pinned_memory", False):
        found.uploads[place()] += 1


def _count(operation: Any, name: str, args: Any, kwargs: Any, given: list[torch.Tensor], is_for_device: bool) -> None:
    if _state.in_kernel:
        return
    found, are_there = counts(), [isinstance(each, DeviceTensor) for each in given]

    if name in COPIES:
        # copy_ writes from its second argument to its first, _to_copy reads its only one.
        source, is_to_device = (args[1], are_there[0]) if name == "copy_" else (args[0], is_for_device)
        is_from_device = isinstance(source, DeviceTensor)
        # Into pinned memory, a copy can be made while the host goes on.
        goes_on = name == "copy_" and args[2:] == (True,) and getattr(args[0], "is_in_pinned_memory", False)
        if is_from_device and not is_to_device and not goes_on:
            found.waits[f"{name}: {place()}"] += 1
        elif is_to_device and not is_from_device:
            if isinstance(source, torch.Tensor):
                _count_arrival(found, name, args, kwargs, source)
        elif (dtype := args[0].dtype if name == "copy_" else kwargs.get("dtype")) not in (None, source.dtype):
            found.casts[str(source.dtype)[6:], str(dtype)[6:]] += 1

    indices = args[1] if name in BY_INDEX else ()
    by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
    # With the size of its result given, repeat_interleave need not read how often.
    is_sized = name == "repeat_interleave" and kwargs.get("output_size") is not None
    if any(are_there) and (by_mask or (name in SIZE_FROM_VALUES and not is_sized)):
        found.waits[f"{name}: {place()}"] += 1

    if name in PRODUCTS:
        found.products[str(given[-1].dtype)[6:], place()] += 1
    if not operation.is_view and name not in NO_LAUNCH and (is_for_device or any(are_there)):
        found.launches[name] += 1


class Kernel:
    """A context in which one call of a library's kernel is computed: it counts as one launch."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        counts().launches[self.name] += 1
        self.before, _state.in_kernel = _state.in_kernel, True

    def __exit__(self, *fault: object) -> None:
        _state.in_kernel = self.before


class Event:
    """A place in the queue of the device, for which the host can wait: see :class:`Counts`."""

    num_before: int | None = None

    def record(self) -> None:
        self.num_before = counts().launches.total()

    def synchronize(self) -> None:
        if self.num_before is not None:
            counts().late[counts().launches.total() - self.num_before] += 1


def install(device: str, key: str) -> torch.library.Library:
    """Let all operations of ``device``, whose dispatch key is ``key``, be computed here; the library must be kept."""
    # torch remembers these functions; they must not be those of below.
    device_context._device_constructors()
    _device.append(torch.device(device, 0))
    library = torch.library.Library("_", "IMPL")
    library.fallback(compute, key)
    _construct_on_device()
    _replace_weights()
    return library


def _construct_on_device() -> None:
    """Let torch construct tensors on the device and read them from it, which it does without any operation."""
    tensor, as_tensor, arange, tolist = torch.tensor, torch.as_tensor, torch.arange, torch.Tensor.tolist

    def is_device(device: Any) -> bool:
        # Without one, that of the innermost "with torch.device(...)".
        device = device_context.CURRENT_DEVICE if device is None else device
        return device is not None and torch.device(device).type == _device[0].type

    def tensor_there(data: Any, *, device: Any = None, requires_grad: bool = False, **settings: Any) -> torch.Tensor:
        if not is_device(device):
            return tensor(data, device=device, requires_grad=requires_grad, **settings)
        return tensor(data, device="cpu", **settings).to(_device[0]).requires_grad_(requires_grad)

    def as_tensor_there(data: Any, dtype: Any = None, device: Any = None) -> torch.Tensor:
        if isinstance(data, torch.Tensor) or not is_device(device):
            return as_tensor(data, dtype=dtype, device=device)
        return tensor_there(data, dtype=dtype, device=device)

    def arange_there(*range_: Any, device: Any = None, **settings: Any) -> torch.Tensor:
        if not is_device(device):
            return arange(*range_, device=device, **settings)
        counts().launches["arange"] += 1
        return DeviceTensor(arange(*range_, device="cpu", **settings))

    def tolist_there(self: torch.Tensor) -> Any:
        if isinstance(self, DeviceTensor):
            counts().waits[f"tolist: {place()}"] += 1
        return tolist(values_of(self))

    torch.tensor, torch.as_tensor, torch.arange = tensor_there, as_tensor_there, arange_there
    torch.Tensor.tolist = tolist_there


def _replace_weights() -> None:
    """Let a module that moves get new weights: the data of a tensor on the CPU cannot become that of the device."""
    is_compatible = torch._has_compatible_shallow_copy_type

    def is_compatible_there(one: torch.Tensor, other: torch.Tensor) -> bool:
        return isinstance(one, DeviceTensor) == isinstance(other, DeviceTensor) and is_compatible(one, other)

    torch._has_compatible_shallow_copy_type = is_compatible_there
