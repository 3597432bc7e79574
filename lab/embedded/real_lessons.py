"""Lessons that real records make for a compressor, easy ones first: phrases, sentences, passages.

On whole passages and real questions a compressor that knows nothing learns to guess from the question, and stays
there. What a few words say it learns to hand on within some hundred steps, and builds on it (lab/LOG.md).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lab.embedded.blanks import SENTENCE_END, blank
from scaledown.data.answers import holds_answer, padded
from scaledown.data.records import Record

PHRASE_WORDS = (3, 9)
SENTENCE_WORDS = (6, 40)
LONGEST_CONTINUED = 4
TRIES = 1000
"""Draws in a row that make no question, before the records are given up on."""


class Question(NamedTuple):
    """What is asked, the answer, the documents (one states it, others do not), and other wordings of the answer."""

    query: str
    answer: str
    documents: Sequence[str]
    answers: tuple[str, ...] = ()


def phrases(records: Sequence[Record], num_records: int, seed: int) -> list[Record]:
    """One to four phrases; some words of one are asked for by those before them."""
    texts = [document.split() for record in records for document in record.documents]
    texts = [words for words in texts if len(words) > PHRASE_WORDS[1]]

    def draw(rng: random.Random) -> Question | None:
        cut = [_cut(rng, rng.choice(texts)) for _ in range(rng.randint(1, 4))] if texts else [[]]
        found = _continued(rng, cut[0], (1, 2))
        if found is None or any(set(found[0].split()) & set(phrase) for phrase in cut[1:]):
            return None
        return Question(*found, [" ".join(phrase) for phrase in cut])

    return _drawn(draw, "phrases", num_records, seed)


def sentences(records: Sequence[Record], num_records: int, seed: int, blank_share: float = 0.5) -> list[Record]:
    """Two to four sentences of one record's documents; one has a blank, or is to be continued."""
    def draw(rng: random.Random) -> Question | None:
        documents = rng.choice(records).documents
        near = rng.sample(documents, rng.randint(min(1, len(documents)), len(documents)))
        pool = list(dict.fromkeys(sentence for document in near for sentence in SENTENCE_END.split(document)
                                  if SENTENCE_WORDS[0] <= len(sentence.split()) <= SENTENCE_WORDS[1]))
        count = rng.randint(2, 4)
        if len(pool) < count:
            return None
        chosen = rng.sample(pool, count)
        if rng.random() < blank_share:
            return _alone(blank(rng, chosen[0]), chosen)
        found = _continued(rng, chosen[0].split(), (2, 4))
        return Question(*found, chosen) if found and not any(found[0] in other for other in chosen[1:]) else None

    return _drawn(draw, "sentences", num_records, seed)


def passages(records: Sequence[Record], num_records: int, seed: int, num_documents: tuple[int, int],
             blank_share: float) -> list[Record]:
    """Whole documents of one record; a sentence of one has a blank, or the record's own question is asked."""
    def draw(rng: random.Random) -> Question | None:
        record = rng.choice(records)
        count = min(rng.randint(*num_documents), len(record.documents))
        if count and rng.random() < blank_share:
            chosen = rng.sample(record.documents, count)
            return _alone(blank(rng, chosen[0]), chosen)
        wanted = [answer for each in record.references if (answer := padded(each)).strip()]
        holds = [holds_answer(padded(document), wanted) for document in record.documents]
        if True not in holds:
            return None
        others = [document for document, is_gold in zip(record.documents, holds, strict=True) if not is_gold]
        gold = record.documents[holds.index(True)]
        documents = [gold, *rng.sample(others, min(count - 1, len(others)))]
        return Question(record.query, record.answer, documents, record.answers)

    return _drawn(draw, "passages", num_records, seed)


def _drawn(draw: Callable[[random.Random], Question | None], name: str, num_records: int, seed: int) -> list[Record]:
    """So many questions, their documents in random order.

    Raises:
        ValueError: where the text makes none.
    """
    rng = random.Random(f"{name}-{seed}")
    return [_record(rng, _question(draw, rng, name), f"{name}-{seed}-{number}") for number in range(num_records)]


def _question(draw: Callable[[random.Random], Question | None], rng: random.Random, name: str) -> Question:
    for _ in range(TRIES):
        question = draw(rng)
        if question is not None:
            return question
    raise ValueError(f"the documents of --train_data make no {name}: they need sentences of some words each")


def _record(rng: random.Random, question: Question, name: str) -> Record:
    documents = rng.sample(question.documents, len(question.documents))
    return Record(name, question.query, tuple(documents), question.answer, question.answers or (question.answer,))


def _cut(rng: random.Random, words: Sequence[str]) -> Sequence[str]:
    length = rng.randint(*PHRASE_WORDS)
    start = rng.randrange(len(words) - length + 1)
    return words[start:start + length]


def _continued(rng: random.Random, words: Sequence[str], given: tuple[int, int]) -> tuple[str, str] | None:
    """Some of the words, and those that follow them."""
    count = rng.randint(*given)
    if len(words) <= count:
        return None
    start = rng.randrange(len(words) - count)
    rest = words[start + count:start + count + LONGEST_CONTINUED]
    return " ".join(words[start:start + count]), " ".join(rest)


def _alone(found: tuple[str, str] | None, chosen: list[str]) -> Question | None:
    """The question where the first text alone states its answer."""
    if found is None or any(found[1].lower() in other.lower() for other in chosen[1:]):
        return None
    return Question(*found, chosen)
