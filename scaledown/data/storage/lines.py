"""Text files read line by line, with all their faults in one error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scaledown.files import parse_json

SHOWN_FAULTS = 20


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
        if self.number:
            raise ValueError(fault_report(self.path, self.what, self.shown, self.number))


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers.

    Raises:
        ValueError: if the file is missing, cannot be read or is not UTF-8.
    """
    number = 0  # of the last line that could be decoded

    try:
        # utf-8-sig: editors on Windows put a byte order mark in front.
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as fault:
        raise ValueError(f"{path}: cannot be read ({fault.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 after line {number}") from None


def json_lines(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSONL file, with their line numbers; other lines are added to ``faults``."""
    for number, line in text_lines(path):
        try:
            value = parse_json(line)
        except json.JSONDecodeError as fault:
            faults.add(f"line {number}", f"not valid JSON (column {fault.colno}: {fault.msg})")
            continue

        # Valid JSON, but perhaps a list or a number.
        if isinstance(value, dict):
            yield number, value
        else:
            faults.add(f"line {number}", "expected an object")


def fault_report(path: Path | str, what: str, lines: list[str], number: int) -> str:
    """Return the message on ``number`` faults in ``path``, of which ``lines`` tells the first ones."""
    noun = "fault" if number == 1 else "faults"
    report = [f"{path}: {number} {noun} in its {what}", *lines]
    if number > len(lines):
        report.append(f"  and {number - len(lines)} more")
    return "\n".join(report)
