"""Users' text files, read line by line: all faults of a file in one error, and words for the values in messages."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scaledown.files import has_half_surrogate, parse_json

SHOWN_FAULTS = 20
HALF_A_PAIR = "half a surrogate pair, which is no character and cannot be written as UTF-8"
LONGEST_SHOWN = 40
"""In characters; of a longer value a message has the kind alone."""


class Faults:
    """The faults of one file, each with its place, for a single error that names them all.

    Args:
        path: the file, or another name for it in messages.
        what: the things that have faults: "lines", "records".
    """

    def __init__(self, path: Path | str, what: str) -> None:
        self.path, self.what = path, what
        self.number = 0  # of all faults
        self.shown: list[str] = []  # the first of them, a line each

    def add(self, place: str, fault: str) -> None:
        """Count one more fault; the first 20 are kept in words."""
        self.number += 1
        if self.number <= SHOWN_FAULTS:
            self.shown.append(f"  {place}: {fault}")

    def raise_any(self) -> None:
        """Raise the faults as one error, if there are any.

        Raises:
            ValueError: with the file, the number of faults, and the first 20.
        """
        if not self.number:
            return

        noun = "fault" if self.number == 1 else "faults"
        report = [f"{self.path}: {self.number} {noun} in its {self.what}", *self.shown]
        if self.number > len(self.shown):
            report.append(f"  and {self.number - len(self.shown)} more")
        raise ValueError("\n".join(report))


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file, gzipped or not, that are not blank, with their numbers.

    Raises:
        ValueError: if the file is missing, cannot be read to its end or is not UTF-8.
    """
    opener = gzip.open if path.name.endswith(".gz") else open
    number = 0  # of the last line that could be decoded

    try:
        # utf-8-sig: editors on Windows put a byte order mark in front.
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 after line {number}") from None
    except OSError as fault:
        raise ValueError(f"{path}: cannot be read ({fault.strerror or fault})") from None
    # A gzip that was cut off raises an EOFError, a damaged one zlib's error.
    except (EOFError, zlib.error) as fault:
        raise ValueError(f"{path}: cannot be read after line {number} ({fault})") from None


def json_values(lines: Iterable[tuple[int, str]], faults: Faults) -> Iterator[tuple[int, Any]]:
    """Yield the JSON value of each line, with the line's number; lines that hold none are added to ``faults``."""
    for number, line in lines:
        try:
            value = parse_json(line)
        except json.JSONDecodeError as fault:
            faults.add(f"line {number}", f"not valid JSON (column {fault.colno}: {fault.msg})")
        else:
            yield number, value


def json_lines(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSONL file, with their line numbers; other lines are added to ``faults``.

    Raises:
        ValueError: as :func:`text_lines`.
    """
    for number, value in json_values(text_lines(path), faults):
        # Valid JSON, but perhaps a list or a number.
        if isinstance(value, dict):
            yield number, value
        else:
            faults.add(f"line {number}", "expected an object")


def first_value(values: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Return the value under the first of ``names`` that has one other than null, or None."""
    return next((values[name] for name in names if values.get(name) is not None), None)


def is_text(value: Any) -> bool:
    """Return whether ``value`` is text that can be written as UTF-8."""
    return isinstance(value, str) and not has_half_surrogate(value)


def shown(value: Any) -> str:
    """Return ``value`` for a message: itself if it is short, else its kind."""
    if isinstance(value, str) and not is_text(value):
        return f"text with {HALF_A_PAIR}"

    # From parquet a value may be a date or bytes, which JSON cannot show.
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        return f"a {type(value).__name__}"

    return text if len(text) <= LONGEST_SHOWN else kind_of(value)


def kind_of(value: Any) -> str:
    """Return the type of ``value`` in JSON's words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
