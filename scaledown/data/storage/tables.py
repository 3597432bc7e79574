"""Tables as text files: columns apart by tabs or commas, under a heading that names them; lists as Python writes them.

A file without a heading is no table here: whoever reads it says what its columns are.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from scaledown.data.storage.lines import Faults

LONGEST_HEADING = 1_000
"""In characters; what is longer is content."""
_QUOTED = re.compile('"((?:[^"]|"")*)"')


@dataclass(frozen=True)
class Heading:
    """What a heading says: the names of the columns, in lower case, and what stands between them."""

    names: tuple[str, ...]
    separator: str

    def shown(self) -> str:
        """Return the names, for messages."""
        return ", ".join(self.names)


def heading_of(line: str, ids: Collection[str], texts: Collection[str],
               others: Collection[str] = ()) -> Heading | None:
    """Return the heading that a file's first line is, or None if it is a line of content.

    Args:
        line: the first line that is not blank.
        ids: names that a column of ids may have.
        texts: names that the column of texts may have.
        others: names that tell a heading, beside one of ``texts``.
    """
    if len(line) > LONGEST_HEADING:
        return None
    for separator in ("\t", ","):
        names = tuple(cell.strip().lower() for cell in _cells(line, separator))
        has_text = not set(names).isdisjoint(texts)
        # No id reads "id". A comma is common in texts: there the name of the text has to stand, too.
        if (names[0] in ids and separator == "\t" and len(names) > 1) or (
                has_text and (len(names) == 1 or not set(names).isdisjoint({*ids, *others}))):
            return Heading(names, separator)
    return None


def table_rows(lines: Iterable[tuple[int, str]], heading: Heading,
               faults: Faults) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows behind a heading, each with the number of its last line; malformed ones go to ``faults``.

    Args:
        lines: the lines that are not blank, with their numbers, the heading first.
        heading: what the heading says.
        faults: gathers what is wrong.
    """
    number, lines = 0, iter(lines)
    next(lines)

    def texts() -> Iterator[str]:
        nonlocal number
        for place in lines:
            number = place[0]
            yield f"{place[1]}\n"

    # In a file with tabs quotes are mostly part of the text; one with commas quotes what has commas or line breaks.
    rows = (_cells(line, "\t") for line in texts()) if heading.separator == "\t" else csv.reader(texts(), strict=True)
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as fault:
            faults.add(f"line {number}", f"not valid CSV ({fault})")
            continue
        if cells is None:
            return
        if len(cells) == len(heading.names):
            yield number, dict(zip(heading.names, cells, strict=True))
        else:
            faults.add(f"line {number}", f"{len(cells)} columns; expected {len(heading.names)}, as in the heading: "
                                         f"{heading.shown()}")


def python_list(text: str) -> list[str] | None:
    """Return the list of texts that ``text`` is in Python's writing (``['a', 'b']``), or None if it is none."""
    text = unquoted(text.strip())
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return values if all(isinstance(value, str) for value in values) else None


def _cells(line: str, separator: str) -> list[str]:
    line = line.rstrip("\r\n")
    if separator == "\t":
        return [unquoted(cell) for cell in line.split("\t")]
    return next(csv.reader([line]), [""]) or [""]


def unquoted(cell: str) -> str:
    """Return what is in a cell that is quoted as a whole, and any other cell as it is."""
    quoted = _QUOTED.fullmatch(cell)
    return quoted.group(1).replace('""', '"') if quoted else cell
