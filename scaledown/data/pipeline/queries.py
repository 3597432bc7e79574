"""The queries that training records are made for: from a file, from MS MARCO, or about the embedded world."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaledown import hub
from scaledown.config import positive, require, setting
from scaledown.data.pipeline.query_rows import ANSWER_NAMES, EXPECTED, ID_NAMES, TEXT_NAMES, rows_of
from scaledown.data.storage.lines import SHOWN_FAULTS, Faults
from scaledown.files import has_half_surrogate

MS_MARCO = ("microsoft/ms_marco", "v2.1")
EMPTY, REPEATED = "empty", "a query that stood before"
WHAT_WORKS = "What works without it: --queries_file with the official queries TSV, or --num_synthetic_queries N."


@dataclass(frozen=True)
class QueriesConfig:
    """Which queries; exactly one of the first three."""

    queries_file: str | None = setting(None, f"queries in a file: {EXPECTED}")
    num_synthetic_queries: int | None = setting(None, "so many queries about the embedded world, which has a corpus "
                                                      "of its own: nothing is downloaded")
    download_ms_marco: bool = setting(False, "the queries of MS MARCO, from the Hub")
    ms_marco_split: str = setting("train", "which of MS MARCO's queries", ("train", "validation", "test"))
    max_queries: int | None = setting(None, "at most so many of them, drawn at random")
    seed: int = setting(42, "seed of the queries' order, and of the embedded world")

    def __post_init__(self) -> None:
        given = [self.queries_file is not None, self.num_synthetic_queries is not None, self.download_ms_marco]
        faults = [] if sum(given) == 1 else [
            f"give one of --queries_file, --num_synthetic_queries and --download_ms_marco, not {sum(given) or 'none'}"]
        require(faults + positive(self, "num_synthetic_queries", "max_queries"))


@dataclass(frozen=True)
class Query:
    """A query, and the gold answers where they are known."""

    id: str
    text: str
    answers: tuple[str, ...] = ()


@dataclass
class ReadQueries:
    """Queries read from somewhere, and what was left out, by reason, the first of it in words."""

    queries: list[Query] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, place: str) -> None:
        """Count a line that is no query of its own."""
        self.left_out[reason] += 1
        if len(self.examples) < SHOWN_FAULTS:
            self.examples.append(f"{place}: {reason}")


def chosen_queries(read: ReadQueries, config: QueriesConfig) -> list[Query]:
    """The queries in random order, at most ``config.max_queries`` of them."""
    queries = sorted(read.queries, key=lambda query: query.id)
    random.Random(config.seed).shuffle(queries)
    return queries[:config.max_queries]


def count_queries(config: QueriesConfig) -> int:
    """How many queries there will be; MS MARCO's are not read for it.

    Raises:
        ValueError: where they cannot be had.
    """
    if config.num_synthetic_queries is not None:
        number = config.num_synthetic_queries
    elif config.queries_file is not None:
        number = len(read_queries_file(config.queries_file).queries)
    else:
        number = _count_ms_marco(config.ms_marco_split)
    return min(number, config.max_queries or number)


def read_queries_file(path: Path | str) -> ReadQueries:
    """Read a file of queries. Empty lines and queries that stood there before are left out, and counted.

    Raises:
        ValueError: if the file is missing, empty or in none of the layouts known, or lines of it are no queries: all
            of them are named together; the first 20 are shown and the rest counted.
    """
    path = Path(path)
    faults = Faults(path, "lines")
    read, seen, ids = ReadQueries(), set(), {}
    for place, values in rows_of(path, faults):
        if values is None:
            read.leave_out(EMPTY, place)
            continue
        try:
            query = _query(values, place.rpartition(" ")[2])
        except ValueError as fault:
            faults.add(place, str(fault))
            continue
        if query.text in seen:
            read.leave_out(REPEATED, place)
        elif query.id in ids:
            faults.add(place, f"id {query.id!r} is taken by {ids[query.id]}; expected one of its own")
        else:
            seen.add(query.text)
            ids[query.id] = place
            read.queries.append(query)
    faults.raise_any()
    if not read.queries:
        raise ValueError(f"--queries_file {path}: no queries in it; expected {EXPECTED}")
    return read


def read_ms_marco(split: str) -> ReadQueries:
    """Read the queries of MS MARCO's ``split`` (Bajaj et al., arXiv:1611.09268) from the Hub.

    Raises:
        ValueError: within seconds where the Hub cannot be reached.
    """
    import datasets

    read, seen = ReadQueries(), set()
    with _ms_marco(split) as name_and_config:
        rows = datasets.load_dataset(*name_and_config, split=split, streaming=True)
        for row in rows.select_columns(["query_id", "query"]):
            text = " ".join(row["query"].split())
            if not text or text in seen:
                read.leave_out(REPEATED if text else EMPTY, f"query {row['query_id']}")
                continue
            seen.add(text)
            read.queries.append(Query(str(row["query_id"]), text))
    return read


def _count_ms_marco(split: str) -> int:
    import datasets

    with _ms_marco(split) as name_and_config:
        return datasets.load_dataset_builder(*name_and_config).info.splits[split].num_examples


@contextmanager
def _ms_marco(split: str) -> Iterator[tuple[str, str]]:
    """MS MARCO's name and config, within which what goes wrong becomes one clear message."""
    from huggingface_hub import errors

    name, config = MS_MARCO
    hub.locate(name, kind="dataset", what_works=WHAT_WORKS)
    try:
        yield name, config
    except (OSError, ValueError, KeyError, TypeError, errors.HTTPError) as fault:
        raise ValueError(f"{name} ({split}) on the Hub: cannot be read ({fault}). {WHAT_WORKS}") from fault


def _query(values: Any, number: str) -> Query:
    if not isinstance(values, dict):
        raise ValueError("expected an object with query")
    text, id, answers = (next((values[name] for name in names if values.get(name) is not None), None)
                         for names in (TEXT_NAMES, ID_NAMES, ANSWER_NAMES))
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"it has no query; expected text under one of {', '.join(TEXT_NAMES)}")
    id = number if id is None else str(id).strip()
    if not id:
        raise ValueError("its id is blank")
    query = Query(id, " ".join(text.split()), tuple(dict.fromkeys(_answers(answers))))
    if any(map(has_half_surrogate, (query.id, query.text, *query.answers))):
        raise ValueError("it holds half a surrogate pair, which is no character")
    return query


def _answers(value: Any) -> Iterable[str]:
    """Answers as datasets write them: one text, a list, KILT's ``[{"answer"}]`` or SQuAD's ``{"text": [...]}``."""
    if isinstance(value, dict):
        value = value.get("text") or value.get("aliases") or value.get("value")
    for entry in value if isinstance(value, list | tuple) else [value]:
        answer = entry.get("answer") if isinstance(entry, dict) else entry
        if isinstance(answer, str) and answer.strip():
            yield answer.strip()
