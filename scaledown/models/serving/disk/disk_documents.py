"""Documents in a folder, by their token ids: more of them than memory holds, for many processes, kept when these end.

They belong to one checkpoint, on any device and in any number format: its fingerprint stands in the folder. A document
is known by a hash of its token ids and of what is stored of it. A folder holds one kind of contents, which subclasses
know: keys and values (:mod:`disk_store`), or memory without a query (:mod:`memory_store`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from scaledown.models.serving.disk import shards
from scaledown.models.serving.disk.shards import Tensors
from scaledown.models.serving.disk.store_index import FLOAT16, StoreFault
from scaledown.models.serving.disk.tensor_folder import DESCRIPTION, TensorFolder
from scaledown.models.serving.store import DocumentKey, Reader, Store

HASH_BYTES = 16


class DiskDocuments(Store):
    """Documents in ``folder``, with what one model has computed of them ahead of questions.

    Any number of processes may read and add at once. Opening it takes no time that grows with the number of documents.

    Args:
        folder: of the store, new or empty at first.
        max_bytes: limit of its size; beyond it the documents that were used longest ago leave. The folder keeps it for
            all processes, once a model that fits the store has used it [as it was, at first none].
        number_format: of the stored numbers [as it was, at first float16].

    Raises:
        ValueError: for a limit that is not above 0, or if the folder is something else, is damaged, or has other
            contents or another number format.
    """

    contents = ""
    """Said in a folder of this class: it holds this of documents."""

    def __init__(self, folder: Path | str, max_bytes: int | None = None, number_format: str | None = None) -> None:
        if max_bytes is not None and max_bytes <= 0:
            raise ValueError(f"max_bytes must be above 0, got {max_bytes}")
        self.folder = Path(folder)
        self._tensors = TensorFolder(self.folder)
        self._new_limit = max_bytes
        self._index = self._tensors.index
        self._gathered: dict[bytes, Tensors] = {}
        self._gathered_bytes = 0

        # Only a new one is written to, so that a store opens while another process writes.
        if self._index.setting("number_format") is None:
            with self._index.writing():
                if self._index.setting("number_format") is None:
                    self._index.set("number_format", number_format or FLOAT16)
                    self._index.set("contents", self.contents)
        own = self._index.contents()
        if own != self.contents:
            raise ValueError(f"{folder}: holds {own} of documents, not {self.contents}; give another folder")
        self.number_format = self._index.setting("number_format")
        if number_format not in (None, self.number_format):
            raise ValueError(f"{folder}: holds {self.number_format} numbers, not {number_format}; give another folder, "
                             "or leave the number format to the store")

    def __len__(self) -> int:
        return self._index.num_entries()

    @property
    def num_bytes(self) -> int:
        """The size of all documents on the disk."""
        return self._index.num_bytes()

    @property
    def latest_removed(self) -> float:
        """The time at which the most recently used of the documents was used that had to leave by this object."""
        return self._tensors.latest_removed

    def close(self) -> None:
        """Close the files."""
        self._tensors.close()

    def check(self, reader: Reader) -> None:
        """Refuse another checkpoint than the one whose documents these are; a new store becomes this one's.

        A new limit holds from here on: who is refused must not make documents leave.

        Raises:
            StoreFault: if it is another one.
        """
        self._check_reader(reader)
        if self._new_limit is not None:
            self._tensors.limit(self._new_limit)
            # Set once: another process may choose another limit later.
            self._new_limit = None

    def missing(self, documents: Iterable[DocumentKey]) -> list[DocumentKey]:
        """Return the documents that are not here yet, each once."""
        by_hash = {self._hash(ids): ids for ids in documents}
        there = self._index.find(by_hash)
        self._index.stamp(there)
        return [ids for key, ids in by_hash.items() if key not in there]

    def claim(self, documents: Iterable[DocumentKey]) -> list[DocumentKey]:
        """Return the documents that are not here and that no other process has claimed, each once, and claim them.

        So several processes that fill a store share the work. What is left by one that was killed is not claimed anew:
        :meth:`read` all documents in the end.
        """
        by_hash = {self._hash(ids): ids for ids in documents}
        return [by_hash[key] for key in self._index.claim(by_hash)]

    def flush(self) -> None:
        """Write the documents that were added.

        Raises:
            StoreFault: if the disk cannot take them.
        """
        gathered, self._gathered, self._gathered_bytes = self._gathered, {}, 0
        if gathered:
            self._tensors.put(gathered)

    def _check_reader(self, reader: Reader) -> None:
        """Refuse what :meth:`check` refuses."""
        own = self._index.setting("checkpoint")
        if own is None:
            with self._index.writing():
                # Another process may have been faster.
                own = self._index.setting("checkpoint") or reader.fingerprint
                self._index.set("checkpoint", own)
                self._index.set(DESCRIPTION, {"checkpoint": own, "number_format": self.number_format})
        if own != reader.fingerprint:
            raise StoreFault(f"{self.folder}: its documents were read by another checkpoint, or by this one before it "
                             f"was trained further ({own}, not {reader.fingerprint}); give another folder, or delete "
                             "this one and read the documents again")

    def _add(self, ids: DocumentKey, tensors: Tensors) -> None:
        """Gather a document, and write all that are gathered as soon as they fill a shard."""
        self._gathered[self._hash(ids)] = tensors
        self._gathered_bytes += shards.bytes_of(tensors)
        if self._gathered_bytes >= self._tensors.shard_bytes:
            self.flush()

    def _find(self, documents: Iterable[DocumentKey]) -> dict[DocumentKey, Tensors]:
        """Return what is stored of those documents that are here."""
        by_hash = {self._hash(ids): ids for ids in documents}
        return {by_hash[key]: tensors for key, tensors in self._tensors.get(by_hash).items()}

    def _hash(self, ids: DocumentKey) -> bytes:
        """Return the key of a document: what is stored of it and its token ids, hashed."""
        # In bytes of one order, whatever the machine's own is.
        return hashlib.sha256(self.contents.encode() + np.array(ids, dtype="<i8").tobytes()).digest()[:HASH_BYTES]

