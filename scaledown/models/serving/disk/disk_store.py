"""Keys and values of documents read ahead, on a disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scaledown.models.engine.packing import KeysValues
from scaledown.models.serving.disk import stored_numbers
from scaledown.models.serving.disk.disk_documents import DiskDocuments
from scaledown.models.serving.disk.store_index import KEYS_AND_VALUES, NUMBER_FORMATS
from scaledown.models.serving.disk.stored_numbers import LayerShape
from scaledown.models.serving.store import DocumentKey, DocumentReader, padded_layers


class DiskStore(DiskDocuments):
    """Keys and values of documents in a folder, in float16 or int8 numbers, memory-mapped when they are read.

    Any number of processes may read and add at once. Opening it takes no time that grows with the number of documents.
    :meth:`ScaleDownModel.read_documents` and :meth:`ScaleDownModel.compress` take it, and
    ``python -m scaledown.serving.read_ahead`` fills it from a file.

    Args:
        folder: of the store, new or empty at first.
        max_bytes: limit of its size; beyond it the documents that were used longest ago leave. The folder keeps it for
            all processes, once a model that fits the store has used it [as it was, at first none].
        number_format: "float16", or "int8" with half of its size [as it was, at first float16].

    Raises:
        ValueError: if the folder is something else, is damaged, or has another number format.
    """

    contents = KEYS_AND_VALUES

    def __init__(self, folder: Path | str, max_bytes: int | None = None, number_format: str | None = None) -> None:
        if number_format not in (None, *NUMBER_FORMATS):
            raise ValueError(f"number_format must be one of {', '.join(NUMBER_FORMATS)}, got {number_format!r}")
        super().__init__(folder, max_bytes, number_format)
        self._shapes: list[LayerShape] | None = None  # of each layer, once they are known

    def add(self, documents: Sequence[DocumentKey], layers: Sequence[list[KeysValues]]) -> None:
        """Gather documents, and write them as soon as they fill a shard.

        Raises:
            StoreFault: if the disk cannot take them, or a number is beyond float16.
        """
        if self._shapes is None and layers:
            # All documents of a checkpoint share them.
            self._shapes = [LayerShape.of(layer) for layer in layers[0]]
            with self._index.writing():
                self._index.set("layers", self._shapes)

        for ids, of_document in zip(documents, layers, strict=True):
            self._add(ids, stored_numbers.encode(of_document, self.number_format))

    def gather(self, documents: Sequence[DocumentKey], reader: DocumentReader) -> list[KeysValues]:
        """Return the keys and values (R, G, T, W) of ``documents``, layer by layer, padded on the right.

        Documents that have left meanwhile, as in a store with a small limit, are read again.

        Raises:
            StoreFault: if a shard is damaged.
        """
        found = self._find(documents)
        gone = [ids for ids in dict.fromkeys(documents) if ids not in found]
        if gone:
            for ids, layers in zip(gone, reader.read(gone), strict=True):
                # As they would come from the disk, so that no answer depends on the limit.
                found[ids] = stored_numbers.encode(layers, self.number_format)

        if self._shapes is None:
            # Another process has read the documents.
            self._shapes = [LayerShape(*shape) for shape in self._index.setting("layers")]
        return padded_layers([stored_numbers.decode(found[ids], self._shapes, len(ids), reader.device)
                              for ids in documents])
