"""TREC's two text files, as every search engine and evaluation tool writes and reads them.

A run says what was found: ``query Q0 document rank score tag``. Qrels say what is relevant: ``query 0 document grade``,
or BEIR's three columns under a heading. Columns are apart by tabs or spaces. As for trec_eval a run's order is that
of its scores; the rank column is not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from scaledown.data.lines import Faults, text_lines
from scaledown.data.whole_files import whole_file

Run = dict[str, dict[str, float]]
Qrels = dict[str, dict[str, int]]

TAG = "scaledown"
BEIR_HEADING = ["query-id", "corpus-id", "score"]
RUN_COLUMNS = "query Q0 document rank score tag"
QRELS_COLUMNS = "query 0 document grade, or query document grade"


def read_run(path: Path | str) -> Run:
    """Read a run: the score of each document found, by query, best first.

    Raises:
        ValueError: where there is no such file, nothing in it, or lines that are malformed or repeat a document; all
            are named by their number, the first 20 shown.
    """
    run: Run = {}
    for query, entry, score in _entries(Path(path), _run_entry, RUN_COLUMNS):
        run.setdefault(query, {})[entry] = score
    return {query: _best_first(scores) for query, scores in run.items()}


def write_run(path: Path | str, run: Mapping[str, Mapping[str, float]] | Iterable[tuple[str, Mapping[str, float]]],
              ) -> None:
    """Write a run, or the items of one too large to hold, best documents first; :func:`read_run` reads it again.

    Raises:
        ValueError: for an id with a space in it, which no reader could tell from two, or a folder that cannot be
            written to.
    """
    items = run.items() if isinstance(run, Mapping) else run
    _write(path, (f"{_word(query)} Q0 {_word(document)} {rank} {score!r} {TAG}\n" for query, scores in items
                  for rank, (document, score) in enumerate(_best_first(scores).items(), start=1)))


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
        ValueError: as :func:`write_run`.
    """
    _write(path, (f"{_word(query)} 0 {_word(document)} {grade}\n"
                  for query, grades in qrels.items() for document, grade in grades.items()))


def _write(path: Path | str, lines: Iterable[str]) -> None:
    with whole_file(Path(path)) as draft, draft.open("w", encoding="utf-8") as file:
        file.writelines(lines)


def _entries(path: Path, parse: Callable[[list[str]], tuple[str, str, float]],
             expected: str) -> Iterator[tuple[str, str, float]]:
    """Each line's query, document and number."""
    faults, seen = Faults(path, "lines"), {}
    for number, line in text_lines(path):
        columns = line.split()
        if columns == BEIR_HEADING and number == 1:
            continue
        try:
            query, document, value = parse(columns)
        except ValueError:
            faults.add(f"line {number}", f"{line[:80]!r}; expected {expected}")
            continue
        if (query, document) in seen:
            faults.add(f"line {number}", f"document {document} of query {query} stands on line "
                                         f"{seen[query, document]} already")
            continue
        seen[query, document] = number
        yield query, document, value
    faults.raise_any()
    if not seen:
        raise ValueError(f"{path}: nothing in it; expected lines of {expected}")


def _run_entry(columns: list[str]) -> tuple[str, str, float]:
    query, _, document, _, score, _ = columns
    if not math.isfinite(float(score)):
        raise ValueError("a score that is no number")
    return query, document, float(score)


def _qrels_entry(columns: list[str]) -> tuple[str, str, float]:
    query, document, grade = columns if len(columns) == 3 else (columns[0], *columns[2:])
    return query, document, int(grade)


def _best_first(scores: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def _word(name: str) -> str:
    if len(name.split()) != 1:
        raise ValueError(f"id {name!r} cannot stand in a TREC file: it is empty or has a space in it")
    return name
