"""Documents that a compressor has read before any question is known (``--input_order document_first``).

A causal compressor that reads the document before the query leaves keys and values that no query changes. Stored, they
cost memory instead of time: when a question comes, only the query and the memory tokens are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from scaledown.models.compressors.base import Embed
from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.engine.packing import KeysValues, TextLists
from scaledown.progress import Bar

DocumentKey = tuple[int, ...]


class DocumentStore:
    """Keys and values of documents by their token ids, on the device of the compressor that read them.

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

    def read(self, documents: Iterable[DocumentKey], reader: str, compressor: CausalCompressor, embed: Embed,
             batch_size: int, show_progress_bar: bool = False) -> None:
        """Read the documents that are not here yet, ``batch_size`` at a time.

        Raises:
            ValueError: if the stored documents were read by another model than ``reader``.
        """
        if reader != self._reader:
            raise ValueError("the stored documents were read by another model, before this one was trained further, "
                             "or on another device or in another dtype: read them again with read_documents")

        missing = [ids for ids in dict.fromkeys(documents) if ids not in self._documents]
        for start in Bar(range(0, len(missing), batch_size), desc="reading documents", unit="batch",
                         disable=not show_progress_bar):
            batch = missing[start:start + batch_size]
            # Prefixes that nothing continues, and no final state is wanted.
            texts = TextLists(batch, [], [], [()] * len(batch)).packed().to(compressor.memory_rows.device)
            layers = compressor.read_prefixes(texts, embed)                   # of each layer two (R, G, T, W)

            for row, ids in enumerate(batch):
                # Cloned without padding, as a view would hold the memory of its whole batch.
                self._documents[ids] = [(keys[row, :, :len(ids)].clone(), values[row, :, :len(ids)].clone())
                                        for keys, values in layers]

    def gather(self, documents: Sequence[DocumentKey]) -> list[KeysValues]:
        """Return the keys and values (R, G, T, W) of ``documents``, layer by layer, padded on the right."""
        stored = [self._documents[ids] for ids in documents]

        # From documents with all layers each to layers with all documents each.
        gathered = []
        for layer in zip(*stored, strict=True):
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
