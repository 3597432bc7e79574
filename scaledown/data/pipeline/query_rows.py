"""The rows of a file of queries, whatever its layout; one that is none of those known is refused, never guessed."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scaledown.data.storage.lines import Faults
from scaledown.data.storage.tables import heading_of, python_list, table_rows, unquoted
from scaledown.files import parse_json

TEXT_NAMES = ("query", "question", "text", "input", "question_text")
ID_NAMES = ("id", "_id", "query_id", "question_id", "qid", "query-id")
ANSWER_NAMES = ("answers", "answer", "output")
EXPECTED = ("text with one query a line, id TAB query, a TSV or CSV under a heading that names query (or question), "
            "question TAB ['answers'], JSONL with query (or question), or records")
MARKUP = re.compile(r"\s*<(?:[a-z]+>|\?xml|!doctype|topics?\b|quer(?:y|ies)\b)", re.IGNORECASE)
NOT_QUERIES = {"lines of a TREC run or of qrels": re.compile(r"\s*\S+\s+Q?0\s+\S+\s+-?\d\S*(?:\s|$)"),
               "columns apart by commas, without a heading": re.compile(r'\s*"?\d+"?,')}
"""What a file is of which all lines, and more than one, begin like that."""
READING = "columns by their heading"
"""How rows are read; part of the queries' fingerprint, so that those read otherwise are read again."""

Row = tuple[str, Any]
"""The place of a row, and what it says: an object by the names above, or None if the line is empty."""


def rows_of(path: Path, faults: Faults) -> Iterator[Row]:
    """Yield the rows of ``path``; malformed ones go to ``faults``.

    Raises:
        ValueError: if the file cannot be read, or is in none of the layouts known.
    """
    text = _text_of(path)
    if text.lstrip().startswith("["):
        yield from ((f"record {number}", values) for number, values in enumerate(_json_list(path, text), start=1))
        return
    lines = list(enumerate(text.split("\n"), start=1))
    if not lines[-1][1].strip(" "):
        lines.pop()  # what stands behind the last line break is no line
    yield from ((f"line {number}", None) for number, line in lines if not line.strip())
    lines = [(number, line) for number, line in lines if line.strip()]
    if not lines:
        return
    first = lines[0][1]
    if first.lstrip().startswith("{"):
        yield from _json_rows(lines, faults)
    elif heading := heading_of(first, ID_NAMES, TEXT_NAMES, ANSWER_NAMES):
        if set(heading.names).isdisjoint(TEXT_NAMES):
            raise _refusal(path, f"its heading ({heading.shown()}) names no query")
        for number, values in table_rows(lines, heading, faults):
            yield f"line {number}", {name: _list_or_text(value) for name, value in values.items()}
    else:
        _refuse_what_is_no_query(path, lines)
        yield from (_tab_rows if "\t" in first else _plain_rows)(lines, faults)


def _text_of(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as fault:
        raise ValueError(f"--queries_file {path}: cannot be read ({fault.strerror}); expected {EXPECTED}") from None
    except UnicodeDecodeError as fault:
        raise ValueError(f"--queries_file {path}: not UTF-8 (byte {fault.start + 1})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _json_list(path: Path, text: str) -> list[Any]:
    try:
        return parse_json(text)
    except json.JSONDecodeError as fault:
        raise ValueError(f"--queries_file {path}: not valid JSON (line {fault.lineno}: {fault.msg})") from None


def _json_rows(lines: Sequence[tuple[int, str]], faults: Faults) -> Iterator[Row]:
    for number, line in lines:
        try:
            yield f"line {number}", parse_json(line)
        except json.JSONDecodeError as fault:
            faults.add(f"line {number}", f"not valid JSON (column {fault.colno}: {fault.msg})")


def _tab_rows(lines: Sequence[tuple[int, str]], faults: Faults) -> Iterator[Row]:
    """Yield ``id TAB query``, or ``question TAB ['answers']`` (DPR's) if the first line is that."""
    cells = [line.rstrip().split("\t") for _, line in lines]
    has_answers = len(cells[0]) == 2 and python_list(cells[0][1]) is not None
    for (number, line), row in zip(lines, cells, strict=True):
        place, answers = f"line {number}", python_list(row[-1])
        if has_answers and len(row) == 2 and answers is not None:
            yield place, {"query": unquoted(row[0]), "answers": answers}
        elif has_answers:
            faults.add(place, f"{line[:60]!r}; expected question TAB ['answers'], as in the first line")
        elif "\t" not in line:
            faults.add(place, "no TAB in it, though the first line is id TAB query")
        elif len(row) > 2:
            faults.add(place, f"{len(row)} columns without a heading; expected id TAB query, or a heading such as "
                              "id TAB query TAB answers in the first line")
        elif len(row[0].split()) > 1:
            faults.add(place, f"{row[0][:60]!r} is no id, having spaces in it; expected id TAB query, or a heading")
        else:
            yield place, {"id": row[0], "query": row[1] if len(row) == 2 else ""}


def _plain_rows(lines: Sequence[tuple[int, str]], faults: Faults) -> Iterator[Row]:
    for number, line in lines:
        if "\t" in line:
            faults.add(f"line {number}", "a TAB in it, though the first line has none; expected one layout throughout")
        else:
            yield f"line {number}", {"query": line}


def _refuse_what_is_no_query(path: Path, lines: Sequence[tuple[int, str]]) -> None:
    texts = [line for _, line in lines]
    if path.suffix == ".csv" and "\t" not in texts[0]:
        raise _refusal(path, "a CSV without a heading that names query (or question)")
    if MARKUP.match(texts[0]):
        raise _refusal(path, "it holds markup, such as TREC's topics")
    for what, beginning in NOT_QUERIES.items():
        if len(texts) > 1 and all(map(beginning.match, texts)):
            raise _refusal(path, f"it holds {what}")
    queries = (text.partition("\t")[2] or text for text in texts)
    if not any(map(str.isalpha, itertools.chain.from_iterable(queries))):
        raise _refusal(path, "not one of its queries has a letter in it")


def _refusal(path: Path, reason: str) -> ValueError:
    return ValueError(f"--queries_file {path}: {reason}; expected {EXPECTED}")


def _list_or_text(cell: str) -> list[str] | str:
    values = python_list(cell)
    return cell if values is None else values
