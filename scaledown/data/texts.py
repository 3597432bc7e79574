"""Plain texts to pretrain on: paragraphs of a text file, documents of records, parquet, or a Hub dataset."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from scaledown import hub
from scaledown.data.qa.checks import fields, plain_text
from scaledown.data.qa.reading import numbered, rows_without_faults, stream_rows
from scaledown.data.records import read_records
from scaledown.data.storage.lines import Faults
from scaledown.progress import Bar

TEXT_COLUMN = "text"
TABLES = (".csv", ".tsv")
TEXT_SUFFIXES = (".txt", ".json", ".jsonl", ".parquet")


def read_texts(source: str, num_texts: int, seed: int) -> list[str]:
    """Return the first texts of ``source``, at most ``num_texts``; of a Hub dataset no more than that is fetched.

    Args:
        source: a ``.txt`` file (paragraphs between blank lines), ``.json`` or ``.jsonl`` records (each document once),
            a ``.parquet`` file (its column ``text``), a folder of such files, which are read in the order of their
            paths, or a Hub dataset (its column ``text``, split ``train``).
        num_texts: most texts to read.
        seed: draws the order in which a dataset's files are read.

    Raises:
        ValueError: if there is no such source, it cannot be read, or it holds no text.
    """
    # A name that looks like a file is none on the Hub.
    path = Path(source).expanduser()
    if not path.exists() and path.suffix in TEXT_SUFFIXES:
        raise ValueError(f"--pretrain_data {source}: no such file")
    if path.is_file() and path.suffix in TABLES:
        raise ValueError(f"--pretrain_data {source}: a table, whose ids and headings are no texts; expected one of "
                         f"{', '.join(TEXT_SUFFIXES)}")

    # Sources are streams: nothing behind the last text asked for is read.
    if path.is_file():
        source_texts = _of_file(path, seed)
    elif path.is_dir():
        source_texts = _of_folder(path, seed)
    else:
        source_texts = _of_hub(source, seed)
    not_blank = (text for text in source_texts if text.strip())
    progress = Bar(not_blank, desc=f"reading texts of {source}", unit=" texts", leave=False)
    texts = list(itertools.islice(progress, num_texts))
    if not texts:
        raise ValueError(f"--pretrain_data {source}: no text in it")
    return texts


def _of_file(path: Path, seed: int) -> Iterable[str]:
    if path.suffix in (".json", ".jsonl"):
        # Records share documents; a dict keeps the first of each, in order.
        documents: dict[str, None] = {}
        for record in read_records(path):
            documents.update(dict.fromkeys(record.documents))
        return documents
    if path.suffix == ".parquet":
        return _column(str(path), seed, True, path="parquet", data_files=str(path))

    # Paragraphs of a text file stand between blank lines.
    try:
        return re.split(r"\n\s*\n", path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as fault:
        raise ValueError(f"--pretrain_data {path}: not UTF-8 text (byte {fault.start}); expected one of "
                         f"{', '.join(TEXT_SUFFIXES)}") from None


def _of_folder(folder: Path, seed: int) -> Iterator[str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in TEXT_SUFFIXES]
    if not files:
        raise ValueError(f"--pretrain_data {folder}: no file of {', '.join(TEXT_SUFFIXES)} in this folder")
    for path in files:
        yield from _of_file(path, seed)


def _of_hub(name: str, seed: int) -> Iterator[str]:
    return _column(name, seed, False, path=hub.locate(name, kind="dataset"))


def _column(source: str, seed: int, is_file: bool, **options: Any) -> Iterator[str]:
    """Yield the texts of a dataset that ``datasets`` loads with ``options``."""
    place = f"--pretrain_data {source}"
    rows = _with_column(place, stream_rows(place, seed, split="train", **options))

    # A file on disk is searched to its end for faults, to name all of them; a stream stops at the first.
    is_text = fields({TEXT_COLUMN: plain_text})
    for row in rows_without_faults(numbered(rows), is_text, Faults(place, "rows"), to_the_end=is_file):
        yield row[TEXT_COLUMN]


def _with_column(place: str, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows, and refuse a table without the column before it is read as one of faulty rows."""
    for row in rows:
        if TEXT_COLUMN not in row:
            raise ValueError(f"{place}: expected a column {TEXT_COLUMN!r} of texts, found {', '.join(row)}")
        yield row
