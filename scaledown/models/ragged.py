"""Rows of different lengths: padded on the right with their lengths beside them, or packed without any padding.

Nothing here asks the device for a value, so a training step never waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = 2**31 - 1
"""The position of a padded key: after every query, so that causality alone hides it."""


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of ids as one tensor (N, T) padded with 0 on the right, T at least 1, and their lengths (N,)."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    padded = torch.zeros(len(rows), max([1, *map(len, rows)]), dtype=torch.long)
    for row, ids in zip(padded, rows, strict=True):
        row[:len(ids)] = torch.tensor(ids, dtype=torch.long)
    return padded, lengths


def filled(lengths: Sequence[int], size: int) -> Tensor:
    """Where the tokens of padded rows are: slots (N,) of the flattened (rows * ``size``), row by row."""
    return torch.tensor([row * size + place for row, length in enumerate(lengths) for place in range(length)],
                        dtype=torch.long)


class Grid(NamedTuple):
    """Where N packed tokens stand among ``num_rows`` padded rows of ``size`` slots.

    Attributes:
        slots: (N,) of the flattened (num_rows * size); None where the tokens fill all slots in their order, so that
            nothing has to be moved.
    """

    slots: Tensor | None
    num_rows: int
    size: int

    @classmethod
    def of(cls, slots: Tensor, num_rows: int, size: int) -> Grid:
        """The grid of tokens that stand in ascending ``slots`` (N,)."""
        return cls(None if len(slots) == num_rows * size else slots, num_rows, size)

    def only(self, at: Tensor) -> Grid:
        """The same rows, for the packed tokens ``at`` (A,) alone."""
        return self._replace(slots=at if self.slots is None else self.slots.index_select(0, at))

    def pad(self, heads: Tensor) -> Tensor:
        """Packed heads (N, H, W) as attention reads them: (num_rows, H, size, W), zeros where nothing stands."""
        if self.slots is not None:
            room = heads.new_zeros(self.num_rows * self.size, *heads.shape[1:])
            heads = room.index_copy(0, self.slots, heads)
        return heads.unflatten(0, (self.num_rows, self.size)).transpose(1, 2)

    def pack(self, padded: Tensor) -> Tensor:
        """What attention read (num_rows, H, size, W), packed again: (N, H * W)."""
        rows = padded.transpose(1, 2).flatten(2).flatten(0, 1)
        return rows if self.slots is None else rows.index_select(0, self.slots)


def slots(lengths: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The slots 0 to ``size`` of each row (N, T), and whether each holds something (N, T)."""
    index = torch.arange(size, device=lengths.device).expand(len(lengths), size)
    return index, index < lengths[:, None]


def take(tensor: Tensor, at: Tensor) -> Tensor:
    """From each row of ``tensor`` (N, T, D) the slots ``at`` (N, M): (N, M, D)."""
    return tensor.gather(1, at[..., None].expand(*at.shape, tensor.shape[-1]))


def append(texts: Tensor, lengths: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Put ``rows`` (M, D) directly after the last token of each text (N, T, D), with no padding between.

    Returns:
        The longer texts (N, T + M, D) and the slots where the rows now are (N, M).
    """
    at = lengths[:, None] + torch.arange(len(rows), device=lengths.device)
    room = F.pad(texts, (0, 0, 0, len(rows)))
    return room.scatter(1, at[..., None].expand(*at.shape, rows.shape[-1]), rows.expand(len(texts), *rows.shape)), at


def visible(query_positions: Tensor, key_positions: Tensor, window: int | None = None) -> Tensor:
    """Causal attention by position, not by slot: (N, T) queries and (N, S) keys give a bool mask (N, 1, T, S).

    ``window`` is how many positions back a query sees, itself included (sliding-window layers); None is all.
    """
    distance = query_positions[:, None, :, None] - key_positions[:, None, None, :]
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)
