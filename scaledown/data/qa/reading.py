"""Reading questions from the rows of a source: at random, as many as are needed, with clear words for a bad row."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from scaledown.data.qa.question import Layout, Question, Unusable


@dataclass(frozen=True)
class Source:
    """Questions not yet read, the layout that reads them, and a sentence on what they are."""

    layout: Layout
    rows: Iterable[Any]
    description: str


@contextmanager
def reading(place: Any, layout: Layout) -> Iterator[None]:
    """Turn what goes wrong in a file that is not quite in its layout into a ``ValueError`` that names both."""
    try:
        yield
    except KeyError as fault:
        raise ValueError(f"{place}: not quite {layout.name}: {fault} is missing") from fault
    except (TypeError, AttributeError, IndexError) as fault:
        raise ValueError(f"{place}: not quite {layout.name} ({type(fault).__name__}: {fault})") from fault
    except ValueError as fault:
        raise ValueError(f"{place}: {fault}") from fault


def read_questions(source: Source, wanted: int, rng: random.Random, dropped: Counter[str]) -> list[Question]:
    """Enough questions, drawn at random, for ``wanted`` records and a pool of hard negatives around them."""
    limit = math.ceil(wanted * source.layout.questions_a_record)
    questions: dict[str, Question] = {}
    rows = _shuffled(source.rows, source.layout.buffered_rows, rng)
    with tqdm(desc="reading", unit=" questions", leave=False) as progress:
        for row in rows:
            with reading(f"{source.description}{_id_of(row)}", source.layout):
                try:
                    question = source.layout.question(row)
                except Unusable as reason:
                    dropped[str(reason)] += 1
                    continue
            questions.setdefault(question.id, question)
            progress.update()
            if len(questions) >= limit:
                break
    return list(questions.values())


def _id_of(row: Any) -> str:
    """Which row it is, for a message."""
    names = ("id", "_id", "question_id", "example_id")
    return next((f", {name} {row[name]}" for name in names if isinstance(row, dict) and name in row), "")


def _shuffled(rows: Iterable[Any], buffered_rows: int, rng: random.Random) -> Iterator[Any]:
    """The rows in random order; those of a stream as far as a buffer of ``buffered_rows`` allows."""
    if isinstance(rows, list):
        yield from rng.sample(rows, len(rows))
        return
    buffer: list[Any] = []
    for row in rows:
        if len(buffer) < buffered_rows:
            buffer.append(row)
            continue
        place = rng.randrange(buffered_rows)
        yield buffer[place]
        buffer[place] = row
    yield from rng.sample(buffer, len(buffer))
