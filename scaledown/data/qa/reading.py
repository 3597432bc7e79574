"""Questions read from rows: each row is checked, and enough are drawn at random.

A row that is not as it should be is told with its place; a question that no record can be made of is counted.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from scaledown.data.answers import padded, question_key
from scaledown.data.qa.checks import FieldCheck
from scaledown.data.qa.question import Layout, QAQuestion, Unusable
from scaledown.data.storage.lines import Faults
from scaledown.progress import Bar

ROW_ID_NAMES = ("id", "_id", "question_id", "example_id")
REPEATED_QUESTION = "it repeats another question: the same id, the same words and an answer in common"

PlacedRows = Iterable[tuple[str, Any]]
"""Rows, each with its place in the file or the stream."""


@dataclass(frozen=True)
class Source:
    """Questions not yet read, the layout that reads them, a description for messages, and the files left out."""

    layout: Layout
    rows: Iterable[Any]
    description: str
    left_out: tuple[str, ...] = ()


def numbered(rows: Iterable[Any]) -> PlacedRows:
    """Yield rows with their places: their numbers in the order in which they come, and their ids."""
    for number, row in enumerate(rows, start=1):
        id_ = next((f", {name} {row[name]}" for name in ROW_ID_NAMES if name in row), "")
        yield f"row {number}{id_}", row


def stream_rows(place: str, seed: int, **options: Any) -> Iterator[Any]:
    """Yield the rows that ``datasets`` loads with these options, its files in an order drawn by ``seed``.

    Raises:
        ValueError: if they cannot be read; the message begins with ``place``.
    """
    import datasets
    from huggingface_hub import errors

    try:
        stream = datasets.load_dataset(streaming=True, **options)
        # Shard by shard: IterableDataset.shuffle reads many at a time, far more of the network than is needed here.
        for index in random.Random(seed).sample(range(stream.num_shards), stream.num_shards):
            yield from stream.shard(stream.num_shards, index)
    except (OSError, ValueError, errors.HTTPError) as fault:
        raise ValueError(f"{place}: cannot be read ({fault})") from fault


def rows_without_faults(rows: PlacedRows, check: FieldCheck, faults: Faults, to_the_end: bool) -> Iterator[Any]:
    """Yield rows, each given with its place, up to the first in which ``check`` finds a fault.

    With ``to_the_end`` the rest is searched for further faults, as a file is; a stream from the Hub is not.

    Raises:
        ValueError: with all faults, including those that were in ``faults`` before.
    """
    for place, row in rows:
        for field, fault in check(row, ""):
            faults.add(f"{place}, {field}" if field else place, fault)

        # After the first fault nothing is used any more, so nothing is yielded.
        if not faults.number:
            yield row
        elif not to_the_end:
            break

    faults.raise_any()


def read_questions(source: Source, wanted: int, rng: random.Random, dropped: Counter[str]) -> list[QAQuestion]:
    """Read enough questions, drawn at random, for ``wanted`` records and a pool of hard negatives around them.

    A question with an id that is taken gets a new one. Questions that no record can be made of, and repetitions, are
    counted in ``dropped``, by reason.
    """
    limit = math.ceil(wanted * source.layout.questions_a_record)
    questions: dict[str, QAQuestion] = {}
    answers_of: dict[tuple[str, str], set[str]] = {}  # by id and wording
    rows = _shuffled(source.rows, source.layout.buffered_rows, rng)
    with Bar(desc="reading", unit=" questions", leave=False) as progress:
        for row in rows:
            try:
                question = source.layout.question(row)
            except Unusable as reason:
                dropped[str(reason)] += 1
                continue

            # The same id, wording and an answer in common: a repetition. Other answers make it another question.
            answers = {padded(answer) for answer in question.answers}
            known_answers = answers_of.setdefault((question.id, question_key(question.query)), set())
            if known_answers & answers:
                dropped[REPEATED_QUESTION] += 1
                continue
            known_answers |= answers

            # The new id depends on the content alone, and not on the order of reading.
            if question.id in questions:
                question = replace(question, id=f"{question.id}-{_content_hash(question)}")
            questions[question.id] = question

            progress.update()
            if len(questions) >= limit:
                break
    return list(questions.values())


def _content_hash(question: QAQuestion) -> str:
    gold_texts = [question.paragraphs[gold.paragraph].text for gold in question.gold]
    return hashlib.sha256("\n".join([question.query, *question.answers, *gold_texts]).encode()).hexdigest()[:8]


def _shuffled(rows: Iterable[Any], buffered_rows: int, rng: random.Random) -> Iterator[Any]:
    """Yield the rows in random order; those of a stream as far as a buffer of ``buffered_rows`` allows."""
    if isinstance(rows, list):
        yield from rng.sample(rows, len(rows))
        return

    # Once the buffer is full, each new row takes the place of one that is drawn from it.
    buffer: list[Any] = []
    for row in rows:
        if len(buffer) < buffered_rows:
            buffer.append(row)
            continue
        place = rng.randrange(buffered_rows)
        yield buffer[place]
        buffer[place] = row

    yield from rng.sample(buffer, len(buffer))
