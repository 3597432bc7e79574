"""The sources of a corpus: files, folders and Hub datasets, in parts.

Each part can be read alone, so that several processes share them, and a killed run reads only the unfinished ones
again. A file of any size is read as a stream, page by page, in stretches of ``PART_BYTES``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaledown import hub
from scaledown.data.pipeline.corpus.cutting import Page, page_of
from scaledown.data.storage import fingerprints
from scaledown.data.storage.lines import SHOWN_FAULTS
from scaledown.files import parse_json

PART_BYTES = 64 * 2**20
PART_FILES = 1_000
PART_ROWS = 20_000
LINE_SUFFIXES = (".jsonl", ".json")
EXPECTED_CORPUS = ("expected kilt_knowledgesource.json or another JSON file with one page a line, a BEIR folder with "
                   "corpus.jsonl in it, a folder of .jsonl, .parquet or .txt files, or a dataset on the Hub")
CORPUS_ADVICE = "What works without it: --corpus_path FILE_OR_FOLDER on disk, or --num_synthetic_queries N."


@dataclass
class PartNotes:
    """Notes taken while a part is read: its progress, the lines that were no page (number and reason), blank pages."""

    num_lines: int = 0
    size: int = 0
    num_faults: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)
    num_blank: int = 0

    def read(self, size: int = 1) -> None:
        """Count a line (or file, or row), of a size in the corpus's unit."""
        self.num_lines += 1
        self.size += size

    def fault(self, reason: str) -> None:
        """Count the line read last as no page; only the reasons of the first faults are kept."""
        self.num_faults += 1
        if len(self.faults) < SHOWN_FAULTS:
            self.faults.append((self.num_lines, reason))

    def page(self, page: Page) -> Page:
        """Return ``page``, and count it if it has no text, and so no passage."""
        self.num_blank += not page.text.strip()
        return page


@dataclass(frozen=True)
class Part:
    """A part of a corpus: the file or dataset it belongs to (``place``), its size, and a function that reads it."""

    place: str
    size: int
    pages: Callable[[PartNotes], Iterator[Page]]


@dataclass(frozen=True)
class Corpus:
    """A corpus in parts. Sizes are in ``unit``; ``fingerprint`` identifies the corpus, however it is cut."""

    description: str
    unit: str
    parts: Sequence[Part]
    fingerprint: str

    @property
    def size(self) -> int:
        """Size of all parts together."""
        return sum(part.size for part in self.parts)


def open_corpus(path: str, max_pages: int | None, config: str | None = None, split: str = "train",
                flag: str = "--corpus_path") -> Corpus:
    """Open a corpus by its path or, if there is no such path, its name on the Hub.

    Args:
        path: a file, a folder, or OWNER/NAME on the Hub.
        max_pages: only this many of its pages (lines, files, rows), the first ones.
        config: the Hub dataset's config.
        split: the Hub dataset's split.
        flag: by which the path was given, for messages.

    Raises:
        ValueError: if there is nothing by that name, or nothing in it that is a corpus.
    """
    place = Path(path).expanduser()
    if not place.exists():
        return _of_hub(path, max_pages, config, split, flag)

    # The first file's suffix tells the kind of them all.
    files = [place] if place.is_file() else _files(place)
    if files and files[0].suffix == ".txt":
        return _of_texts(place, files[:max_pages])
    if files and files[0].suffix == ".parquet":
        rows = _rows(f"{flag} {place}", path="parquet", data_files=[str(file) for file in files], split="train")
        return _of_rows(str(place), rows, max_pages, fingerprints.of_files(files))
    if not files or files[0].suffix not in LINE_SUFFIXES:
        raise ValueError(f"{flag} {path}: holds no corpus; {EXPECTED_CORPUS}")
    return Corpus(path, "bytes", _line_parts(files, max_pages), fingerprints.of_files(files))


def require_corpus(path: str, flag: str = "--corpus_path") -> None:
    """Find out within seconds whether there is a corpus by that path or name.

    Args:
        path: a path, or OWNER/NAME on the Hub.
        flag: by which it was given, for messages.

    Raises:
        ValueError: if there is none.
    """
    if Path(path).expanduser().exists():
        return

    # A dataset's name has exactly one slash; anything else is a misspelt path, and not asked for on the Hub.
    if path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise ValueError(f"{flag} {path}: no such file or folder; {EXPECTED_CORPUS}")
    hub.locate(path, kind="dataset", what_works=CORPUS_ADVICE)


def of_pages(description: str, pages: Sequence[Page], fingerprint: str) -> Corpus:
    """Return a corpus of pages in memory."""
    groups = [pages[start:start + PART_ROWS] for start in range(0, len(pages), PART_ROWS)]
    parts = [Part(description, len(group), _counted(group)) for group in groups]
    return Corpus(description, "pages", parts, fingerprint)


def _counted(pages: Sequence[Page]) -> Callable[[PartNotes], Iterator[Page]]:
    """Return a reader of these pages."""
    def read(notes: PartNotes) -> Iterator[Page]:
        for page in pages:
            notes.read()
            yield notes.page(page)

    return read


def _files(folder: Path) -> list[Path]:
    """Return the folder's files of one kind, the first kind of which it has any."""
    # BEIR: a file of queries lies beside the corpus.
    if (folder / "corpus.jsonl").is_file():
        return [folder / "corpus.jsonl"]

    for suffixes in (LINE_SUFFIXES, (".parquet",), (".txt",)):
        files = [file for file in sorted(folder.rglob("*")) if file.suffix in suffixes and file.is_file()]
        if files:
            return files
    return []


