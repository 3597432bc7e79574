"""Documents read ahead, on a disk: more of them than memory holds, for many processes, and kept when these end.

They belong to one checkpoint, on any device and in any number format: its fingerprint stands in the folder. A document
is known by a hash of its token ids. What else may be stored later, such as memory without a query, takes other keys in
the same folder: a hash of another kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from scaledown.models.engine.packing import KeysValues
from scaledown.models.serving.disk import shards, stored_numbers
from scaledown.models.serving.disk.shards import Tensors
from scaledown.models.serving.disk.store_index import FLOAT16, NUMBER_FORMATS
from scaledown.models.serving.disk.stored_numbers import LayerShape
from scaledown.models.serving.disk.tensor_folder import DESCRIPTION, TensorFolder
from scaledown.models.serving.store import DocumentKey, DocumentReader, Store, padded_layers

KIND = b"keys and values"
HASH_BYTES = 16


class DiskStore(Store):
    """Keys and values of documents in a folder, in float16 or int8 numbers, memory-mapped when they are read.

    Any number of processes may read and add at once. Opening it takes no time that grows with the number of documents.
    :meth:`ScaleDownModel.read_documents` and :meth:`ScaleDownModel.compress` take it, and
    ``python -m scaledown.serving.read_ahead`` fills it from a file.

    Args:
        folder: of the store, new or empty at first.
        max_bytes: limit of its size; beyond it the documents that were used longest ago leave. The folder keeps it for
            all processes [as it was, at first none].
        number_format: "float16", or "int8" with half of its size [as it was, at first float16].

    Raises:
        ValueError: if the folder is something else, is damaged, or has another number format.
    """

    def __init__(self, folder: Path | str, max_bytes: int | None = None, number_format: str | None = None) -> None:
        if number_format not in (None, *NUMBER_FORMATS):
            raise ValueError(f"number_format must be one of {', '.join(NUMBER_FORMATS)}, got {number_format!r}")
        self.folder = Path(folder)
        self._tensors = TensorFolder(self.folder, max_bytes)
        self._index = self._tensors.index
        self._gathered: dict[bytes, Tensors] = {}
        self._gathered_bytes = 0
        self._shapes: list[LayerShape] | None = None  # of each layer, once they are known

        with self._index.writing():
            if self._index.setting("number_format") is None:
                self._index.set("number_format", number_format or FLOAT16)
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

    def check(self, reader: DocumentReader) -> None:
        """Refuse another checkpoint than the one whose documents these are; a new store becomes this one's.

        Raises:
            ValueError: if it is another one.
        """
        own = self._index.setting("checkpoint")
        if own is None:
            with self._index.writing():
                # Another process may have been faster.
                own = self._index.setting("checkpoint") or reader.fingerprint
                self._index.set("checkpoint", own)
                self._index.set(DESCRIPTION, {"checkpoint": own, "number_format": self.number_format})
        if own != reader.fingerprint:
            raise ValueError(f"{self.folder}: its documents were read by another checkpoint, or by this one before it "
                             f"was trained further ({own}, not {reader.fingerprint}); give another folder, or delete "
                             "this one and read the documents again")

    def missing(self, documents: Iterable[DocumentKey]) -> list[DocumentKey]:
        """Return the documents that are not here yet, each once."""
        by_hash = {_hash(ids): ids for ids in documents}
        there = self._index.find(by_hash)
        self._index.stamp(there)
        return [ids for key, ids in by_hash.items() if key not in there]

    def claim(self, documents: Iterable[DocumentKey]) -> list[DocumentKey]:
        """Return the documents that are not here and that no other process has claimed, each once, and claim them.

        So several processes that fill a store share the work. What is left by one that was killed is not claimed anew:
        :meth:`read` all documents in the end.
        """
        by_hash = {_hash(ids): ids for ids in documents}
        return [by_hash[key] for key in self._index.claim(by_hash)]

    def add(self, documents: Sequence[DocumentKey], layers: Sequence[list[KeysValues]]) -> None:
        """Gather documents, and write them as soon as they fill a shard.

        Raises:
            ValueError: if the disk cannot take them, or a number is beyond float16.
        """
        if self._shapes is None and layers:
            # All documents of a checkpoint share them.
            self._shapes = [LayerShape.of(layer) for layer in layers[0]]
            with self._index.writing():
                self._index.set("layers", self._shapes)

        for ids, of_document in zip(documents, layers, strict=True):
            tensors = stored_numbers.encode(of_document, self.number_format)
            self._gathered[_hash(ids)] = tensors
            self._gathered_bytes += shards.bytes_of(tensors)
            if self._gathered_bytes >= self._tensors.shard_bytes:
                self.flush()

    def flush(self) -> None:
        """Write the documents that were added.

        Raises:
            ValueError: if the disk cannot take them.
        """
        gathered, self._gathered, self._gathered_bytes = self._gathered, {}, 0
        if gathered:
            self._tensors.put(gathered)

    def gather(self, documents: Sequence[DocumentKey], reader: DocumentReader) -> list[KeysValues]:
        """Return the keys and values (R, G, T, W) of ``documents``, layer by layer, padded on the right.

        Documents that have left meanwhile, as in a store with a small limit, are read again.

        Raises:
            ValueError: if a shard is damaged.
        """
        by_hash = {_hash(ids): ids for ids in documents}
        found = self._tensors.get(by_hash)
        gone = [ids for key, ids in by_hash.items() if key not in found]
        if gone:
            for ids, layers in zip(gone, reader.read(gone), strict=True):
                # As they would come from the disk, so that no answer depends on the limit.
                found[_hash(ids)] = stored_numbers.encode(layers, self.number_format)

        if self._shapes is None:
            # Another process has read the documents.
            self._shapes = [LayerShape(*shape) for shape in self._index.setting("layers")]
        return padded_layers([stored_numbers.decode(found[_hash(ids)], self._shapes, len(ids), reader.device)
                              for ids in documents])


def _hash(ids: DocumentKey) -> bytes:
    """Return the key of a document: its kind and its token ids, hashed."""
    # In bytes of one order, whatever the machine's own is.
    return hashlib.sha256(KIND + np.array(ids, dtype="<i8").tobytes()).digest()[:HASH_BYTES]
