"""Lessons for a compressor that reads the document first: a step's questions are about few passages.

A passage is read once a step, however many questions follow it. In SQuAD people have written about five to a passage,
so reading one more question costs a quarter of reading it alone. Passages that are easily mistaken for each other come
in the same step: each is then a hard negative for the questions of the others, at the cost of the question alone.
"""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scaledown.data.answers import padded
from scaledown.data.records import Record
from scaledown.models.processor.training_targets import UNSTATED

MOST_OF_A_PASSAGE = 8
"""Questions about one passage in a step, at most."""
NEAR_PASSAGES = 3
"""Passages of a step that stand beside another one in its questions' records, without answering them."""
RELEVANT, IRRELEVANT = 3.0, -3.0
"""Scores to train on: of the passage that states the answer, and of the others."""


class Asked(NamedTuple):
    """A record, the passage that states its answer, and those of its documents that do not."""

    record: Record
    passage: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Lesson:
    """The choice of a question's documents.

    Attributes:
        num_documents: numbers of documents, one of which is drawn for each question.
        unanswered_share: share of the questions whose documents leave out the passage that states the answer; the
            answer is then ``UNSTATED``.
        own_share: share of the other documents that come from the question's own record, read for it alone. The rest
            are passages that the step reads anyway.
    """

    num_documents: Sequence[int]
    unanswered_share: float = 0.0
    own_share: float = 0.0


def records_of(lesson: Lesson, records: Sequence[Record], num_steps: int, batch_size: int, seed: int) -> list[Record]:
    """Return the records of ``num_steps`` steps, in the order of training.

    Every question comes once before any comes again.

    Raises:
        ValueError: if no document states an answer.
    """
    rng, made = random.Random(f"documents-{seed}"), []
    for step in _steps(records, num_steps, batch_size, seed):
        passages = list(dict.fromkeys(asked.passage for asked in step))
        words = {passage: padded(passage) for passage in passages}
        for asked in step:
            made.append(_record(rng, lesson, asked, words, len(made)))
    return made


def _steps(records: Sequence[Record], num_steps: int, batch_size: int, seed: int) -> Iterator[list[Asked]]:
    """Yield the questions of each step: those of a passage, of passages near it, then of another one."""
    rng = random.Random(f"steps-{seed}")
    asked = _by_passage(records)
    waiting: list[Asked] = []
    left: dict[str, list[Asked]] = {}

    for _ in range(num_steps):
        while len(waiting) < batch_size:
            # Every passage has been asked about: start again, in another order.
            if not left:
                passages = rng.sample(sorted(asked), len(asked))
                left = {passage: rng.sample(asked[passage], len(asked[passage])) for passage in passages}

            first = next(iter(left))
            near = _near(left, first)
            for passage in [first, *rng.sample(near, min(NEAR_PASSAGES, len(near)))]:
                waiting += left[passage][:MOST_OF_A_PASSAGE]
                left[passage] = left[passage][MOST_OF_A_PASSAGE:]
                if not left[passage]:
                    del left[passage]
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def _near(left: Mapping[str, Sequence[Asked]], passage: str) -> list[str]:
    """Return the passages in ``left`` that stand beside ``passage`` in its questions' records."""
    near: dict[str, None] = {}
    for asked in left[passage]:
        near.update(dict.fromkeys(other for other in asked.others if other in left))
    return list(near)


def _by_passage(records: Sequence[Record]) -> dict[str, list[Asked]]:
    asked: dict[str, list[Asked]] = defaultdict(list)
    for record in records:
        stated = list(zip(record.documents, record.stated_answers, strict=True))
        passage = next((document for document, answer in stated if answer), None)
        if passage is not None:
            others = tuple(document for document, answer in stated if not answer)
            asked[passage].append(Asked(record, passage, others))
    if not asked:
        raise ValueError("--train_data: no document states the answer to its question, so there is nothing to learn; "
                         "give records whose answers stand in their documents, such as SQuAD's")
    return asked


def _states(words: str, answers: Sequence[str]) -> bool:
    """Return whether a passage states one of the answers; all are padded with spaces, so that whole words match."""
    return any(answer in words for answer in answers if answer.strip())


def _record(rng: random.Random, lesson: Lesson, asked: Asked, step: dict[str, str], number: int) -> Record:
    """Return the question of ``asked`` with its documents.

    Args:
        step: the passages that the step reads, each with its words as answers are looked for.
        number: of the record.
    """
    is_answered = rng.random() >= lesson.unanswered_share
    wanted = [padded(answer) for answer in asked.record.references]
    # Passages near this one first: those of the record, then any of the step; none that states the answer.
    free = [passage for passage, words in step.items() if not _states(words, wanted)]
    rng.shuffle(free)
    free.sort(key=lambda passage: passage not in asked.others)
    own = [document for document in asked.others if document not in step]

    others: list[str] = []
    num_others = rng.choice(lesson.num_documents) - is_answered
    while len(others) < num_others and (free or own):
        from_own = own and (not free or rng.random() < lesson.own_share)
        others.append(own.pop(0) if from_own else free.pop(0))

    documents = [asked.passage, *others] if is_answered else others
    rng.shuffle(documents)
    scores = tuple(RELEVANT if document == asked.passage else IRRELEVANT for document in documents)
    answer, answers = (asked.record.answer, asked.record.answers) if is_answered else (UNSTATED, (UNSTATED,))
    return dataclasses.replace(asked.record, id=f"{asked.record.id}-{number}", documents=tuple(documents),
                               answer=answer, answers=answers, reranking_scores=scores, document_ids=None, titles=None)
