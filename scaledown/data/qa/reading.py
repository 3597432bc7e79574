"""Reading questions from the rows of a source: at random, as many as are needed, with clear words for a bad row."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tqdm.auto import tqdm

from scaledown.data.answers import padded
from scaledown.data.normal_form import question_key
from scaledown.data.qa.checks import Check
from scaledown.data.qa.question import Layout, Question, Unusable
from scaledown.data.storage.lines import Faults

REPEATED = "it repeats another question: the same id, the same words and an answer in common"


@dataclass(frozen=True)
class Source:
    """Questions not yet read, the layout that reads them, a sentence on what they are, and which files are not used."""

    layout: Layout
    rows: Iterable[Any]
    description: str
    left_out: tuple[str, ...] = ()


def checked(rows: Iterable[tuple[str, Any]], check: Check, faults: Faults, to_the_end: bool) -> Iterator[Any]:
    """Yield rows, each given with its place, up to the first in which ``check`` finds a fault.

    What follows is looked through for the other faults, if ``to_the_end``: a file is, a stream from the Hub is not.

    Raises:
        ValueError: with all faults that were found, those that were in ``faults`` before included.
    """
    for place, row in rows:
        for field, fault in check(row, ""):
            faults.add(f"{place}, {field}" if field else place, fault)
        if not faults.number:
            yield row
        elif not to_the_end:
            break
    faults.raise_any()


def read_questions(source: Source, wanted: int, rng: random.Random, dropped: Counter[str]) -> list[Question]:
    """Read enough questions, drawn at random, for ``wanted`` records and a pool of hard negatives around them.

    A question whose id another one has is given an id of its own. What is left out is counted in ``dropped``, by
    reason: what no record can be made of, and repetitions.
    """
    limit = math.ceil(wanted * source.layout.questions_a_record)
    questions: dict[str, Question] = {}
    answers_of: dict[tuple[str, str], set[str]] = {}
    rows = _shuffled(source.rows, source.layout.buffered_rows, rng)
    with tqdm(desc="reading", unit=" questions", leave=False) as progress:
        for row in rows:
            try:
                question = source.layout.question(row)
            except Unusable as reason:
                dropped[str(reason)] += 1
                continue
            answers = {padded(answer) for answer in question.answers}
            known = answers_of.setdefault((question.id, question_key(question.query)), set())
            if known & answers:
                dropped[REPEATED] += 1
                continue
            known |= answers
            if question.id in questions:
                question = replace(question, id=f"{question.id}-{_content_hash(question)}")
            questions[question.id] = question
            progress.update()
            if len(questions) >= limit:
                break
    return list(questions.values())


def _content_hash(question: Question) -> str:
    gold = [question.paragraphs[gold.paragraph].text for gold in question.gold]
    return hashlib.sha256("\n".join([question.query, *question.answers, *gold]).encode()).hexdigest()[:8]


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
