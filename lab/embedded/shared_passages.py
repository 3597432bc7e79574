"""Lessons for a compressor of a pretrained generator: a step's questions are about few passages.

With documents first a passage is read once a step, however many questions follow it. Where people have written several
to a passage, as in SQuAD, reading one more of them costs a quarter of reading it alone.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from scaledown.data.records import Record

MOST_OF_A_PASSAGE = 8
"""Most questions about one passage that a step takes at a time."""
NEAR_PASSAGES = 3
"""Passages that a step takes beside one: those that stand in its questions' records without answering."""
BESIDE_ANOTHER = 0.5
"""Share of questions whose passage stands beside one that is to say that it does not know."""


class Asked(NamedTuple):
    """A record, the passage that states its answer, and those of its documents that do not."""

    record: Record
    passage: str
    others: tuple[str, ...]


def on_one_passage(records: Sequence[Record], num_steps: int, batch_size: int, seed: int) -> list[Record]:
    """Each question with the passage that answers it, half of them beside another passage of the step.

    Raises:
        ValueError: where no document states an answer.
    """
    rng, lessons = random.Random(f"beside-{seed}"), []
    for batch in _steps(records, num_steps, batch_size, seed):
        passages = list(dict.fromkeys(asked.passage for asked in batch))
        for record, passage, others in batch:
            near = [other for other in others if other in passages] or [each for each in passages if each != passage]
            beside = [rng.choice(near)] if near and rng.random() < BESIDE_ANOTHER else []
            lessons.append(_numbered(rng, record, [passage, *beside], len(lessons)))
    return lessons


def on_all_documents(records: Sequence[Record], num_steps: int, batch_size: int, seed: int) -> list[Record]:
    """Each question with all its documents, in random order.

    Raises:
        ValueError: where no document states an answer.
    """
    rng = random.Random(f"all-{seed}")
    batches = _steps(records, num_steps, batch_size, seed)
    return [_numbered(rng, asked.record, asked.record.documents, number)
            for number, asked in enumerate(asked for batch in batches for asked in batch)]


def _steps(records: Sequence[Record], num_steps: int, batch_size: int, seed: int) -> Iterator[list[Asked]]:
    """The questions of each step: those of a passage, then of passages that are hard to tell from it."""
    asked: dict[str, list[Asked]] = defaultdict(list)
    for record in records:
        stated = list(zip(record.documents, record.stated_answers, strict=True))
        passage = next((document for document, answer in stated if answer), None)
        if passage is not None:
            asked[passage].append(Asked(record, passage, tuple(each for each, answer in stated if not answer)))
    if not asked:
        raise ValueError("--train_data: no document states the answer to its question, so there is nothing to read "
                         "off; give records whose answers stand in their documents, such as SQuAD's")
    rng, passages, weights = random.Random(seed), list(asked), [len(each) for each in asked.values()]
    for _ in range(num_steps):
        step: list[Asked] = []
        while len(step) < batch_size:
            first, = rng.choices(passages, weights)
            near = [other for each in asked[first] for other in each.others if other in asked]
            for passage in dict.fromkeys([first, *rng.sample(near, min(NEAR_PASSAGES, len(near)))]):
                step += rng.sample(asked[passage], min(MOST_OF_A_PASSAGE, len(asked[passage])))
        yield step[:batch_size]


def _numbered(rng: random.Random, record: Record, documents: Sequence[str], number: int) -> Record:
    return Record(f"{record.id}-{number}", record.query, tuple(rng.sample(documents, len(documents))), record.answer,
                  record.answers)
