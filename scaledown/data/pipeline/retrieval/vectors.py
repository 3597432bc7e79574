"""The vectors of all passages, in files of ``PASSAGES_A_FILE``: processes share them, and kills leave finished ones."""

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
    """A store of passages' vectors."""

    def has(self, start: int) -> bool:
        """Return whether the vectors of the passages from number ``start`` on are stored already."""

    def keep(self, start: int, vectors: Any) -> None:
        """Store the vectors of the passages from number ``start`` on."""


class VectorFiles:
    """Vectors in files: dense ones as fp16 arrays, sparse ones as compressed rows."""

    def __init__(self, folder: Path, is_sparse: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._suffix = folder, ".npz" if is_sparse else ".npy"

    def has(self, start: int) -> bool:
        """See :class:`VectorKeeper`."""
        return self._path(start).exists()

    def keep(self, start: int, vectors: Any) -> None:
        """See :class:`VectorKeeper`."""
        with whole_file(self._path(start), WHAT_TO_DO) as draft, draft.open("wb") as file:
            if self._suffix == ".npy":
                np.save(file, vectors.astype(np.float16), allow_pickle=False)
            else:
                np.savez(file, data=vectors.data, indices=vectors.indices, indptr=vectors.indptr)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield each file's first passage and its vectors: an array (passages, width), or data, indices and indptr."""
        # Numbers of ten digits: the order of the names is that of the passages.
        for path in sorted(self._folder.glob(f"vectors-*{self._suffix}")):
            start = int(path.stem.rpartition("-")[2])
            mmap_mode = "r" if self._suffix == ".npy" else None  # an .npz cannot be mapped
            yield start, np.load(path, allow_pickle=False, mmap_mode=mmap_mode)

    def _path(self, start: int) -> Path:
        return self._folder / f"vectors-{start:010d}{self._suffix}"


def encode_passages(store: PassageStore, encoder: Encoder, keeper: VectorKeeper, processes: Processes) -> None:
    """Encode this process's share of the passages, except those whose vectors are stored already."""
    # All passages are shared, not just the missing ones: which are missing changes while others work.
    starts = processes.share(range(0, len(store), PASSAGES_A_FILE))
    total = sum(min(PASSAGES_A_FILE, len(store) - start) for start in starts)  # the last file may be shorter
    with tqdm(total=total, desc="encoding", unit=" passages", unit_scale=True,
              disable=not processes.is_main) as progress:
        for start in starts:
            texts = list(store.documents(start, start + PASSAGES_A_FILE))
            if not keeper.has(start):
                keeper.keep(start, encoder.documents(texts))
            progress.update(len(texts))
