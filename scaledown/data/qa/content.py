"""The content of a QA dataset's files, whatever their format: one object, or rows with their places."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from scaledown.data.storage.lines import Faults
from scaledown.data.storage.values import kind
from scaledown.files import parse_json

ID_NAMES = ("id", "_id", "question_id", "example_id")

Rows = Iterable[tuple[str, Any]]
"""Rows, each with its place in the file or the stream."""


def json_content(path: Path) -> dict[str, Any] | list[Any] | None:
    """Return the object or the list in a JSON file, or None if it holds several values, one a line.

    Raises:
        ValueError: if the file cannot be read, or holds something else.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as fault:
        # More text after a whole value: JSONL under the name of JSON, to be read line by line.
        if fault.msg == "Extra data":
            return None
        raise ValueError(f"{path}: not valid JSON (line {fault.lineno}: {fault.msg})") from None
    except UnicodeDecodeError as fault:
        raise ValueError(f"{path}: not UTF-8 ({fault})") from None
    except OSError as fault:
        raise ValueError(f"{path}: cannot be read ({fault.strerror})") from None

    if not isinstance(content, dict | list):
        raise ValueError(f"{path}: expected an object or a list of objects, got {kind(content)}")
    return content


def json_rows(path: Path, faults: Faults) -> Iterator[tuple[str, Any]]:
    """Yield the values of a JSONL file, gzipped or not, with their lines; lines that hold none go to ``faults``.

    Raises:
        ValueError: if the file cannot be read to its end.
    """
    opener = gzip.open if path.name.endswith(".gz") else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    value = parse_json(line)
                except json.JSONDecodeError as fault:
                    faults.add(f"line {number}", f"not valid JSON (column {fault.colno}: {fault.msg})")
                else:
                    yield f"line {number}", value
    # A gzip that was cut off raises an EOFError, a damaged one zlib's error.
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as fault:
        raise ValueError(f"{path}: cannot be read after line {number} ({fault})") from None


def numbered(rows: Iterable[Any]) -> Rows:
    """Yield rows with their places: their numbers in the order in which they come, and their ids."""
    for number, row in enumerate(rows, start=1):
        id_ = next((f", {name} {row[name]}" for name in ID_NAMES if name in row), "")
        yield f"row {number}{id_}", row


def stream_rows(place: str, seed: int, **options: Any) -> Iterator[Any]:
    """Yield the rows that ``datasets`` loads with these options, its files in an order drawn by ``seed``.

    Raises:
        ValueError: if they cannot be read; the message begins with ``place``.
    """
    import datasets
    from huggingface_hub import errors

    try:
        stream = datasets.load_dataset(streaming=True, **options)
        # Shard by shard: IterableDataset.shuffle reads many at a time, far more of the network than is needed here.
        for index in random.Random(seed).sample(range(stream.num_shards), stream.num_shards):
            yield from stream.shard(stream.num_shards, index)
    except (OSError, ValueError, errors.HTTPError) as fault:
        raise ValueError(f"{place}: cannot be read ({fault})") from fault
