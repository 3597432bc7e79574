"""The rows of a file of queries, in any known layout; another one is refused and never guessed."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scaledown.data.storage.lines import Faults, json_values
from scaledown.data.storage.tables import Heading, heading_of, python_list, table_rows, unquoted
from scaledown.files import parse_json

QUERY_TEXT_NAMES = ("query", "question", "text", "input", "question_text")
QUERY_ID_NAMES = ("id", "_id", "query_id", "question_id", "qid", "query-id")
QUERY_ANSWER_NAMES = ("answers", "answer", "output")
EXPECTED_QUERIES = ("text with one query a line, id TAB query, a TSV or CSV under a heading that names query (or "
                    "question), question TAB ['answers'], JSONL with query (or question), or records")
MARKUP = re.compile(r"\s*<(?:[a-z]+>|\?xml|!doctype|topics?\b|quer(?:y|ies)\b)", re.IGNORECASE)
NOT_QUERIES = {"lines of a TREC run or of qrels": re.compile(r"\s*\S+\s+Q?0\s+\S+\s+-?\d\S*(?:\s|$)"),
               "columns separated by commas, without a heading": re.compile(r'\s*"?\d+"?,')}
"""Kinds of file that hold no queries: all lines, if there is more than one, begin with the pattern."""
READING = "columns by their heading, numbers as answers"
"""The way in which rows are read: part of the queries' fingerprint, so that those of another way are read again."""

QueryRow = tuple[str, Any]
"""The place of a row, and its content: an object with some of the names above, or None if the line is empty."""


def rows_of(path: Path, faults: Faults) -> Iterator[QueryRow]:
    """Yield the rows of ``path``; malformed ones go to ``faults``.

    Raises:
        ValueError: if the file cannot be read, or is in none of the layouts known.
    """
    text = _text_of(path)
    if text.lstrip().startswith("["):
        # A JSON list, such as a file of records.
        for number, values in enumerate(_json_list(path, text), start=1):
            yield f"record {number}", values
        return

    lines = list(enumerate(text.split("\n"), start=1))
    if not lines[-1][1].strip(" "):
        lines.pop()  # the end of the last line starts no further line

    # Empty lines are reported once, here: the layouts below see only the others.
    for number, line in lines:
        if not line.strip():
            yield f"line {number}", None
    lines = [(number, line) for number, line in lines if line.strip()]
    if not lines:
        return

    # The first line tells the layout: JSONL, a table with a heading, columns without one, or plain queries.
    head = lines[0][1]
    if head.lstrip().startswith("{"):
        for number, value in json_values(lines, faults):
            yield f"line {number}", value
    elif heading := heading_of(head, QUERY_ID_NAMES, QUERY_TEXT_NAMES, QUERY_ANSWER_NAMES):
        yield from _rows_under_heading(path, lines, heading, faults)
    else:
        _refuse_what_is_no_query(path, lines)
        read_lines = _tab_rows if "\t" in head else _plain_rows
        yield from read_lines(lines, faults)


def _text_of(path: Path) -> str:
    """Read a file, and make all its line breaks ``\\n``.

    Raises:
        ValueError: if it cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as fault:
        raise _refusal(path, f"cannot be read ({fault.strerror})") from None
    except UnicodeDecodeError as fault:
        raise ValueError(f"--queries_file {path}: not UTF-8 (byte {fault.start + 1})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _json_list(path: Path, text: str) -> list[Any]:
    try:
        return parse_json(text)
    except json.JSONDecodeError as fault:
        raise ValueError(f"--queries_file {path}: not valid JSON (line {fault.lineno}: {fault.msg})") from None


def _rows_under_heading(path: Path, lines: Sequence[tuple[int, str]], heading: Heading,
                        faults: Faults) -> Iterator[QueryRow]:
    """Yield the rows of a table, with the names of its columns.

    Raises:
        ValueError: if no column is one of queries.
    """
    if set(heading.names).isdisjoint(QUERY_TEXT_NAMES):
        raise _refusal(path, f"its heading ({heading.shown()}) names no query")
    for number, values in table_rows(lines, heading, faults):
        yield f"line {number}", {name: _list_or_text(value) for name, value in values.items()}


def _tab_rows(lines: Sequence[tuple[int, str]], faults: Faults) -> Iterator[QueryRow]:
    """Yield ``id TAB query``, or DPR's ``question TAB ['answers']`` if the first line is that."""
    cells_of_lines = [line.rstrip().split("\t") for _, line in lines]
    head = cells_of_lines[0]
    is_dpr = len(head) == 2 and python_list(head[1]) is not None

    for (number, line), cells in zip(lines, cells_of_lines, strict=True):
        place = f"line {number}"
        answers = python_list(cells[-1])
        # Every line must have the first one's layout: a file that mixes them is damaged, or something else.
        if is_dpr and len(cells) == 2 and answers is not None:
            yield place, {"query": unquoted(cells[0]), "answers": answers}
        elif is_dpr:
            faults.add(place, f"{line[:60]!r}; expected question TAB ['answers'], as in the first line")
        elif "\t" not in line:
            faults.add(place, "no TAB in it, though the first line is id TAB query")
        elif len(cells) > 2:
            faults.add(place, f"{len(cells)} columns without a heading; expected id TAB query, or a heading such as "
                              "id TAB query TAB answers in the first line")
        elif len(cells[0].split()) > 1:
            faults.add(place, f"{cells[0][:60]!r} is no id: it has spaces in it; expected id TAB query, or a heading")
        else:
            # A line that ends with its TAB has one cell, and a blank query.
            yield place, {"id": cells[0], "query": cells[1] if len(cells) == 2 else ""}


def _plain_rows(lines: Sequence[tuple[int, str]], faults: Faults) -> Iterator[QueryRow]:
    """Yield each line as a query."""
    for number, line in lines:
        if "\t" in line:
            faults.add(f"line {number}", "a TAB in it, though the first line has none; expected one layout throughout")
        else:
            yield f"line {number}", {"query": line}


def _refuse_what_is_no_query(path: Path, lines: Sequence[tuple[int, str]]) -> None:
    """Refuse a file whose lines without a heading look like something else.

    Raises:
        ValueError: if they do; the message says like what.
    """
    texts = [line for _, line in lines]

    # Questions have commas, too: without a heading nothing tells one column from several.
    if path.suffix == ".csv" and "\t" not in texts[0]:
        raise _refusal(path, "a CSV without a heading that names query (or question)")
    if MARKUP.match(texts[0]):
        raise _refusal(path, "it holds markup, such as TREC's topics")
    for what, beginning in NOT_QUERIES.items():
        if len(texts) > 1 and all(map(beginning.match, texts)):
            raise _refusal(path, f"it holds {what}")

    # Ids and numbers alone, such as the two columns of some judgements.
    queries = (text.partition("\t")[2] or text for text in texts)
    if not any(map(str.isalpha, itertools.chain.from_iterable(queries))):
        raise _refusal(path, "none of its queries has a letter in it")


def _refusal(path: Path, reason: str) -> ValueError:
    """Return the error for a file that cannot be read, or is in none of the known layouts."""
    return ValueError(f"--queries_file {path}: {reason}; expected {EXPECTED_QUERIES}")


def _list_or_text(cell: str) -> list[str] | str:
    """Return the list that a cell of a table holds in Python's form, or its text."""
    values = python_list(cell)
    return cell if values is None else values
