"""The vectors of all passages, in files of ``PASSAGES_A_FILE``, shared among processes and kept after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from scaledown.data.pipeline.corpus.passage_store import PassageStore
from scaledown.data.pipeline.retrieval.encoders import Encoder
from scaledown.files import WHAT_TO_DO, whole_file
from scaledown.processes import Processes

PASSAGES_A_FILE = 8_192


class VectorKeeper(Protocol):
    """Keeps the vectors of passages somewhere."""

    def has(self, first: int) -> bool:
        """Whether the vectors of the passages from number ``first`` on are kept already."""

    def keep(self, first: int, vectors: Any) -> None:
        """Keep the vectors of the passages from number ``first`` on."""


class VectorFiles:
    """Vectors in files: dense ones in half precision, sparse ones as compressed rows."""

    def __init__(self, folder: Path, is_sparse: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._suffix = folder, ".npz" if is_sparse else ".npy"

    def has(self, first: int) -> bool:
        """See :class:`VectorKeeper`."""
        return self._path(first).exists()

    def keep(self, first: int, vectors: Any) -> None:
        """See :class:`VectorKeeper`."""
        with whole_file(self._path(first), WHAT_TO_DO) as draft, draft.open("wb") as file:
            if self._suffix == ".npy":
                np.save(file, vectors.astype(np.float16), allow_pickle=False)
            else:
                np.savez(file, data=vectors.data, indices=vectors.indices, indptr=vectors.indptr)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Each file's first passage and its vectors: an array (passages, width), or data, indices and indptr."""
        for path in sorted(self._folder.glob(f"vectors-*{self._suffix}")):
            mode = {"mmap_mode": "r"} if self._suffix == ".npy" else {}
            yield int(path.stem.rpartition("-")[2]), np.load(path, allow_pickle=False, **mode)

    def _path(self, first: int) -> Path:
        return self._folder / f"vectors-{first:010d}{self._suffix}"


def encode_passages(store: PassageStore, encoder: Encoder, keeper: VectorKeeper, processes: Processes) -> None:
    """Encode those passages whose vectors are this process's to make and not kept yet."""
    # Shared by their numbers, not by what is missing: that changes while others work.
    share = processes.share(range(0, len(store), PASSAGES_A_FILE))
    with tqdm(total=sum(min(PASSAGES_A_FILE, len(store) - first) for first in share), desc="encoding",
              unit=" passages", unit_scale=True, disable=not processes.is_main) as progress:
        for first in share:
            texts = list(store.documents(first, first + PASSAGES_A_FILE))
            if not keeper.has(first):
                keeper.keep(first, encoder.documents(texts))
            progress.update(len(texts))
