"""Documents that a compressor has read already, for any question to come (``--input_order document_first``).

A causal compressor that reads the document before the query leaves keys and values behind that no query changes. Kept,
they cost memory instead of time: at question time only the query and the memory tokens are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from scaledown.models.causal import CausalCompressor
from scaledown.models.compressor import CompressorInput, Embed
from scaledown.models.decoder_layer import KeysValues

Ids = tuple[int, ...]


class DocumentStore:
    """Keys and values of documents, by their token ids, where ``compressor`` is."""

    def __init__(self, compressor: CausalCompressor) -> None:
        self._version = _weights_version(compressor)
        self._kept: dict[Ids, list[KeysValues]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_bytes(self) -> int:
        """What the keys and values take."""
        return sum(tensor.nbytes for layers in self._kept.values() for pair in layers for tensor in pair)

    def read(self, documents: Iterable[Ids], compressor: CausalCompressor, embed: Embed, batch_size: int) -> None:
        """Read the documents that are not here yet, ``batch_size`` at a time.

        Raises:
            ValueError: where other weights read what is here.
        """
        if _weights_version(compressor) != self._version:
            raise ValueError("the stored documents were read by another compressor, or before it was trained further: "
                             "read them again with read_documents")
        missing = [ids for ids in dict.fromkeys(documents) if ids not in self._kept]
        for start in range(0, len(missing), batch_size):
            batch = missing[start:start + batch_size]
            texts = CompressorInput.of_ids(batch, [], []).to(compressor.memory_rows.device)
            self._keep(batch, compressor.read_first(texts, embed))

    def gather(self, documents: Sequence[Ids], size: int) -> list[KeysValues]:
        """Keys and values (R, key heads, size, head width) of ``documents``, layer by layer, padded on the right."""
        kept = [self._kept[ids] for ids in documents]
        return [(_padded([keys for keys, _ in layer], size), _padded([values for _, values in layer], size))
                for layer in zip(*kept, strict=True)]

    def _keep(self, documents: Sequence[Ids], read: Sequence[KeysValues]) -> None:
        for row, ids in enumerate(documents):
            self._kept[ids] = [(keys[row, :, :len(ids)].clone(), values[row, :, :len(ids)].clone())
                               for keys, values in read]


def _padded(texts: Sequence[Tensor], size: int) -> Tensor:
    """Texts (H, T, W) of different lengths as one tensor (R, H, size, W)."""
    heads, _, width = texts[0].shape
    room = texts[0].new_zeros(len(texts), heads, size, width)
    for row, text in zip(room, texts, strict=True):
        row[:, :text.shape[1]] = text
    return room


def _weights_version(module: nn.Module) -> int:
    """A number that changes whenever one of the module's weights does."""
    return hash(tuple((id(weight), weight._version) for weight in module.parameters()))
