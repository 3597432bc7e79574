"""Documents that a compressor has read already, for any question to come (``--input_order document_first``).

A causal compressor that reads the document before the query leaves keys and values behind that no query changes. Kept,
they cost memory instead of time: at question time only the query and the memory tokens are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from scaledown.models.compressors.base import Embed
from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.decoder import weights_version
from scaledown.models.packing import KeysValues, TextLists

Ids = tuple[int, ...]


class DocumentStore:
    """Keys and values of documents, by their token ids, where ``compressor`` is."""

    def __init__(self, compressor: CausalCompressor) -> None:
        self._version = weights_version(compressor)
        self._documents: dict[Ids, list[KeysValues]] = {}

    def __len__(self) -> int:
        return len(self._documents)

    @property
    def num_bytes(self) -> int:
        """The size of all keys and values."""
        total = 0
        for layers in self._documents.values():
            total += sum(keys.nbytes + values.nbytes for keys, values in layers)
        return total

    def read(self, documents: Iterable[Ids], compressor: CausalCompressor, embed: Embed, batch_size: int) -> None:
        """Read the documents that are not here yet, ``batch_size`` at a time.

        Raises:
            ValueError: if other weights read what is here.
        """
        if weights_version(compressor) != self._version:
            raise ValueError("the stored documents were read by another compressor, or before it was trained further: "
                             "read them again with read_documents")
        missing = [ids for ids in dict.fromkeys(documents) if ids not in self._documents]
        for start in range(0, len(missing), batch_size):
            batch = missing[start:start + batch_size]
            texts = TextLists(batch, [], [], [()] * len(batch)).packed().to(compressor.memory_rows.device)
            self._add(batch, compressor.read_prefixes(texts, embed))

    def gather(self, documents: Sequence[Ids]) -> list[KeysValues]:
        """Return the keys and values (R, G, T, W) of ``documents``, layer by layer, padded on the right."""
        found = [self._documents[ids] for ids in documents]
        return [(_padded([keys for keys, _ in layer]), _padded([values for _, values in layer]))
                for layer in zip(*found, strict=True)]

    def _add(self, documents: Sequence[Ids], read: Sequence[KeysValues]) -> None:
        for row, ids in enumerate(documents):
            # A view would hold the memory of its whole batch.
            self._documents[ids] = [(keys[row, :, :len(ids)].clone(), values[row, :, :len(ids)].clone())
                                    for keys, values in read]


def _padded(texts: Sequence[Tensor]) -> Tensor:
    """Texts (G, T, W) of different lengths as one tensor (R, G, longest T, W)."""
    heads, _, width = texts[0].shape
    padded = texts[0].new_zeros(len(texts), heads, max(text.shape[1] for text in texts), width)
    for row, text in zip(padded, texts, strict=True):
        row[:, :text.shape[1]] = text
    return padded
