"""Tensors by key in a folder, for several processes at once, bounded in size: what was used longest ago leaves first.

New entries come as a shard of their own. It is written while the index is locked for writing, then the index names its
entries; so a process that is killed at any moment leaves an index in which all entries are whole, and at most a file
that the index does not name, which the next one that writes replaces or removes.

Nothing here knows what is stored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from scaledown.models.serving.disk import shards
from scaledown.models.serving.disk.shards import OpenShards, Tensors
from scaledown.models.serving.disk.store_index import Entry, StoreFault, StoreIndex

SHARD_BYTES = 64 * 2**20
"""The size at which a shard is written; a kill loses what was gathered for one."""
SMALL_SHARE, MOST_SMALL = 4, 64
"""Shards below a quarter of the usual size are written together into whole ones when there are so many of them."""
MAX_BYTES, DESCRIPTION = "max_bytes", "description"
"""Settings in the index: the limit, and what the metadata of each shard says."""
UNKNOWN_FILES = ("*shard-*.safetensors*", ".tmp*")
"""Shards and our drafts of them; safetensors writes into a draft of its own, with a name such as .tmp1Dl34R."""
REMOVED_SHARE, MOST_SHARDS_REMOVED = 10, 16
"""Beyond its limit a tenth of the folder is removed at once, so that this is rare; or so many shards, if that is less,
so that others need not wait long."""


class TensorFolder:
    """Tensors by key in ``folder``, made if there is none.

    The limit holds whenever nobody writes; while old shards are written again, both are there for a moment.

    Args:
        folder: of the index and the shards.

    Attributes:
        index: settings and places of all entries.
        latest_removed: the time of the last use of the most recently used entry that this process had to remove.

    Raises:
        ValueError: for a folder that is something else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = StoreIndex(folder)
        self.latest_removed = 0.0
        self._shards, self._has_looked = OpenShards(folder), False

    def limit(self, max_bytes: int) -> None:
        """Limit the shards together, for all processes and from now on; what is beyond it leaves at once.

        Raises:
            StoreFault: if a shard is damaged, or the index cannot be written.
        """
        with self.index.writing():
            self.index.set(MAX_BYTES, max_bytes)
            old = self._make_room(0)
        self._unlink(old)

    @property
    def shard_bytes(self) -> int:
        """The size of a shard: the usual one, or less if only few of these would fit the limit."""
        max_bytes = self.index.setting(MAX_BYTES)
        return SHARD_BYTES if max_bytes is None else min(SHARD_BYTES, max(1, max_bytes // 8))

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Tensors]:
        """Return the tensors of those keys that are there, and note that they were used.

        Raises:
            StoreFault: if a shard is damaged.
        """
        found = {}
        for key, entry in self.index.find(keys).items():
            while entry is not None and key not in found:
                try:
                    found[key] = self._shards.read(entry)
                except FileNotFoundError:
                    entry = self._moved(entry)
        self.index.stamp(found)
        return found

    def put(self, entries: Mapping[bytes, Tensors]) -> int:
        """Add those entries that are not there yet, as one shard, and return their number.

        Args:
            entries: tensors by key.

        Raises:
            StoreFault: if the disk cannot take them, or the limit is too small for them.
        """
        with self.index.writing():
            self._remove_unknown_files()
            there = self.index.find(entries)
            new = {key: tensors for key, tensors in entries.items() if key not in there}
            if new:
                # Room is made before it is needed. Old files go when the index no longer names them.
                old = self._make_room(sum(map(shards.largest_size, new.values())))
                old += self._merge_small()
                self.index.add(self._write(new))
        if new:
            self._unlink(old)
        return len(new)

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def _moved(self, entry: Entry) -> Entry | None:
        """Return the new place of an entry whose shard is gone; None if it has none.

        Another process has moved or removed it meanwhile, or a user has deleted a damaged file: all that was in that is
        then forgotten, so that it can be made again.
        """
        now = self.index.find([entry.key]).get(entry.key)
        if now is None or now.shard != entry.shard:
            return now
        with self.index.writing():
            if not shards.path_of(self.folder, entry.shard).exists():
                self.index.remove_shard(entry.shard)
        return None

    # Within a transaction

    def _write(self, new: Mapping[bytes, Tensors]) -> list[Entry]:
        """Write a new shard and return its entries."""
        number = self.index.new_shard()
        # A transaction that failed may have given this number to another shard.
        self._shards.forget(number)
        # Whose tensors these are stands in the file, too.
        num_bytes = shards.write(shards.path_of(self.folder, number), new, self.index.setting(DESCRIPTION) or {})
        self.index.set_size(number, num_bytes)

        # The header is shared out equally, so that the entries of a shard together take what its file takes.
        header_bytes = num_bytes - sum(map(shards.bytes_of, new.values()))
        entries = []
        for key, tensors in new.items():
            own_bytes = shards.bytes_of(tensors) + header_bytes // len(new)
            entries.append(Entry(key, number, own_bytes, shards.checksum_of(tensors)))
        return entries

    def _make_room(self, num_bytes: int) -> list[int]:
        """Remove what was used longest ago until ``num_bytes`` more fit; return the shards that are not needed.

        Raises:
            StoreFault: if they would not fit an empty folder.
        """
        max_bytes = self.index.setting(MAX_BYTES)
        excess = 0 if max_bytes is None else self.index.num_bytes() + num_bytes - max_bytes
        if excess <= 0:
            return []
        if num_bytes > max_bytes:
            raise StoreFault(f"{self.folder}: its limit of {max_bytes:,} bytes is too small for {num_bytes:,} more; "
                             "raise it (max_bytes, --max_gib)")

        to_remove = excess + min(max_bytes // REMOVED_SHARE, MOST_SHARDS_REMOVED * self.shard_bytes)
        entries, latest = self.index.least_used(to_remove)
        self.index.remove(entries)
        self.latest_removed = max(self.latest_removed, latest)

        # Bytes come back only with whole files: those with the smallest part in use are written again without the rest.
        chosen = []
        for shard in sorted(self.index.shards(), key=lambda shard: shard.entry_bytes / max(1, shard.num_bytes)):
            if to_remove <= 0 or shard.entry_bytes >= shard.num_bytes:
                break
            chosen.append(shard.number)
            to_remove -= shard.num_bytes - shard.entry_bytes
        self._rewrite(chosen)
        return chosen

    def _merge_small(self) -> list[int]:
        """Write small shards together once there are many; return the shards that are not needed.

        A service adds a few documents at a time, each time as a shard.
        """
        small_bytes = self.shard_bytes // SMALL_SHARE
        small = [number for number, num_bytes in self.index.shard_sizes() if num_bytes < small_bytes]
        if len(small) < MOST_SMALL:
            return []
        self._rewrite(small)
        return small

    def _rewrite(self, numbers: Iterable[int]) -> None:
        """Move what is in use of some shards into new ones, and forget these shards.

        Raises:
            StoreFault: if one of them is damaged.
        """
        gathered: dict[bytes, Tensors] = {}
        size, largest = 0, self.shard_bytes
        for number in numbers:
            for entry in self.index.entries_of(number):
                # A file that a user has deleted holds nothing to move.
                with contextlib.suppress(FileNotFoundError):
                    gathered[entry.key] = self._shards.read(entry)
                    size += entry.num_bytes
                if size >= largest:
                    self.index.move(self._write(gathered))
                    gathered, size = {}, 0
        if gathered:
            self.index.move(self._write(gathered))
        for number in numbers:
            self.index.remove_shard(number)

    def _remove_unknown_files(self) -> None:
        """Remove shards that the index does not name, and drafts of them: a process was killed before or after it did.

        No other process writes now, so none of them is being made.
        """
        if self._has_looked:
            return
        known = {shards.path_of(self.folder, number).name for number, _ in self.index.shard_sizes()}
        for pattern in UNKNOWN_FILES:
            for path in self.folder.glob(pattern):
                if path.name not in known:
                    path.unlink(missing_ok=True)
        self._has_looked = True

    def _unlink(self, numbers: Iterable[int]) -> None:
        """Remove the files of shards. Who has one open reads on."""
        for number in numbers:
            shards.path_of(self.folder, number).unlink(missing_ok=True)
