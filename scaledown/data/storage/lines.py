"""Text files read line by line, their faults gathered and told together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scaledown.files import parse_json

SHOWN_FAULTS = 20


class Faults:
    """What is wrong in one file, each with its place; a single error tells them all.

    Args:
        path: of the file, or what else it is called by.
        what: what the faults are in: "lines", "records".
    """

    def __init__(self, path: Path | str, what: str) -> None:
        self.path, self.what = path, what
        self.number, self.shown = 0, []

    def add(self, place: str, fault: str) -> None:
        """One more; the first 20 are kept."""
        self.number += 1
        if self.number <= SHOWN_FAULTS:
            self.shown.append(f"  {place}: {fault}")

    def raise_any(self) -> None:
        """Tell them, if there are any.

        Raises:
            ValueError: with the file, how many there are, and the first 20.
        """
        if not self.number:
            return
        more = [f"  and {self.number - SHOWN_FAULTS} more"] * (self.number > SHOWN_FAULTS)
        title = f"{self.path}: {self.number} fault{'s' * (self.number != 1)} in its {self.what}"
        raise ValueError("\n".join([title, *self.shown, *more]))


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers.

    Raises:
        ValueError: where the file is missing, cannot be read or is not UTF-8.
    """
    number = 0
    try:
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
    """The objects of a JSONL file, with their lines; what is no object is added to ``faults``."""
    for number, line in text_lines(path):
        try:
            value = parse_json(line)
        except json.JSONDecodeError as fault:
            faults.add(f"line {number}", f"not valid JSON (column {fault.colno}: {fault.msg})")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            faults.add(f"line {number}", "expected an object")
