"""A corpus cut into passages, part by part: each part becomes one Arrow file, which is there whole or not at all.

The files are the same for any number of processes that share the parts, and after any number of kills. Memory does not
grow with the corpus: a few hundred pages are held at a time.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm.auto import tqdm

from scaledown.data.passages import Paragraph, PassageSplitter, TokenCounter
from scaledown.data.pipeline.corpus.corpus_files import Corpus, Part, PartNotes
from scaledown.data.pipeline.corpus.pages import Page
from scaledown.data.storage.lines import SHOWN_FAULTS
from scaledown.files import WHAT_TO_DO, whole_file
from scaledown.processes import Processes

Row = dict[str, Any]
Cutter = Callable[[Sequence[Page]], list[Row]]

PAGES_AT_ONCE = 256
SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("document", pa.string()),
                    ("num_tokens", pa.int32())])


def token_cutter(count_tokens: TokenCounter, passage_tokens: int) -> Cutter:
    """Return a cutter at the ends of sentences, into passages of at most ``passage_tokens``, the title included."""
    splitter = PassageSplitter(count_tokens, passage_tokens)

    def cut(pages: Sequence[Page]) -> list[Row]:
        paragraphs = [Paragraph(page.id, " ".join(page.title.split()), page.text) for page in pages]
        passages = splitter.split_batch(paragraphs, [()] * len(paragraphs))  # no spans that have to stay whole

        rows: list[Row] = []
        for page, page_passages in zip(pages, passages, strict=True):
            rows += _rows(page, [(passage.document, passage.num_tokens) for passage in page_passages])
        return rows

    return cut


def word_cutter(count_tokens: TokenCounter, passage_words: int) -> Cutter:
    """Return a cutter into passages of ``passage_words`` words, with the title in front of them, as BERGEN does."""

    def cut(pages: Sequence[Page]) -> list[Row]:
        documents: list[str] = []  # of all pages, so that one call counts the tokens of the whole batch
        ends = []  # ends[i] is the number of documents up to page i
        for page in pages:
            words = page.text.split()
            for start in range(0, len(words), passage_words):
                documents.append(" ".join([*_title(page), *words[start:start + passage_words]]))
            ends.append(len(documents))
        num_tokens = count_tokens(documents) if documents else []

        rows: list[Row] = []
        start = 0
        for page, end in zip(pages, ends, strict=True):
            rows += _rows(page, list(zip(documents[start:end], num_tokens[start:end], strict=True)))
            start = end
        return rows

    return cut


def cut_corpus(corpus: Corpus, cutter: Cutter, folder: Path, processes: Processes) -> None:
    """Cut this process's share of the parts of ``corpus``, except those that are in ``folder`` already.

    Raises:
        ValueError: if the passages cannot be written to disk.
    """
    # All parts are shared, not just the missing ones: which are missing changes while others work.
    share = processes.share(range(len(corpus.parts)))
    total = sum(corpus.parts[number].size for number in share)
    with tqdm(total=total, unit=" " + corpus.unit, unit_scale=True, desc="cutting into passages",
              disable=not processes.is_main) as progress:
        for number in share:
            if not part_path(folder, number).exists():
                _write_part(corpus.parts[number], cutter, part_path(folder, number))
            progress.update(corpus.parts[number].size)


def part_path(folder: Path, number: int) -> Path:
    """Return the file of a part's passages."""
    return folder / f"part-{number:05d}.arrow"


def cut_pages(pages: Iterable[Page], cutter: Cutter) -> Iterator[list[Row]]:
    """Yield the passages of pages, a batch of pages at a time."""
    pages = iter(pages)
    while batch := list(itertools.islice(pages, PAGES_AT_ONCE)):
        yield cutter(batch)


def report_of(folder: Path, corpus: Corpus) -> dict[str, Any]:
    """Return what reading all parts found: lines, blank pages, and faulty lines, of which the first are described.

    Raises:
        ValueError: if the notes of a part are damaged.
    """
    report: dict[str, Any] = {"parts": len(corpus.parts), "lines": 0, "blank": 0, "faults": 0, "first_faults": []}
    num_lines: dict[str, int] = {}  # of each file, up to the part at hand
    for number, part in enumerate(corpus.parts):
        notes = _notes(part_path(folder, number).with_suffix(".json"))

        # Notes count lines from the start of their part; messages count from the start of the file.
        before = num_lines.get(part.place, 0)
        report["first_faults"] += [f"{part.place}: line {before + line}: {reason}" for line, reason in notes.faults]
        num_lines[part.place] = before + notes.num_lines

        report["lines"] += notes.num_lines
        report["faults"] += notes.num_faults
        report["blank"] += notes.num_blank

    del report["first_faults"][SHOWN_FAULTS:]
    return report


def damaged(path: Path, fault: object) -> ValueError:
    """Return the error for a damaged file of passages. All must be cut again: the other files go by its numbers."""
    return ValueError(f"{path}: damaged ({fault}); delete the folder {path.parent}, and run the same command again")


def _notes(path: Path) -> PartNotes:
    """Load the notes of a part.

    Raises:
        ValueError: if they are missing or damaged.
    """
    try:
        return PartNotes(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as fault:
        raise damaged(path, fault) from None


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


def _rows(page: Page, documents: Sequence[tuple[str, int]]) -> list[Row]:
    """Return the passages of one page, from their documents and numbers of tokens.

    The only passage of a page has the page's id; if there are several, their numbers follow it.
    """
    rows = []
    for number, (document, num_tokens) in enumerate(documents):
        passage_id = page.id if len(documents) == 1 else f"{page.id}-{number}"
        rows.append({"id": passage_id, "title": page.title, "document": document, "num_tokens": num_tokens})
    return rows


def _title(page: Page) -> list[str]:
    """Return the title with a full stop, as the only entry, or an empty list if there is none."""
    title = " ".join(page.title.split())
    return [f"{title}."] if title else []
