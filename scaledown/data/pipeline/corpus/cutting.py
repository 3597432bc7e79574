"""A corpus into passages, part by part: each part becomes one Arrow file, whole or not there.

However many processes share the parts, and however often they are killed, the same files come out of it. Memory does
not grow with the corpus: a few hundred pages are held at a time.
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
    """Cut pages at the ends of sentences, into passages of at most ``passage_tokens``, the title in front counted."""
    splitter = PassageSplitter(count_tokens, passage_tokens)

    def cut(pages: Sequence[Page]) -> list[Row]:
        paragraphs = [Paragraph(page.id, " ".join(page.title.split()), page.text) for page in pages]
        passages = splitter.split_batch(paragraphs, [()] * len(paragraphs))
        return [row for page, each in zip(pages, passages, strict=True)
                for row in _rows(page, [(passage.document, passage.num_tokens) for passage in each])]

    return cut


def word_cutter(count_tokens: TokenCounter, passage_words: int) -> Cutter:
    """Cut pages into passages of ``passage_words`` words, with the title in front of them, as BERGEN does."""

    def cut(pages: Sequence[Page]) -> list[Row]:
        documents = [[" ".join([*_title(page), *words[first:first + passage_words]])
                      for words in [page.text.split()] for first in range(0, len(words), passage_words)]
                     for page in pages]
        counts = iter(count_tokens([document for each in documents for document in each] or [""]))
        return [row for page, each in zip(pages, documents, strict=True)
                for row in _rows(page, [(document, next(counts)) for document in each])]

    return cut


def cut_corpus(corpus: Corpus, cutter: Cutter, folder: Path, processes: Processes) -> None:
    """Cut those parts of ``corpus`` that are this process's and not yet in ``folder``.

    Raises:
        ValueError: where the disk cannot take them.
    """
    # Shared by their numbers, not by what is missing: that changes while others work.
    share = processes.share(range(len(corpus.parts)))
    with tqdm(total=sum(corpus.parts[number].size for number in share), unit=" " + corpus.unit, unit_scale=True,
              desc="cutting into passages", disable=not processes.is_main) as progress:
        for number in share:
            if not part_path(folder, number).exists():
                _write_part(corpus.parts[number], cutter, part_path(folder, number))
            progress.update(corpus.parts[number].size)


def part_path(folder: Path, number: int) -> Path:
    """Where the passages of a part are kept."""
    return folder / f"part-{number:05d}.arrow"


def cut_pages(pages: Iterable[Page], cutter: Cutter) -> Iterator[list[Row]]:
    """The passages of pages, a batch of pages at a time."""
    pages = iter(pages)
    while batch := list(itertools.islice(pages, PAGES_AT_ONCE)):
        yield cutter(batch)


def report_of(folder: Path, corpus: Corpus) -> dict[str, Any]:
    """Return what was read in all parts: lines, those that were no page, the first of them in words, and blank pages.

    Raises:
        ValueError: if what was noted of a part is damaged.
    """
    report: dict[str, Any] = {"parts": len(corpus.parts), "lines": 0, "blank": 0, "faults": 0, "first_faults": []}
    places: dict[str, int] = {}
    for number, part in enumerate(corpus.parts):
        notes = _notes(part_path(folder, number).with_suffix(".json"))
        before = places.get(part.place, 0)
        report["first_faults"] += [f"{part.place}: line {before + line}: {reason}" for line, reason in notes.faults]
        places[part.place] = before + notes.num_lines
        report["lines"] += notes.num_lines
        report["faults"] += notes.num_faults
        report["blank"] += notes.num_blank
    del report["first_faults"][SHOWN_FAULTS:]
    return report


def damaged(path: Path, fault: object) -> ValueError:
    """Return what tells that a file of passages is damaged, and what to do: the others go by its numbers."""
    return ValueError(f"{path}: damaged ({fault}); delete the folder {path.parent}, and run the same command again")


def _notes(path: Path) -> PartNotes:
    try:
        return PartNotes(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as fault:
        raise damaged(path, fault) from None


def _write_part(part: Part, cutter: Cutter, path: Path) -> None:
    """Write a part's passages, and beside them what was noted; the passages come last, and say that all is there."""
    notes = PartNotes()
    with whole_file(path, WHAT_TO_DO) as draft:
        with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for rows in cut_pages(part.pages(notes), cutter):
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
        with whole_file(path.with_suffix(".json"), WHAT_TO_DO) as notes_draft:
            notes_draft.write_text(json.dumps(dataclasses.asdict(notes)), encoding="utf-8")


def _rows(page: Page, documents: Sequence[tuple[str, int]]) -> list[Row]:
    """The passages of one page. A page that is one passage lends it its id; else they are numbered behind it."""
    return [{"id": page.id if len(documents) == 1 else f"{page.id}-{number}", "title": page.title,
             "document": document, "num_tokens": num_tokens} for number, (document, num_tokens) in enumerate(documents)]


def _title(page: Page) -> list[str]:
    title = " ".join(page.title.split())
    return [f"{title}."] if title else []
