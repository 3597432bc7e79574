"""The queries of training records: from a file, from MS MARCO, or about the demo world."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaledown import hub
from scaledown.data.pipeline.query_rows import (
    EXPECTED_QUERIES,
    QUERY_ANSWER_NAMES,
    QUERY_ID_NAMES,
    QUERY_TEXT_NAMES,
    rows_of,
)
from scaledown.data.storage.lines import SHOWN_FAULTS, Faults, first_value, shown
from scaledown.files import has_half_surrogate
from scaledown.settings import positive, require, setting

MS_MARCO = ("microsoft/ms_marco", "v2.1")
EMPTY_QUERY, REPEATED_QUERY = "empty", "a query that stood before"
MS_MARCO_ADVICE = "What works without it: --queries_file with the official queries TSV, or --num_synthetic_queries N."


@dataclass(frozen=True)
class QueriesConfig:
    """Settings of the queries; exactly one of the first three is given."""

    queries_file: str | None = setting(None, "queries in a file: text with one a line, a TSV or CSV, JSONL, or records")
    num_synthetic_queries: int | None = setting(None, "queries about the demo world, which comes with its own "
                                                      "corpus: nothing is downloaded")
    download_ms_marco: bool = setting(False, "the queries of MS MARCO, from the Hub")
    ms_marco_split: str = setting("train", "split of MS MARCO", ("train", "validation", "test"), is_advanced=True)
    max_queries: int | None = setting(None, "at most this number of them, drawn at random", is_advanced=True)
    seed: int = setting(42, "seed of all draws")

    def __post_init__(self) -> None:
        num_sources = sum([self.queries_file is not None, self.num_synthetic_queries is not None,
                           self.download_ms_marco])
        faults = positive(self, "num_synthetic_queries", "max_queries")
        if num_sources != 1:
            faults.insert(0, "give one of --queries_file, --num_synthetic_queries and --download_ms_marco, "
                             f"not {num_sources or 'none'}")
        require(faults)


@dataclass(frozen=True)
class Query:
    """A query, and its gold answers if they are known."""

    id: str
    text: str
    answers: tuple[str, ...] = ()


@dataclass
class ReadQueries:
    """Queries that were read, and the lines left out: their number for each reason, and the first ones by place."""

    queries: list[Query] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, place: str) -> None:
        """Count a line that is empty, or repeats a query."""
        self.left_out[reason] += 1
        if len(self.examples) < SHOWN_FAULTS:
            self.examples.append(f"{place}: {reason}")


def chosen_queries(read: ReadQueries, config: QueriesConfig) -> list[Query]:
    """Return the queries in random order, at most ``config.max_queries`` of them."""
    # Sorted before the shuffle: the choice depends on the seed, and not on the order of the file.
    queries = sorted(read.queries, key=lambda query: query.id)
    random.Random(config.seed).shuffle(queries)
    return queries[:config.max_queries]


def count_queries(config: QueriesConfig) -> int:
    """Return the number of queries there will be; MS MARCO's are not read for it.

    Raises:
        ValueError: if they cannot be read.
    """
    if config.num_synthetic_queries is not None:
        number = config.num_synthetic_queries
    elif config.queries_file is not None:
        number = len(read_queries_file(config.queries_file).queries)
    else:
        number = _count_ms_marco(config.ms_marco_split)
    return min(number, config.max_queries or number)


def read_queries_file(path: Path | str) -> ReadQueries:
    """Read a file of queries. Empty lines and repeated queries are left out, and counted.

    Raises:
        ValueError: if the file is missing, empty or in an unknown layout, or some lines are no queries: a single error
            shows the first 20 of them and counts the rest.
    """
    path = Path(path)
    faults = Faults(path, "lines")
    read = ReadQueries()
    seen_texts: set[str] = set()
    place_of_id: dict[str, str] = {}
    for place, values in rows_of(path, faults):
        if values is None:
            read.leave_out(EMPTY_QUERY, place)
            continue
        try:
            # A query without an id is called by its number in the file: "line 7" -> "7".
            query = _query(values, place.rpartition(" ")[2])
        except ValueError as fault:
            faults.add(place, str(fault))
            continue

        # The same text again is left out, whatever its id; the same id of another text is a mistake in the file.
        if query.text in seen_texts:
            read.leave_out(REPEATED_QUERY, place)
        elif query.id in place_of_id:
            faults.add(place, f"id {query.id!r} is taken by {place_of_id[query.id]}; expected another one")
        else:
            seen_texts.add(query.text)
            place_of_id[query.id] = place
            read.queries.append(query)

    faults.raise_any()
    if not read.queries:
        raise ValueError(f"--queries_file {path}: no queries in it; expected {EXPECTED_QUERIES}")
    return read


def read_ms_marco(split: str) -> ReadQueries:
    """Read the queries of MS MARCO's ``split`` (Bajaj et al., arXiv:1611.09268) from the Hub.

    Raises:
        ValueError: if the Hub cannot be reached, within seconds.
    """
    import datasets

    read = ReadQueries()
    seen_texts: set[str] = set()
    with _ms_marco(split) as name_and_config:
        dataset = datasets.load_dataset(*name_and_config, split=split, streaming=True)
        # Without the passages, which are most of the download.
        for row in dataset.select_columns(["query_id", "query"]):
            text = " ".join(row["query"].split())
            if not text or text in seen_texts:
                read.leave_out(REPEATED_QUERY if text else EMPTY_QUERY, f"query {row['query_id']}")
                continue
            seen_texts.add(text)
            read.queries.append(Query(str(row["query_id"]), text))
    return read


def _count_ms_marco(split: str) -> int:
    import datasets

    with _ms_marco(split) as name_and_config:
        # From the dataset's description: no row is downloaded.
        return datasets.load_dataset_builder(*name_and_config).info.splits[split].num_examples


@contextmanager
def _ms_marco(split: str) -> Iterator[tuple[str, str]]:
    """Give MS MARCO's name and config, and turn all errors while they are used into one clear message.

    Raises:
        ValueError: if the Hub cannot be reached, or the dataset cannot be read.
    """
    from huggingface_hub import errors

    name, config = MS_MARCO
    hub.locate(name, kind="dataset", what_works=MS_MARCO_ADVICE)
    try:
        yield name, config
    except (OSError, ValueError, KeyError, TypeError, errors.HTTPError) as fault:
        raise ValueError(f"{name} ({split}) on the Hub: cannot be read ({fault}). {MS_MARCO_ADVICE}") from fault


def _query(values: Any, number: str) -> Query:
    """Return the query in one line; ``number`` is its id if it has none.

    Raises:
        ValueError: if there is none in it; the message says why.
    """
    if not isinstance(values, dict):
        raise ValueError("expected an object with query")

    text = first_value(values, QUERY_TEXT_NAMES)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"it has no query; expected text under one of {', '.join(QUERY_TEXT_NAMES)}")

    id = first_value(values, QUERY_ID_NAMES)
    id = number if id is None else id
    # A bool is an int to Python, and no id.
    if isinstance(id, bool) or not (isinstance(id, int) or isinstance(id, str) and id.strip()):
        raise ValueError(f"its id: expected text that is not blank, or a whole number, got {shown(id)}")

    answers = tuple(dict.fromkeys(_answers(first_value(values, QUERY_ANSWER_NAMES))))  # each answer once
    query = Query(str(id).strip(), " ".join(text.split()), answers)
    # JSON can write half a character ("\ud83d"), which no file in UTF-8 can hold later.
    if any(map(has_half_surrogate, (query.id, query.text, *query.answers))):
        raise ValueError("it holds half a surrogate pair, which is no character")
    return query


def _answers(value: Any) -> Iterable[str]:
    """Yield answers as datasets write them: a text or a number, a list, or objects such as SQuAD's and KILT's.

    Raises:
        ValueError: if there is an answer that is neither text nor a number.
    """
    if isinstance(value, dict):
        value = _answer_in(value, ("text", "aliases", "value", "answer"))  # SQuAD's by columns, TriviaQA's, KILT's

    entries = value if isinstance(value, list | tuple) else [value]
    for entry in entries:
        answer = _answer_in(entry, ("answer", "text")) if isinstance(entry, dict) else entry  # KILT's, SQuAD's
        if isinstance(answer, str):
            answer = answer.strip()
        elif _is_number(answer):
            answer = str(answer)
        elif answer is not None:
            raise ValueError(f"an answer is {shown(answer)}; expected text or a number")

        if answer:
            yield answer


def _is_number(value: Any) -> bool:
    """Return whether ``value`` is a number, neither true or false nor infinite."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _answer_in(values: dict[str, Any], names: Sequence[str]) -> Any:
    """Return the value under the first of ``names`` that has one, or None.

    Raises:
        ValueError: if the object has none of these names.
    """
    # Of KILT's objects some have no answer, but other passages to find it in.
    if values.keys().isdisjoint((*names, "provenance", "meta")):
        raise ValueError(f"an answer is {shown(values)}; expected text or a number")
    return next((values[name] for name in names if values.get(name) not in (None, "", [])), None)
