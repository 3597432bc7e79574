"""Memory of documents without a query, on a disk: it serves any question, and takes kilobytes a document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from scaledown.models.serving.disk.disk_documents import DiskDocuments
from scaledown.models.serving.disk.shards import Tensors
from scaledown.models.serving.disk.store_index import FLOAT16, MEMORY, StoreFault
from scaledown.models.serving.store import DocumentKey, MemoryReader


class MemoryStore(DiskDocuments):
    """Memory of documents without a query in a folder, in float16 numbers: L x D x 2 bytes a document.

    ``model.compress(None, documents, store=store)`` takes it, and compresses only the documents that it does not hold;
    :meth:`ScaleDownModel.read_documents` and ``python -m scaledown.serving.read_ahead`` with ``--memory`` fill it. It
    holds one number of memory tokens, that of the first documents.

    Any number of processes may read and add at once. Opening it takes no time that grows with the number of documents.

    Args:
        folder: of the store, new or empty at first.
        max_bytes: limit of its size; beyond it the documents that were used longest ago leave. The folder keeps it for
            all processes, once a model that fits the store has used it [as it was, at first none].

    Raises:
        ValueError: if the folder is something else, or is damaged.
    """

    contents = MEMORY

    def __init__(self, folder: Path | str, max_bytes: int | None = None) -> None:
        super().__init__(folder, max_bytes, FLOAT16)

    @property
    def num_memory_tokens(self) -> int | None:
        """The number of memory tokens of each document; None for a new store."""
        return self._index.setting("num_memory_tokens")

    def _check_reader(self, reader: MemoryReader) -> None:
        """Refuse another checkpoint, or another number of memory tokens; a new store becomes theirs.

        Raises:
            StoreFault: if it is another one.
        """
        super()._check_reader(reader)
        own = self.num_memory_tokens
        if own is None:
            # Only a new store is written to: whoever uses a filled one need not wait for another process that writes.
            with self._index.writing():
                own = self.num_memory_tokens or reader.num_memory_tokens
                self._index.set("num_memory_tokens", own)
        if own != reader.num_memory_tokens:
            raise StoreFault(f"{self.folder}: holds memory of {own} tokens a document, not {reader.num_memory_tokens}; "
                             f"give num_memory_tokens={own}, or another folder")

    def add(self, documents: Sequence[DocumentKey], memory: Sequence[Tensor]) -> None:
        """Gather documents with their memory (L, D) each, and write them as soon as they fill a shard.

        Raises:
            StoreFault: if the disk cannot take them, or a number is beyond float16.
        """
        for ids, embeddings in zip(documents, memory, strict=True):
            self._add(ids, _encoded(embeddings))

    def gather(self, documents: Sequence[DocumentKey], reader: MemoryReader) -> Tensor:
        """Return the memory (P, L, D) of ``documents``, as float32 numbers.

        Documents that have left meanwhile, as in a store with a small limit, are compressed again.

        Raises:
            StoreFault: if a shard is damaged.
        """
        found = self._find(documents)
        gone = [ids for ids in dict.fromkeys(documents) if ids not in found]
        if gone:
            for ids, embeddings in zip(gone, reader.read(gone), strict=True):
                # As they would come from the disk, so that no answer depends on the limit.
                found[ids] = _encoded(embeddings)
        return torch.stack([found[ids]["embeddings"] for ids in documents]).to(reader.device, torch.float32)


def _encoded(embeddings: Tensor) -> Tensors:
    """Return the tensor that is stored of a document, on the CPU.

    Raises:
        StoreFault: if a number is beyond the range of float16.
    """
    # A copy in any case, as a view would hold its whole batch.
    halves = embeddings.to(torch.float16, copy=True).cpu()
    if not halves.isfinite().all():
        raise StoreFault("a document's memory is beyond float16, which ends at 65,504: keep this model's in files "
                         "(Memory.save), or train it with --memory_norm")
    return {"embeddings": halves}
