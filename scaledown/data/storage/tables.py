"""Tables in text files: columns separated by tabs or commas, under a heading that names them; and Python's lists.

A file without a heading is no table here: its reader has to know the columns.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from scaledown.data.storage.lines import Faults

LONGEST_HEADING = 1_000
"""In characters; a longer line is content."""
_QUOTED = re.compile('"((?:[^"]|"")*)"')


@dataclass(frozen=True)
class Heading:
    """The names of a table's columns, in lower case, and the separator between them."""

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
        others: other names that make a line a heading, together with one of ``texts``.
    """
    if len(line) > LONGEST_HEADING:
        return None

    for separator in ("\t", ","):
        names = tuple(cell.strip().lower() for cell in _cells(line, separator))

        # With tabs the name of an id is enough: no line of content has "id" for its id.
        begins_with_id = names[0] in ids and separator == "\t" and len(names) > 1

        # Commas are common in texts: there the name of the text is needed, alone or with another known name.
        has_text = not set(names).isdisjoint(texts)
        has_other = len(names) == 1 or not set(names).isdisjoint({*ids, *others})
        if begins_with_id or (has_text and has_other):
            return Heading(names, separator)
    return None


def table_rows(lines: Iterable[tuple[int, str]], heading: Heading,
               faults: Faults) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows below a heading, each with the number of its last line; malformed ones go to ``faults``.

    Args:
        lines: the lines that are not blank, with their numbers, the heading first.
        heading: the heading.
        faults: takes the malformed rows.
    """
    last_line, lines = 0, iter(lines)
    next(lines)  # the heading

    def texts() -> Iterator[str]:
        # Notes the number of each line: the CSV reader takes as many as a quoted cell spans.
        nonlocal last_line
        for number, text in lines:
            last_line = number
            yield f"{text}\n"

    # With tabs, quotes are mostly part of the text; with commas, cells that hold commas or line breaks are quoted.
    if heading.separator == "\t":
        rows = (_cells(line, "\t") for line in texts())
    else:
        rows = csv.reader(texts(), strict=True)

    # Not a for loop, which would end at the first malformed row.
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as fault:
            faults.add(f"line {last_line}", f"not valid CSV ({fault})")
            continue

        if cells is None:
            return
        if len(cells) == len(heading.names):
            yield last_line, dict(zip(heading.names, cells, strict=True))
        else:
            faults.add(f"line {last_line}", f"{len(cells)} columns; expected {len(heading.names)}, as in the heading: "
                                            f"{heading.shown()}")


def python_list(text: str) -> list[str] | None:
    """Return the list of texts that ``text`` holds in Python's notation (``['a', 'b']``), or None if it holds none."""
    # In a table the list may stand in a quoted cell.
    text = unquoted(text.strip())
    if not (text.startswith("[") and text.endswith("]")):
        return None

    # literal_eval runs no code, but overflows on lists nested too deeply, and builds no set of lists.
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return values if all(isinstance(value, str) for value in values) else None


def _cells(line: str, separator: str) -> list[str]:
    """Return the cells of a line, at least one."""
    line = line.rstrip("\r\n")
    if separator == "\t":
        return [unquoted(cell) for cell in line.split("\t")]

    # csv gives no row, or an empty one, for an empty line.
    return next(csv.reader([line]), [""]) or [""]


def unquoted(cell: str) -> str:
    """Return the content of a cell that is quoted as a whole, and any other cell as it is."""
    quoted = _QUOTED.fullmatch(cell)
    return quoted.group(1).replace('""', '"') if quoted else cell