def _line_parts(files: Sequence[Path], max_pages: int | None) -> list[Part]:
    """Return the stretches of files of lines, up to the line ``max_pages`` of all together."""
    parts = []
    for file in files:
        size = file.stat().st_size
        if max_pages is not None:
            size, num_lines = _end_of_lines(file, max_pages)
            max_pages -= num_lines

        # Cut at any byte: a line belongs to the part in which it begins.
        parts += [_line_part(file, start, min(start + PART_BYTES, size)) for start in range(0, size, PART_BYTES)]
        if max_pages == 0:
            break
    return parts


def _end_of_lines(file: Path, max_lines: int) -> tuple[int, int]:
    """Return the byte at which the first ``max_lines`` lines of ``file`` end, and the number of lines up to there."""
    with file.open("rb") as lines:
        lengths = [len(line) for line in itertools.islice(lines, max_lines)]
    return sum(lengths), len(lengths)


def _line_part(file: Path, start: int, end: int) -> Part:
    """Return the part with the lines that begin in bytes ``start`` to ``end`` (not included)."""
    def read(notes: PartNotes) -> Iterator[Page]:
        with file.open("rb") as lines:
            # One byte earlier: if that is a line break, a line begins exactly at ``start``, and is not skipped.
            lines.seek(max(0, start - 1))
            if start:
                lines.readline()  # the rest of a line that began in the part before

            while lines.tell() < end and (line := lines.readline()):
                notes.read(len(line))
                page = _page_of_line(line, notes)
                if page is not None:
                    yield notes.page(page)

    return Part(str(file), end - start, read)


def _page_of_line(line: bytes, notes: PartNotes) -> Page | None:
    """Return the page in a line, or None if it is empty or faulty, which is then noted."""
    if not line.strip():
        return None
    try:
        return page_of(parse_json(line))
    except UnicodeDecodeError as fault:
        notes.fault(f"not UTF-8 (byte {fault.start + 1})")
    except json.JSONDecodeError as fault:
        question = "" if line.endswith(b"\n") else "; is the file cut off?"
        notes.fault(f"not valid JSON (column {fault.colno}: {fault.msg}){question}")
    except ValueError as fault:  # JSON, but no page
        notes.fault(str(fault))
    return None


def _of_texts(folder: Path, files: Sequence[Path]) -> Corpus:
    """Return a corpus of text files, a page each: the path is the page's id, the file's name its title."""
    root = folder if folder.is_dir() else folder.parent

    def reader(group: Sequence[Path]) -> Callable[[PartNotes], Iterator[Page]]:
        def read(notes: PartNotes) -> Iterator[Page]:
            for file in group:
                notes.read()
                try:
                    text = file.read_text(encoding="utf-8-sig")
                    name = file.relative_to(root).with_suffix("").as_posix()
                    page = page_of({"id": name, "title": file.stem, "text": text})
                except (OSError, ValueError) as fault:
                    notes.fault(f"{file}: cannot be read ({fault})")
                else:
                    yield notes.page(page)

        return read

    groups = [files[start:start + PART_FILES] for start in range(0, len(files), PART_FILES)]
    parts = [Part(str(folder), len(group), reader(group)) for group in groups]

    # Names are ids here, and so belong to what identifies the corpus.
    names = [file.relative_to(root).as_posix() for file in files]
    fingerprint = fingerprints.of_values([names, fingerprints.of_files(files)])
    return Corpus(str(folder), "files", parts, fingerprint)


def _of_hub(name: str, max_pages: int | None, config: str | None, split: str, flag: str) -> Corpus:
    require_corpus(name, flag)
    rows = _rows(f"{flag} {name}", path=name, name=config, split=split)
    # The downloaded files identify the corpus.
    files = [Path(file["filename"]) for file in rows.cache_files]
    return _of_rows(f"{name} ({split}) on the Hub", rows, max_pages, fingerprints.of_files(files))


def _rows(place: str, **options: Any) -> Any:
    """Return the rows of a dataset, memory-mapped.

    Raises:
        ValueError: if it cannot be read.
    """
    import datasets
    from huggingface_hub import errors

    try:
        return datasets.load_dataset(**options)
    except (OSError, ValueError, errors.HTTPError, datasets.exceptions.DatasetGenerationError) as fault:
        raise ValueError(f"{place}: cannot be read ({fault})") from fault


def _of_rows(description: str, rows: Any, max_pages: int | None, fingerprint: str) -> Corpus:
    """Return a corpus of the rows of a dataset, a page each."""

    def reader(start: int, end: int) -> Callable[[PartNotes], Iterator[Page]]:
        def read(notes: PartNotes) -> Iterator[Page]:
            for number in range(start, end):
                notes.read()
                try:
                    page = page_of(rows[number])
                except ValueError as fault:
                    notes.fault(str(fault))
                else:
                    yield notes.page(page)

        return read

    size = len(rows) if max_pages is None else min(max_pages, len(rows))
    parts = []
    for start in range(0, size, PART_ROWS):
        end = min(start + PART_ROWS, size)  # the last part may be shorter
        parts.append(Part(description, end - start, reader(start, end)))
    return Corpus(description, "rows", parts, fingerprint)
