"""The passages of a corpus, by number: Arrow files, memory-mapped, so that opening millions takes no time or memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute

from scaledown.data.pipeline.corpus.cutting import SCHEMA, damaged, part_path

DOCUMENTS_AT_ONCE = 4_096


class PassageStore:
    """The passages in ``folder``, numbered from 0 in the order of their parts.

    Args:
        folder: where they were cut into.
        num_parts: how many parts that makes; None takes those that are there.

    Raises:
        ValueError: if a file is damaged or missing: the passages behind it would have other numbers.
    """

    def __init__(self, folder: Path, num_parts: int | None = None) -> None:
        tables = [SCHEMA.empty_table()]
        num_parts = len(list(folder.glob("part-*.arrow"))) if num_parts is None else num_parts
        for number in range(num_parts):
            path = part_path(folder, number)
            try:
                table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            except (OSError, pa.ArrowInvalid) as fault:
                raise damaged(path, fault) from None
            if table.schema != SCHEMA:
                raise damaged(path, "other columns")
            tables.append(table)
        self._table = pa.concat_tables(tables)
        self._documents, self._ids, self._titles, self._num_tokens = (
            self._table.column(name) for name in ("document", "id", "title", "num_tokens"))

    def __len__(self) -> int:
        return self._table.num_rows

    def document(self, number: int) -> str:
        """The text that a model reads: title and passage."""
        return self._documents[number].as_py()

    def id(self, number: int) -> str:
        """The passage's id: its page's, with a number behind it where the page has several."""
        return self._ids[number].as_py()

    def title(self, number: int) -> str:
        """The title of the passage's page."""
        return self._titles[number].as_py()

    def num_tokens(self, number: int) -> int:
        """How long the document is."""
        return self._num_tokens[number].as_py()

    def documents(self, start: int = 0, end: int | None = None) -> Iterator[str]:
        """The documents from number ``start`` up to ``end``, read ahead a few thousand at a time."""
        end = len(self) if end is None else min(end, len(self))
        for first in range(start, end, DOCUMENTS_AT_ONCE):
            yield from self._documents.slice(first, min(DOCUMENTS_AT_ONCE, end - first)).to_pylist()

    def total_tokens(self) -> int:
        """The tokens of all documents."""
        return pyarrow.compute.sum(self._num_tokens).as_py() or 0

    def numbers_of(self, ids: Iterable[str]) -> dict[str, int]:
        """The numbers of the passages with these ids, as far as there are any; the first where one is taken twice."""
        wanted, found = pa.array(sorted(set(ids)), pa.string()), {}
        first = 0
        for chunk in self._ids.chunks:
            places = pyarrow.compute.indices_nonzero(pyarrow.compute.is_in(chunk, value_set=wanted)).to_pylist()
            for place in places:
                found.setdefault(chunk[place].as_py(), first + place)
            first += len(chunk)
        return found


def cut_to_tokens(texts: Sequence[str], tokenizer: object, max_tokens: int) -> list[str]:
    """The texts as a student with a budget of ``max_tokens`` reads them: what is longer ends after a whole token."""
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True,
                        verbose=False)
    return [text if len(offsets) <= max_tokens else text[:offsets[max_tokens - 1][1]].rstrip()
            for text, offsets in zip(texts, encoded["offset_mapping"], strict=True)]
