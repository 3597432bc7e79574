"""The passages of a corpus, by number, in memory-mapped Arrow files: opening millions takes no time and no memory."""

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
        folder: the folder of their files, one for each part.
        num_parts: the number of parts; None takes those that are there.

    Raises:
        ValueError: if a file is damaged or missing: the passages after it would have other numbers.
    """

    def __init__(self, folder: Path, num_parts: int | None = None) -> None:
        if num_parts is None:
            num_parts = len(list(folder.glob("part-*.arrow")))

        tables = [SCHEMA.empty_table()]  # so that a corpus without parts has its columns, too
        for number in range(num_parts):
            path = part_path(folder, number)
            try:
                table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            except (OSError, pa.ArrowInvalid) as fault:
                raise damaged(path, fault) from None
            if table.schema != SCHEMA:
                raise damaged(path, "other columns")
            tables.append(table)

        # Concatenation copies nothing: each column stays in chunks, one or more for each part.
        self._table = pa.concat_tables(tables)
        self._documents, self._ids, self._titles, self._num_tokens = (
            self._table.column(name) for name in ("document", "id", "title", "num_tokens"))

    def __len__(self) -> int:
        return self._table.num_rows

    def document(self, number: int) -> str:
        """Return the text that a model reads: title and passage."""
        return self._documents[number].as_py()

    def id(self, number: int) -> str:
        """Return the passage's id: its page's, followed by a number if the page has several passages."""
        return self._ids[number].as_py()

    def title(self, number: int) -> str:
        """Return the title of the passage's page."""
        return self._titles[number].as_py()

    def num_tokens(self, number: int) -> int:
        """Return the length of the document in tokens."""
        return self._num_tokens[number].as_py()

    def documents(self, start: int = 0, end: int | None = None) -> Iterator[str]:
        """Yield the documents from number ``start`` up to ``end``, read ahead a few thousand at a time."""
        end = len(self) if end is None else min(end, len(self))
        for number in range(start, end, DOCUMENTS_AT_ONCE):
            yield from self._documents.slice(number, min(DOCUMENTS_AT_ONCE, end - number)).to_pylist()

    def total_tokens(self) -> int:
        """Return the number of tokens of all documents."""
        return pyarrow.compute.sum(self._num_tokens).as_py() or 0  # the sum over no passages is None

    def numbers_of(self, ids: Iterable[str]) -> dict[str, int]:
        """Return the numbers of the passages with these ids, as far as there are any.

        If several passages have the same id, the number is that of the first.
        """
        wanted = pa.array(sorted(set(ids)), pa.string())
        numbers: dict[str, int] = {}

        # Chunk by chunk, as the file has them; only the ids that are wanted ever become Python objects.
        start = 0  # the number of the chunk's first passage
        for chunk in self._ids.chunks:
            is_wanted = pyarrow.compute.is_in(chunk, value_set=wanted)
            for place in pyarrow.compute.indices_nonzero(is_wanted).to_pylist():
                numbers.setdefault(chunk[place].as_py(), start + place)
            start += len(chunk)
        return numbers


def cut_to_tokens(texts: Sequence[str], tokenizer: object, max_tokens: int) -> list[str]:
    """Return the texts as a student with a budget of ``max_tokens`` reads them: longer ones end after a whole token."""
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True,
                        verbose=False)

    short_texts = []
    for text, offsets in zip(texts, encoded["offset_mapping"], strict=True):
        if len(offsets) > max_tokens:
            end = offsets[max_tokens - 1][1]  # of the last token that fits, in characters
            text = text[:end].rstrip()
        short_texts.append(text)
    return short_texts
