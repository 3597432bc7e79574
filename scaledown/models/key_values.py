"""The keys and values of what a generator has read."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from scaledown.models.decoder_layer import KeysValues


class KeyValueCache:
    """Keys and values (R, key heads, S, head width) of R texts, layer by layer, with room to write on in place.

    Args:
        in_one_shape: what is read is always all there is room for, so that its shape does not grow with every token;
            behind the last slot stand zeros, or what was forgotten, which whoever reads must hide.

    Attributes:
        length: slots S that all layers hold. Setting it back forgets what came after.
    """

    def __init__(self, layers: Iterable[KeysValues] = (), in_one_shape: bool = False) -> None:
        self._layers, self.in_one_shape = list(layers), in_one_shape
        self.length = self._layers[0][0].shape[2] if self._layers else 0

    @property
    def num_slots(self) -> int:
        """Slots that there is room for."""
        return self._layers[0][0].shape[2]

    def extend(self, number: int, keys: Tensor, values: Tensor) -> KeysValues:
        """Put new slots (R, key heads, T, head width) behind those of layer ``number``: (R, key heads, S + T, ...).

        They count once :attr:`length` is moved on, after the last layer.
        """
        if number == len(self._layers):
            self._layers.append((keys, values))
            return keys, values
        end = self.length + keys.shape[2]
        self._grow(number, end)
        for room, new in zip(self._layers[number], (keys, values), strict=True):
            if self.in_one_shape:
                room.index_copy_(2, torch.arange(self.length, end, device=new.device), new)
            else:
                room[:, :, self.length:end] = new
        return self._layers[number] if self.in_one_shape else self._until(number, end)

    def reserve(self, num_slots: int) -> None:
        """Make room for ``num_slots`` more, once, so that writing on copies nothing."""
        for number in range(len(self._layers)):
            self._grow(number, self.length + num_slots)

    def repeated(self, num_texts: int) -> KeyValueCache:
        """The cache of one text, as that of ``num_texts`` equal ones; nothing is copied before something is added."""
        return KeyValueCache(tuple(each.expand(num_texts, -1, -1, -1) for each in self._until(number, self.length))
                             for number in range(len(self._layers)))

    def _until(self, number: int, end: int) -> KeysValues:
        keys, values = self._layers[number]
        return keys[:, :, :end], values[:, :, :end]

    def _grow(self, number: int, size: int) -> None:
        keys, values = self._layers[number]
        if keys.shape[2] >= size:
            return
        rooms = []
        for old in (keys, values):
            room = old.new_zeros(*old.shape[:2], size, old.shape[3])
            room[:, :, :self.length] = old[:, :, :self.length]
            rooms.append(room)
        self._layers[number] = (rooms[0], rooms[1])
