"""The passages of a corpus on disk, in a memory-mapped Arrow file for each part, which is there whole or not at all.

The files are the same for any number of processes that share the parts, and after any number of kills. Memory does not
grow with the corpus: writing holds a few hundred pages at a time, and opening millions of passages takes no time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from scaledown.data.pipeline.corpus.corpus_files import Corpus, Part, PartNotes
from scaledown.data.pipeline.corpus.cutting import Cutter, cut_pages
from scaledown.data.storage.lines import SHOWN_FAULTS
from scaledown.files import WHAT_TO_DO, whole_file
from scaledown.processes import Processes
from scaledown.progress import Bar

DOCUMENTS_AT_ONCE = 4_096
SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("document", pa.string()),
                    ("num_tokens", pa.int32())])


def write_passages(corpus: Corpus, cutter: Cutter, folder: Path, processes: Processes) -> None:
    """Cut this process's share of the parts of ``corpus``, except those that are in ``folder`` already.

    Raises:
        ValueError: if the passages cannot be written to disk.
    """
    # All parts are shared, not just the missing ones: which are missing changes while others work.
    share = processes.share(range(len(corpus.parts)))
    total = sum(corpus.parts[number].size for number in share)
    with Bar(total=total, unit=" " + corpus.unit, unit_scale=True, desc="cutting into passages",
             disable=not processes.is_main) as progress:
        for number in share:
            if not _part_path(folder, number).exists():
                _write_part(corpus.parts[number], cutter, _part_path(folder, number))
            progress.update(corpus.parts[number].size)


def _write_part(part: Part, cutter: Cutter, path: Path) -> None:
    """Write a part's passages, and its notes beside them."""
    notes = PartNotes()
    with whole_file(path, WHAT_TO_DO) as draft:
        # Reading the pages fills in the notes, so these are complete once the passages are written.
        with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for rows in cut_pages(part.pages(notes), cutter):
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))

        # Still inside the outer file: the passages appear last, and their presence says that the part is done.
        with whole_file(path.with_suffix(".json"), WHAT_TO_DO) as notes_draft:
            notes_draft.write_text(json.dumps(dataclasses.asdict(notes)), encoding="utf-8")


def report_of(folder: Path, corpus: Corpus) -> dict[str, Any]:
    """Return what reading all parts found: lines, blank pages, and faulty lines, of which the first are described.

    Raises:
        ValueError: if the notes of a part are damaged.
    """
    report: dict[str, Any] = {"parts": len(corpus.parts), "lines": 0, "blank": 0, "faults": 0, "first_faults": []}
    num_lines: dict[str, int] = {}  # of each file, up to the part at hand
    for number, part in enumerate(corpus.parts):
        notes = _notes(_part_path(folder, number).with_suffix(".json"))

        # Notes count lines from the start of their part; messages count from the start of the file.
        before = num_lines.get(part.place, 0)
        report["first_faults"] += [f"{part.place}: line {before + line}: {reason}" for line, reason in notes.faults]
        num_lines[part.place] = before + notes.num_lines

        report["lines"] += notes.num_lines
        report["faults"] += notes.num_faults
        report["blank"] += notes.num_blank

    del report["first_faults"][SHOWN_FAULTS:]
    return report


def _notes(path: Path) -> PartNotes:
    """Load the notes of a part.

    Raises:
        ValueError: if they are missing or damaged.
    """
    try:
        return PartNotes(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as fault:
        raise _damaged(path, fault) from None


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
            path = _part_path(folder, number)
            try:
                table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            except (OSError, pa.ArrowInvalid) as fault:
                raise _damaged(path, fault) from None
            if table.schema != SCHEMA:
                raise _damaged(path, "other columns")
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


def _part_path(folder: Path, number: int) -> Path:
    """Return the file of a part's passages."""
    return folder / f"part-{number:05d}.arrow"


def _damaged(path: Path, fault: object) -> ValueError:
    """Return the error for a damaged file of passages. All must be cut again: the other files go by its numbers."""
    return ValueError(f"{path}: damaged ({fault}); delete the folder {path.parent}, and run the same command again")
