"""Shards: safetensors files with the tensors of many entries, written once and never changed, memory-mapped when read.

A tensor is named by its entry's key in hexadecimal digits and its own name, ``0a1b....numbers``. Since a shard never
changes, one that is open stays readable even if its file is removed meanwhile.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from scaledown.files import WHAT_TO_DO, disk_faults
from scaledown.models.loading import tensor_file
from scaledown.models.serving.disk.store_index import Entry, StoreFault

Tensors = dict[str, Tensor]
"""What is stored under one key: tensors by name, on the CPU."""

MOST_OPEN = 64
"""Shards that one process holds open. The disk gets the space of a removed shard back when nobody has it open."""
NAME_BYTES = 192
"""What a tensor takes in a shard's header, at most: its name, format, shape and place."""


def path_of(folder: Path, number: int) -> Path:
    """Return the file of a shard."""
    return folder / f"shard-{number:08d}.safetensors"


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """Return the bytes of an entry's numbers."""
    return sum(tensor.nbytes for tensor in tensors.values())


def largest_size(tensors: Mapping[str, Tensor]) -> int:
    """Return the bytes that an entry takes in a shard at most, with its part of the header."""
    return bytes_of(tensors) + NAME_BYTES * len(tensors)


def checksum_of(tensors: Mapping[str, Tensor]) -> int:
    """Return the CRC-32 of an entry's tensors: a damaged disk must not turn into wrong answers."""
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].numpy(), checksum)
    return checksum


def write(path: Path, entries: Mapping[bytes, Tensors], description: Mapping[str, Any]) -> int:
    """Write a shard whole or not at all, and return the size of its file.

    Raises:
        StoreFault: if the disk cannot take it.
    """
    tensors = {}
    for key, of_entry in entries.items():
        for name, tensor in of_entry.items():
            tensors[f"{key.hex()}.{name}"] = tensor
    try:
        tensor_file.write(path, tensors, description)
        return _kept_size(path)
    except ValueError as fault:
        raise StoreFault(str(fault)) from fault


def _kept_size(path: Path) -> int:
    """Return the size of a file once it is on the disk, also after a power failure.

    Raises:
        ValueError: if the disk fails.
    """
    # Before an index says so: the file first, then its name in the folder.
    with disk_faults(path, WHAT_TO_DO):
        for place in (path, path.parent):
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return path.stat().st_size


class OpenShards:
    """The shards of a folder, opened when they are first read; those used last stay open. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    def forget(self, number: int) -> None:
        """Close a shard, if it is open."""
        with self._lock:
            self._open.pop(number, None)

    def read(self, entry: Entry) -> Tensors:
        """Return the tensors of an entry, as views of its mapped file.

        Raises:
            FileNotFoundError: if there is no such shard.
            StoreFault: if it is damaged.
        """
        path = path_of(self._folder, entry.shard)
        try:
            # Those used last stand at the end.
            with self._lock:
                if entry.shard not in self._open:
                    self._open[entry.shard] = _OpenShard(path)
                self._open.move_to_end(entry.shard)
                while len(self._open) > MOST_OPEN:
                    self._open.popitem(last=False)
                return self._open[entry.shard].read(entry)
        except FileNotFoundError:
            raise
        except (SafetensorError, OSError, KeyError, ValueError) as fault:
            self._open.pop(entry.shard, None)
            raise StoreFault(f"{path}: damaged ({fault}); delete this file: what was in it is then read "
                             "again") from None


class _OpenShard:
    """A mapped file, the names of its tensors, and the keys whose checksums were found right."""

    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, framework="pt")
        self._names: dict[str, list[str]] = {}
        for full_name in self._file.keys():  # noqa: SIM118 - it is no dict
            key, _, name = full_name.partition(".")
            self._names.setdefault(key, []).append(name)
        self._checked: set[bytes] = set()

    def read(self, entry: Entry) -> Tensors:
        key = entry.key.hex()
        tensors = {name: self._file.get_tensor(f"{key}.{name}") for name in self._names[key]}

        # Once for each entry: the pages of a mapped file that were right do not change.
        if entry.key not in self._checked:
            if checksum_of(tensors) != entry.checksum:
                raise ValueError("it is not what was written")
            self._checked.add(entry.key)
        return tensors
