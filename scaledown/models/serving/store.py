"""Documents that a compressor has read before any question is known.

A causal compressor that reads the document before the query (``--input_order document_first``) leaves keys and values
that no query changes. Stored, they cost memory instead of time: when a question comes, only the query and the memory
tokens are computed. They are stored in memory (:class:`DocumentStore`) or on a disk
(:class:`scaledown.models.serving.disk.disk_store.DiskStore`).

Any compressor can make memory without a query. It is far smaller, and leaves nothing to compute for a question
(:class:`scaledown.models.serving.disk.memory_store.MemoryStore`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scaledown.models.compressors.base import Embed
from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.engine.packing import KeysValues, TextLists
from scaledown.progress import Bar

DocumentKey = tuple[int, ...]
"""The token ids of a document, by which stores know it."""


class DocumentReader(NamedTuple):
    """A model as stores know it: it reads the documents that they do not hold.

    Attributes:
        fingerprint: of its trained weights and settings.
        device: of the model.
        dtype: of the arithmetic.
        compressor: reads the documents.
        embed: the generator's token embeddings, which some compressors read.
    """

    fingerprint: str
    device: torch.device
    dtype: torch.dtype
    compressor: CausalCompressor
    embed: Embed

    @property
    def identity(self) -> str:
        """The model with its device and number format, in which tensors in memory are."""
        return f"{self.fingerprint} {self.device} {self.dtype}"

    def read(self, documents: Sequence[DocumentKey]) -> list[list[KeysValues]]:
        """Return the keys and values (G, T, W) of each document, layer by layer."""
        # Layers cannot read nothing: for an empty document they read a token of which nothing is kept below.
        prefixes = [ids or (0,) for ids in documents]
        # Prefixes that nothing continues, and no final state is wanted.
        texts = TextLists(prefixes, [], [], [()] * len(prefixes)).packed().to(self.device)
        layers = self.compressor.read_prefixes(texts, self.embed)             # of each layer two (R, G, T, W)

        found = []
        for row, ids in enumerate(documents):
            # Cloned without padding, as a view would hold the memory of its whole batch.
            found.append([(keys[row, :, :len(ids)].clone(), values[row, :, :len(ids)].clone())
                          for keys, values in layers])
        return found


class MemoryReader(NamedTuple):
    """A model as stores of memory know it: it compresses the documents that they do not hold, without a query.

    Attributes:
        fingerprint: of its trained weights and settings.
        device: of the model.
        num_memory_tokens: L.
        read: takes documents, returns their memory (P, L, D).
    """

    fingerprint: str
    device: torch.device
    num_memory_tokens: int
    read: Callable[[Sequence[DocumentKey]], Tensor]


Reader = DocumentReader | MemoryReader


class Store(ABC):
    """Documents by their token ids, with what one model has computed of them ahead of questions.

    What that is and where it is are up to the subclass, whose ``gather`` returns it for some documents.
    """

    def read(self, documents: Iterable[DocumentKey], reader: Reader, batch_size: int,
             show_progress_bar: bool = False) -> int:
        """Read the documents that are not here yet, ``batch_size`` at a time, and return their number.

        Raises:
            ValueError: if the stored documents were read by another model than ``reader``.
        """
        self.check(reader)
        missing = self.missing(documents)
        for start in Bar(range(0, len(missing), batch_size), desc="reading documents", unit="batch",
                         disable=not show_progress_bar):
            batch = missing[start:start + batch_size]
            self.add(batch, reader.read(batch))
        self.flush()
        return len(missing)

    @abstractmethod
    def check(self, reader: Reader) -> None:
        """Refuse another model than the one that read the stored documents.

        Raises:
            ValueError: with what to do.
        """

    @abstractmethod
    def missing(self, documents: Iterable[DocumentKey]) -> list[DocumentKey]:
        """Return the documents that are not here yet, each once."""

    @abstractmethod
    def add(self, documents: Sequence[DocumentKey], found: Sequence[Any]) -> None:
        """Store documents with what a reader returned for them."""

    def flush(self) -> None:
        """Finish what :meth:`add` has begun."""
        return


class DocumentStore(Store):
    """Keys and values in memory, on the device of the compressor that read them, as they were computed.

    Args:
        reader: the model that reads them, with its device and number format.
    """

    def __init__(self, reader: str) -> None:
        self._reader = reader
        self._documents: dict[DocumentKey, list[KeysValues]] = {}

    def __len__(self) -> int:
        return len(self._documents)

    @property
    def num_bytes(self) -> int:
        """The size of all keys and values."""
        total = 0
        for layers in self._documents.values():
            total += sum(keys.nbytes + values.nbytes for keys, values in layers)
        return total

    def check(self, reader: DocumentReader) -> None:
        """Refuse another model, and the same one on another device or in another number format.

        Raises:
            ValueError: if it is one of these.
        """
        if reader.identity != self._reader:
            raise ValueError("the stored documents were read by another model, before this one was trained further, "
                             "or on another device or in another dtype: read them again with read_documents")

    def missing(self, documents: Iterable[DocumentKey]) -> list[DocumentKey]:
        """Return the documents that are not here yet, each once."""
        return [ids for ids in dict.fromkeys(documents) if ids not in self._documents]

    def add(self, documents: Sequence[DocumentKey], layers: Sequence[list[KeysValues]]) -> None:
        """Hold documents with what a reader returned for them."""
        self._documents.update(zip(documents, layers, strict=True))

    def gather(self, documents: Sequence[DocumentKey], reader: DocumentReader) -> list[KeysValues]:
        """Return the keys and values (R, G, T, W) of ``documents``, layer by layer, padded on the right."""
        return padded_layers([self._documents[ids] for ids in documents])


def padded_layers(documents: Sequence[Sequence[KeysValues]]) -> list[KeysValues]:
    """Return the keys and values (G, T, W) of R documents as tensors (R, G, longest T, W), layer by layer."""
    # From documents with all layers each to layers with all documents each.
    gathered = []
    for layer in zip(*documents, strict=True):
        keys, values = zip(*layer, strict=True)
        gathered.append((_padded(keys), _padded(values)))
    return gathered


def _padded(texts: Sequence[Tensor]) -> Tensor:
    """Return R texts (G, T, W) of different lengths as one tensor (R, G, longest T, W)."""
    heads, _, width = texts[0].shape
    padded = texts[0].new_zeros(len(texts), heads, max(text.shape[1] for text in texts), width)
    for row, text in zip(padded, texts, strict=True):
        row[:, :text.shape[1]] = text
    return padded
