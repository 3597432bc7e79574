"""Training batches of the embedded generator: many questions to one reading of their documents.

A row is a tree of segments: the prompt's head with the documents is the trunk, and each question with its answer a
branch that sees the trunk and itself alone. So eight questions cost one reading, and each sees exactly what it will
see when it is asked alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import torch
from transformers import PreTrainedTokenizerBase

from scaledown.data.synthetic import KINDS, Difficulty, Document, Question, World
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


@dataclass
class Row:
    """Token ids with, for each, its position, its segment, and whether the loss is the answer's or the text's."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)
    texts: list[bool] = field(default_factory=list)

    def add(self, ids: list[int], start: int, segment: int, answer: bool = False, text: bool = False) -> int:
        """Append ``ids`` to ``segment`` from position ``start`` on; returns the position after them."""
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.segments += [segment] * len(ids)
        self.answers += [answer] * len(ids)
        self.texts += [text] * len(ids)
        return start + len(ids)


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
        """Batch ``number``: ids, positions, next ids and the two loss masks, (B, T) each, and the mask (B, 1, T, T)."""
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
        row, position = Row(), 0
        if world.rng.random() < mixture.no_document_share:
            documents, questions = [], [self._unanswerable(world)]
        else:
            documents, questions = world.context(mixture.difficulty, mixture.num_questions)
        head = self.prompt.trunk([])
        trunk = self.prompt.trunk([self.encode(document.text) for document in documents])
        row.add(head, 0, 0)
        position = row.add(trunk[len(head):], len(head), 0, text=True)
        for branch, question in enumerate(questions, start=1):
            cloze = self._cloze(world, mixture, documents, question)
            asked = self.newline + self.encode(cloze) if cloze else self.prompt.branch(question.text)
            start = row.add(asked, position, branch, text=True)
            row.add(self.encode(question.answer) + [self.prompt.end_id] * (not cloze), start, branch, answer=True)
        return row

    def _name_list(self, world: World) -> Row:
        row, is_repeated = Row(), False
        kinds = [kind.name for kind in KINDS if kind.name != "town"]
        names = [self.encode(world.name(world.rng.choice(kinds))) for _ in range(world.rng.randint(3, 8))]
        while len(row.ids) < NAME_LIST_TOKENS:
            for name in world.rng.sample(names, len(names)):
                row.add(name[:1], len(row.ids), 0, text=True)
                row.add(name[1:], len(row.ids), 0, answer=is_repeated, text=not is_repeated)
                row.add(self.newline, len(row.ids), 0, text=True)
            is_repeated = True
        return row

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
        row, segment = Row(), 0
        while len(row.ids) + 100 < room or not row.ids:
            documents, questions = world.context(mixture.difficulty)
            gold = documents[questions[0].gold[-1]]
            answer = questions[0].answer
            if len(questions[0].gold) > 1 or world.rng.random() < 0.25:
                gold, answer = documents[(questions[0].gold[-1] + 1) % len(documents)], UNKNOWN
                if len(documents) == 1 or len(questions[0].gold) > 1:
                    continue
            segment -= 1
            start = row.add(self.encode(questions[0].text) + self.newline, 0, segment)
            start = row.add(self.encode(gold.text), start, segment, text=True)
            start = row.add(self.prompt.reply, start, segment)
            row.add(self.encode(answer) + [self.prompt.end_id], start, segment, answer=True)
        return row

    def _unanswerable(self, world: World) -> Question:
        kind = world.rng.choice(KINDS)
        return Question(world.ask(world.entity(kind), world.rng.choice(kind.relations)), UNKNOWN, ())


def collate(rows: list[Row]) -> dict[str, torch.Tensor]:
    """Pad ``rows`` and build the masks. Segment 0 is the trunk; positive segments see it, negative ones do not."""
    length = max(len(row.ids) for row in rows)

    def padded(values: list[list], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (length - len(row)) for row in values])

    ids = padded([row.ids for row in rows], 0)
    segments = padded([row.segments for row in rows], 10_000)
    key, query = segments[:, None, :], segments[:, :, None]
    visible = ((key == query) | ((key == 0) & (query > 0))) & torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    next_ids = torch.cat([ids[:, 1:], torch.zeros_like(ids[:, :1])], dim=1)
    same = torch.cat([segments[:, 1:] == segments[:, :-1], torch.zeros(len(rows), 1, dtype=torch.bool)], dim=1)
    answers = torch.roll(padded([row.answers for row in rows], 0).bool(), -1, dims=1) & same
    texts = torch.roll(padded([row.texts for row in rows], 0).bool(), -1, dims=1) & same
    return {"input_ids": ids, "position_ids": padded([row.positions for row in rows], 0), "mask": mask[:, None],
            "next_ids": next_ids, "answers": answers, "texts": texts}
