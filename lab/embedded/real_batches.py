"""Training batches of real records, such as ``prepare_small_real_dataset.py`` makes.

Records have their hard negatives from one pool, so what is a negative for one question answers another: a row asks
all questions that any of its documents answers, and reads the documents once.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import PreTrainedTokenizerBase

from lab.embedded.blanks import blank
from lab.embedded.rows import Row, add_query_first, collate, plain_row, repeated_list
from lab.embedded.world_batches import UNKNOWN
from scaledown.data.answers import holds_answer, padded
from scaledown.data.records import Record
from scaledown.prompt import Prompt, plain_ids

LIST_TOKENS = 128
CLOZE_WORDS = 4
UNKNOWN_SHARE = 0.25


@dataclass(frozen=True)
class RealMixture:
    """What a batch is made of.

    Attributes:
        num_documents: fewest and most documents of a row, one of them gold for its first question.
        list_share: share of rows that list pieces of text again and again.
        query_first_share: share of rows in the compressor's order.
        cloze_share: share of the questions that become a piece of a document, to be continued word by word.
        num_blanks: questions that are added to a row, each made of a sentence of its documents: see :func:`blank`.
        num_questions: most questions of a row.
        tokens: so many, or a little more, make a batch.
    """

    num_documents: tuple[int, int]
    list_share: float = 0.0
    query_first_share: float = 0.2
    cloze_share: float = 0.0
    num_blanks: int = 0
    num_questions: int = 12
    tokens: int = 2048


@dataclass(frozen=True)
class Asked:
    """A question with its answer, the document that holds it, and the others of its record."""

    query: str
    answer: str
    gold: str
    others: tuple[str, ...]


class RecordBatches:
    """Draws batches from records; a batch depends on nothing but the seed, the records and its number.

    Attributes:
        num_left_out: records none of whose documents holds their answer, as where it is yes or no.

    Raises:
        ValueError: where that leaves none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, records: Sequence[Record], seed: int) -> None:
        self.seed, self.prompt = seed, Prompt(tokenizer)
        self.encode = lru_cache(maxsize=1 << 17)(lambda text: plain_ids(tokenizer, [text])[0])
        self.newline = self.encode("\n")
        self.asked = [asked for record in records if (asked := _with_gold(record)) is not None]
        self.num_left_out = len(records) - len(self.asked)
        if not self.asked:
            raise ValueError(f"no document of the {len(records)} records holds its record's answer: nothing to learn")
        self._of_document: dict[str, list[Asked]] = defaultdict(list)
        for asked in self.asked:
            self._of_document[asked.gold].append(asked)

    def batch(self, number: int, mixture: RealMixture) -> dict[str, torch.Tensor]:
        """Batch ``number``, as :func:`collate` gives it; all its rows have one number of documents."""
        rng = random.Random(f"{self.seed}-{number}")
        count = rng.randint(*mixture.num_documents)
        rows: list[Row] = []
        while sum(len(row.ids) for row in rows) < mixture.tokens:
            if rng.random() < mixture.list_share:
                rows.append(self._list(rng))
            elif rng.random() < mixture.query_first_share:
                rows.append(self._query_first(rng, mixture, max((len(row.ids) for row in rows), default=0)))
            else:
                rows.append(self._plain(rng, mixture, count))
        return collate(rows)

    def _plain(self, rng: random.Random, mixture: RealMixture, count: int) -> Row:
        first = rng.choice(self.asked)
        documents = [first.gold, *rng.sample(first.others, min(count - 1, len(first.others)))]
        rng.shuffle(documents)
        more = [asked for document in dict.fromkeys(documents) for asked in self._of_document[document]
                if asked is not first]
        questions = [first, *rng.sample(more, min(mixture.num_questions - 1, len(more)))]
        branches = [self._cloze(rng, rng.choice(documents)) if rng.random() < mixture.cloze_share
                    else self._branch(asked.query, asked.answer) for asked in questions]
        made_up = (blank(rng, rng.choice(documents)) for _ in range(mixture.num_blanks))
        branches += [self._branch(*each) for each in made_up if each is not None]
        return plain_row(self.prompt, [self.encode(document) for document in documents], branches)

    def _cloze(self, rng: random.Random, document: str) -> tuple[list[int], list[int]]:
        """Some words of a document, and those that follow them there."""
        words = document.split()
        start = rng.randrange(max(1, len(words) - 2 * CLOZE_WORDS + 1))
        middle = start + min(CLOZE_WORDS, max(1, len(words) // 2))
        before, after = " ".join(words[start:middle]), " ".join(words[middle:middle + rng.randint(1, CLOZE_WORDS)])
        return self.newline + self.encode(before), self.encode(after)

    def _list(self, rng: random.Random) -> Row:
        documents = [rng.choice(self.asked).gold.split() for _ in range(rng.randint(3, 8))]
        starts = [rng.randrange(max(1, len(words) - CLOZE_WORDS + 1)) for words in documents]
        pieces = [self.encode(" ".join(words[start:start + rng.randint(2, CLOZE_WORDS)]))
                  for words, start in zip(documents, starts, strict=True)]
        return repeated_list(rng, pieces, self.newline, LIST_TOKENS)

    def _query_first(self, rng: random.Random, mixture: RealMixture, room: int) -> Row:
        """Questions before one document each; "unknown" where it does not answer. Half are made up where others are."""
        row = Row()
        while not row.ids or len(row.ids) + 100 < room:
            asked = rng.choice(self.asked)
            query, document, answer = asked.query, asked.gold, asked.answer
            if mixture.num_blanks and rng.random() < 0.5 and (made_up := blank(rng, document)):
                query, answer = made_up
            if asked.others and rng.random() < UNKNOWN_SHARE:
                document, answer = rng.choice(asked.others), UNKNOWN
            add_query_first(row, self.encode(query) + self.newline, self.encode(document), self.prompt.reply,
                            self._answer(answer))
        return row

    def _branch(self, query: str, answer: str) -> tuple[list[int], list[int]]:
        return self.prompt.branch(query), self._answer(answer)

    def _answer(self, answer: str) -> list[int]:
        return self.encode(answer) + [self.prompt.end_id]


def _with_gold(record: Record) -> Asked | None:
    """The record by its first document that holds an answer; None where none does."""
    wanted = [answer for each in record.references if (answer := padded(each)).strip()]
    gold = [place for place, text in enumerate(record.documents) if holds_answer(padded(text), wanted)]
    if not gold:
        return None
    others = tuple(text for place, text in enumerate(record.documents) if place not in gold)
    return Asked(record.query, record.answer, record.documents[gold[0]], others)
