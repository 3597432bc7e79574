"""TREC's two text formats, which all search engines and evaluation tools write and read.

A run holds a system's rankings: ``query Q0 document rank score tag``. Qrels hold relevance judgements: ``query 0
document grade``, or BEIR's three columns under a heading. Columns are separated by tabs or spaces. As in trec_eval, a
run is ordered by its scores; the rank column is not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scaledown.data.storage.lines import Faults, text_lines
from scaledown.files import whole_file

Run = dict[str, dict[str, float]]
Qrels = dict[str, dict[str, int]]

TAG = "scaledown"
BEIR_HEADING = ["query-id", "corpus-id", "score"]
RUN_COLUMNS = "query Q0 document rank score tag"
QRELS_COLUMNS = "query 0 document grade, or query document grade"
# A byte order mark in front of a file is dropped when it is read.
_NOT_IN_AN_ID = re.compile("[\\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")


def read_run(path: Path | str) -> Run:
    """Read a run: the score of each document found, by query, best first.

    Raises:
        ValueError: if there is no such file, nothing in it, or lines that are malformed or repeat a document; they
            are named by their number, and the first 20 shown.
    """
    run: Run = {}
    for query, document, score in _entries(Path(path), _run_entry, RUN_COLUMNS):
        run.setdefault(query, {})[document] = score

    # Nothing says that the lines of a file are in order.
    return {query: _best_first(scores) for query, scores in run.items()}


def write_run(path: Path | str, run: Mapping[str, Mapping[str, float]] | Iterable[tuple[str, Mapping[str, float]]],
              ) -> None:
    """Write a run, or the items of one too large to hold, best documents first; :func:`read_run` reads it again.

    Scores may be of any type that is a number, such as numpy's.

    Raises:
        ValueError: if an id has white space in it, which would make two of it, a score is no finite number, or the
            folder cannot be written to.
    """
    items = run.items() if isinstance(run, Mapping) else run

    # One query at a time: of a large run no more than that is in memory.
    with whole_file(Path(path)) as draft, draft.open("w", encoding="utf-8") as file:
        for query, scores in items:
            file.writelines(_run_lines(query, scores))


def read_qrels(path: Path | str) -> Qrels:
    """Read relevance judgements: the grade of each judged document, by query.

    Raises:
        ValueError: as :func:`read_run`.
    """
    qrels: Qrels = {}
    for query, document, grade in _entries(Path(path), _qrels_entry, QRELS_COLUMNS):
        qrels.setdefault(query, {})[document] = int(grade)
    return qrels


def write_qrels(path: Path | str, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write relevance judgements in TREC's layout.

    Raises:
        ValueError: as :func:`write_run`, and for a grade that is no whole number.
    """
    with whole_file(Path(path)) as draft, draft.open("w", encoding="utf-8") as file:
        for query, grades in qrels.items():
            for document, grade in grades.items():
                file.write(f"{_word(query)} 0 {_word(document)} {_grade(query, document, grade)}\n")


def require_ids(names: Iterable[str]) -> None:
    """Refuse ids that are not allowed in a run, before any work is done for it.

    Raises:
        ValueError: if one is not.
    """
    for name in names:
        _word(name)


def _entries(path: Path, parse: Callable[[list[str]], tuple[str, str, float]],
             expected: str) -> Iterator[tuple[str, str, float]]:
    """Yield each line's query, document and score or grade, as ``parse`` reads them from its columns."""
    faults = Faults(path, "lines")
    line_of: dict[tuple[str, str], int] = {}
    for number, line in text_lines(path):
        columns = line.split()
        if columns == BEIR_HEADING and number == 1:
            continue

        # A wrong number of columns fails to unpack, which is a ValueError, too.
        try:
            query, document, value = parse(columns)
        except ValueError:
            faults.add(f"line {number}", f"{line[:80]!r}; expected {expected}")
            continue

        if (query, document) in line_of:
            faults.add(f"line {number}", f"document {document} of query {query} is already on line "
                                         f"{line_of[query, document]}")
            continue
        line_of[query, document] = number
        yield query, document, value

    faults.raise_any()
    if not line_of:
        raise ValueError(f"{path}: nothing in it; expected lines of {expected}")


def _run_entry(columns: list[str]) -> tuple[str, str, float]:
    """Return the query, document and score of one line of a run."""
    query, _, document, _, score, _ = columns

    # float() also reads "nan" and "inf".
    if not math.isfinite(float(score)):
        raise ValueError("a score that is no number")
    return query, document, float(score)


def _qrels_entry(columns: list[str]) -> tuple[str, str, float]:
    """Return the query, document and grade of one line of qrels."""
    # TREC's second column is a constant 0, which BEIR's layout leaves out.
    query, document, grade = columns if len(columns) == 3 else (columns[0], *columns[2:])
    return query, document, int(grade)


def _best_first(scores: Mapping[str, float]) -> dict[str, float]:
    """Sort the documents by their scores."""
    # The sort is stable: documents of equal score stay in the order given.
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def _run_lines(query: str, scores: Mapping[str, float]) -> Iterator[str]:
    """Yield one query's lines of a run."""
    checked_scores = {document: _score(query, document, score) for document, score in scores.items()}

    # repr() gives the shortest text that reads back as the same float.
    for rank, (document, score) in enumerate(_best_first(checked_scores).items(), start=1):
        yield f"{_word(query)} Q0 {_word(document)} {rank} {score!r} {TAG}\n"


def _word(name: str) -> str:
    """Return an id that is one word in the file."""
    if not isinstance(name, str) or not name or _NOT_IN_AN_ID.search(name):
        raise ValueError(f"id {name!r} is not allowed in a TREC file; expected text without white space, control "
                         "characters and half surrogate pairs")
    return name


def _score(query: str, document: str, score: Any) -> float:
    """Return a score as a plain float: numpy's types would write their name, too ("np.float32(0.5)")."""
    number = _number(score)
    if not math.isfinite(number):
        raise ValueError(f"document {document!r} of query {query!r} has the score {score!r}; expected a finite number")
    return number


def _grade(query: str, document: str, grade: Any) -> int:
    number = _number(grade)
    if not number.is_integer():
        raise ValueError(f"document {document!r} of query {query!r} has the grade {grade!r}; expected a whole number")
    return int(number)


def _number(value: Any) -> float:
    """Return ``value`` as a plain float, which is NaN if it is no number."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
