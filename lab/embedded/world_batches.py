"""Training batches of the embedded world (see :mod:`rows` for how many questions share one reading)."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerBase

from lab.embedded.rows import Row, add_query_first, collate, plain_row, repeated_list
from scaledown.data.world.synthetic import KINDS, Difficulty, Document, Question, World
from scaledown.prompt import Prompt, plain_ids

UNKNOWN = "unknown"
NAME_LIST_TOKENS = 128


@dataclass(frozen=True)
class Mixture:
    """What a batch is made of. Shares are of rows; the rest is plain prompts.

    ``name_list_share`` are lists of names, repeated in other orders: the quickest way to learn that what followed a
    token once follows it again. ``cloze_share`` of the questions become a sentence to be finished ("Oda Velm was born
    in"): there the name stands right before its value, as in the documents.
    """

    difficulty: Difficulty
    query_first_share: float = 0.25
    cloze_share: float = 0.0
    name_list_share: float = 0.0
    no_document_share: float = 0.02
    num_questions: int = 10
    tokens: int = 2048


class BatchMaker:
    """Draws batches of the embedded world; a batch depends on nothing but the seed, the split and its number.

    All rows of a batch have the same number of documents, so that little is spent on padding.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int, split: str) -> None:
        self.seed, self.split = seed, split
        self.prompt = Prompt(tokenizer)
        self.encode = lambda text: plain_ids(tokenizer, [text])[0]
        self.newline = self.encode("\n")

    def batch(self, number: int, mixture: Mixture) -> dict[str, torch.Tensor]:
        """Batch ``number``, as :func:`collate` gives it."""
        rng = random.Random(f"{self.split}-{self.seed}-{number}")
        world = World(rng, self.split)
        rows: list[Row] = []
        count = rng.randint(*mixture.difficulty.num_documents)
        mixture = replace(mixture, difficulty=replace(mixture.difficulty, num_documents=(count, count)))
        while sum(len(row.ids) for row in rows) < mixture.tokens:
            if rng.random() < mixture.name_list_share:
                rows.append(self._name_list(world))
            elif rng.random() < mixture.query_first_share:
                rows.append(self._query_first(world, mixture, max((len(row.ids) for row in rows), default=250)))
            else:
                rows.append(self._plain(world, mixture))
        return collate(rows)

    def _plain(self, world: World, mixture: Mixture) -> Row:
        if world.rng.random() < mixture.no_document_share:
            documents, questions = [], [self._unanswerable(world)]
        else:
            documents, questions = world.context(mixture.difficulty, mixture.num_questions)
        branches = []
        for question in questions:
            cloze = self._cloze(world, mixture, documents, question)
            asked = self.newline + self.encode(cloze) if cloze else self.prompt.branch(question.text)
            branches.append((asked, self.encode(question.answer) + [self.prompt.end_id] * (not cloze)))
        return plain_row(self.prompt, [self.encode(document.text) for document in documents], branches)

    def _name_list(self, world: World) -> Row:
        kinds = [kind.name for kind in KINDS if kind.name != "town"]
        names = [self.encode(world.name(world.rng.choice(kinds))) for _ in range(world.rng.randint(3, 8))]
        return repeated_list(world.rng, names, self.newline, NAME_LIST_TOKENS)

    def _cloze(self, world: World, mixture: Mixture, documents: list[Document], question: Question) -> str | None:
        if len(question.gold) != 1 or world.rng.random() >= mixture.cloze_share:
            return None
        document = documents[question.gold[0]]
        asked = [each for each in document.stated if document.entity.facts[each.name] == question.answer]
        difficulty = replace(mixture.difficulty, fillers=False)
        before, value, _ = world.document(document.entity, asked[:1], difficulty).text.partition(question.answer)
        return before.strip() if value and document.entity.name in before else None

    def _query_first(self, world: World, mixture: Mixture, room: int) -> Row:
        """The compressor's order, query before document; "unknown" where the document does not answer."""
        row = Row()
        while len(row.ids) + 100 < room or not row.ids:
            documents, questions = world.context(mixture.difficulty)
            gold = documents[questions[0].gold[-1]]
            answer = questions[0].answer
            if len(questions[0].gold) > 1 or world.rng.random() < 0.25:
                gold, answer = documents[(questions[0].gold[-1] + 1) % len(documents)], UNKNOWN
                if len(documents) == 1 or len(questions[0].gold) > 1:
                    continue
            add_query_first(row, self.encode(questions[0].text) + self.newline, self.encode(gold.text),
                            self.prompt.reply, self.encode(answer) + [self.prompt.end_id])
        return row

    def _unanswerable(self, world: World) -> Question:
        kind = world.rng.choice(KINDS)
        return Question(world.ask(world.entity(kind), world.rng.choice(kind.relations)), UNKNOWN, ())
