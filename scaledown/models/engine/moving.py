"""Tensors on their way to a device: each by itself, or all tensors of a batch in one copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

ALIGNMENT = 64
"""Each tensor of a parcel starts at a multiple of this number of bytes, as kernels expect of tensors."""
SAME_FORMATS = ("cpu", "cuda")
"""Kinds of devices that hold numbers as a CPU does, so that bytes can be taken for numbers again there."""


class Movable:
    """A dataclass whose tensors, and those of its fields, move to a device together; other values stay."""

    def to(self, device: torch.device | str) -> Self:
        """Return the same on ``device``."""
        return changed(self, lambda tensor: tensor.to(device, non_blocking=True))


@dataclass(frozen=True)
class Parcel:
    """A batch on its way to another process and to a device: the values of all its tensors in one.

    A batch has about 25 small tensors. Each by itself would take a file to come from another process, a block of pinned
    memory, and a copy to the GPU.

    Attributes:
        batch: with tensors that have shapes and number formats, but no values (on the meta device).
        values: (n,) the bytes of these tensors, one after the other.
        sizes: the number of bytes of each, with the gap behind it.
    """

    batch: dict[str, Any]
    values: Tensor
    sizes: Sequence[int]

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> Parcel:
        """Pack a batch that is on the CPU."""
        parts: list[Tensor] = []

        def set_aside(tensor: Tensor) -> Tensor:
            of_tensor = tensor.contiguous().flatten().view(torch.uint8)
            parts.append(F.pad(of_tensor, (0, -len(of_tensor) % ALIGNMENT)))
            return tensor.to("meta")

        without_values = changed(batch, set_aside)
        return cls(without_values, torch.cat(parts), [len(part) for part in parts])

    def pin_memory(self) -> Parcel:
        """Return the same in pinned memory, from which a GPU copies asynchronously; a ``DataLoader`` calls this."""
        return dataclasses.replace(self, values=self.values.pin_memory())

    def unpacked(self, device: torch.device | str) -> dict[str, Any]:
        """Return the batch on ``device``; on a GPU it comes in one copy, for which the host does not wait."""
        has_same_formats = torch.device(device).type in SAME_FORMATS
        values = self.values.to(device, non_blocking=True) if has_same_formats else self.values
        parts = iter(values.split(self.sizes))

        def take(tensor: Tensor) -> Tensor:
            return next(parts)[:tensor.nbytes].view(tensor.dtype).view(tensor.shape)

        # In the order in which they were packed.
        batch = changed(self.batch, take)
        return batch if has_same_formats else moved(batch, device)


def moved(batch: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    """Return a batch on ``device``: its tensors and packed texts; numbers stay what they are."""
    return changed(batch, lambda tensor: tensor.to(device, non_blocking=True))


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return ``value`` with each tensor changed: a batch, packed texts or a tensor; anything else as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: changed(part, change) for name, part in value.items()}
    if not isinstance(value, Movable):
        return value

    # Not vars(value), which torch 2.11 cannot compile.
    fields = {}
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if isinstance(part, Tensor | Movable):
            fields[field.name] = changed(part, change)
    return dataclasses.replace(value, **fields)
