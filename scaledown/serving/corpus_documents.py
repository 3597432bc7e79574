"""The documents of a file, as a service gets them: those of records, or the texts of a corpus with their titles.

What is longer than the compressor reads at once is split later, as it is for a service that gets the same title and
text. Only an article of KILT, which comes in paragraphs, is cut here, into the passages of the data pipeline.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scaledown.data.pipeline.corpus.corpus_files import Corpus, PartNotes, open_corpus
from scaledown.data.pipeline.corpus.cutting import token_cutter
from scaledown.data.records import Record, read_records
from scaledown.data.storage.lines import SHOWN_FAULTS
from scaledown.files import parse_json
from scaledown.prompt.passages import TokenCounter

PAGES_AT_ONCE = 256
CHECKED_BYTES = 2**16
"""As much of a file tells whether it holds records."""

Document = str | dict[str, str]
"""A text, or a dict with ``title`` and ``text``."""
Batch = tuple[list[Document], int]
"""Some documents, and how much of their source they are, in its unit."""


@dataclass
class CorpusDocuments:
    """The documents of a file or folder, which can be read several times.

    Attributes:
        path: of the source.
        size: of the source, in ``unit``.
        unit: "records", "bytes", "files" or "rows".
        batches: yields the documents, some hundreds at a time. A counter of tokens and the longest passage are for
            articles.
        faults: the lines that the last reading could not read, the first of them in words.
        num_faults: the number of all of them.
    """

    path: str
    size: int
    unit: str
    batches: Callable[[TokenCounter, int], Iterator[Batch]]
    faults: list[str] = field(default_factory=list)
    num_faults: int = 0


def open_documents(path: str, flag: str) -> CorpusDocuments:
    """Open the documents of a file of records, or of a corpus; records are read and checked at once.

    Args:
        path: a file or folder.
        flag: by which it was given, for messages.

    Raises:
        ValueError: if there is no such file, nothing in it that holds documents, or a record has a fault.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise ValueError(f"{flag} {path}: no such file or folder; expected records, kilt_knowledgesource.json "
                         "or another JSON file with one page a line, a BEIR folder with corpus.jsonl in it, or a "
                         "folder of .jsonl, .parquet or .txt files")
    # Both kinds are JSON: what is in a file tells them apart.
    if place.is_file() and _holds_records(place):
        return _of_records(path, read_records(place))
    return _of_corpus(path, open_corpus(path, None, flag=flag))


def _holds_records(path: Path) -> bool:
    """Return whether a file begins as one of records: with a list, or with an object that has documents."""
    with path.open("rb") as file:
        start = file.read(CHECKED_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"["):
        return True

    line = start.split(b"\n", 1)[0]
    try:
        first = parse_json(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        # A long line is not whole here, but its first fields are.
        return line.startswith(b"{") and b'"documents"' in line and b'"query"' in line
    return isinstance(first, dict) and "documents" in first


def _of_records(path: str, records: Sequence[Record]) -> CorpusDocuments:
    def batches(count_tokens: TokenCounter, document_tokens: int) -> Iterator[Batch]:
        for start in range(0, len(records), PAGES_AT_ONCE):
            some = records[start:start + PAGES_AT_ONCE]
            yield list(itertools.chain.from_iterable(record.documents for record in some)), len(some)

    return CorpusDocuments(path, len(records), "records", batches)


def _of_corpus(path: str, corpus: Corpus) -> CorpusDocuments:
    def batches(count_tokens: TokenCounter, document_tokens: int) -> Iterator[Batch]:
        cut = token_cutter(count_tokens, document_tokens)
        documents.faults, documents.num_faults = [], 0
        num_lines: dict[str, int] = {}  # of each file, up to the part at hand
        for part in corpus.parts:
            notes, size = PartNotes(), 0
            pages = part.pages(notes)
            while some := list(itertools.islice(pages, PAGES_AT_ONCE)):
                found: list[Document] = [{"title": page.title, "text": page.text} for page in some
                                         if not page.is_article and page.text.strip()]
                articles = [page for page in some if page.is_article]
                found += [row["document"] for row in cut(articles)]
                yield found, notes.size - size
                size = notes.size

            # Notes count lines from the start of their part, messages from the start of the file.
            before = num_lines.get(part.place, 0)
            num_lines[part.place] = before + notes.num_lines
            documents.num_faults += notes.num_faults
            documents.faults += [f"{part.place}: line {before + line}: {reason}" for line, reason in notes.faults]
            del documents.faults[SHOWN_FAULTS:]

    documents = CorpusDocuments(path, corpus.size, corpus.unit, batches)
    return documents
