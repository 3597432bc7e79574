"""The embedded world: documents, questions and answers made from a seed, so that everything runs offline.

Entities of four kinds (people, towns, works, firms) have facts drawn anew for each example, so that no answer can
be known without its document. A name belongs for good to the training or the evaluation half, by a hash of its
letters: evaluation speaks of entities never seen in training.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from scaledown.data.records import Record
from scaledown.data.world import wordings
from scaledown.data.world.wordings import KINDS, Kind, Relation

SPLITS = ("train", "eval")
EVAL_SHARE = 5
SHORTEST_WORDS = 35
"""With fillers no document has fewer words: 40 tokens of the embedded tokenizer, or a little more."""
MOST_DOCUMENTS = 100
"""The evaluation half has names for 119 works, and no two documents of an example share a name."""
GOLD_SCORE, HARD_SCORE, EASY_SCORE = 6.0, -3.0, -8.0


@dataclass(frozen=True)
class Entity:
    """One entity of one example, with the value of each of its relations."""

    name: str
    kind: Kind
    facts: dict[str, str]
    pronoun: tuple[str, str]


@dataclass(frozen=True)
class Document:
    """A text about one entity, and the relations that it states."""

    text: str
    entity: Entity
    stated: tuple[Relation, ...]


@dataclass(frozen=True)
class Question:
    """A question, its answer, and the places (in the context's documents) of those that answer it."""

    text: str
    answer: str
    gold: tuple[int, ...]


@dataclass(frozen=True)
class Difficulty:
    """What an example is drawn from: how many documents, facts in each, and how alike they are.

    ``hard_share`` is the chance that all documents of an example are hard negatives of one another: one kind, the
    same relations. ``two_hop_share`` is the chance that the question goes through two documents, ``similar_share``
    that a document of the same kind has a name that shares a word with the first one's. ``num_wordings`` is how
    many of each relation's statements are in use.
    """

    num_documents: tuple[int, int] = (5, 5)
    num_facts: tuple[int, int] = (3, 6)
    hard_share: float = 0.5
    two_hop_share: float = 0.05
    similar_share: float = 0.3
    num_wordings: int = 6
    fillers: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.num_documents[0] <= self.num_documents[1] <= MOST_DOCUMENTS:
            raise ValueError(f"--num_documents must be between 1 and {MOST_DOCUMENTS}, got {self.num_documents[1]}")


def possessive_of(name: str) -> str:
    """``name`` as an owner: "Oda Velm's", "Stein Mills'"."""
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def of_split(name: str, split: str) -> bool:
    """Whether ``name`` belongs to ``split``: one name in five is the evaluation's, whatever the seed."""
    return (zlib.crc32(name.encode()) % EVAL_SHARE == 0) == (split == "eval")


class World:
    """Draws names, entities, documents and questions of one split from ``rng``."""

    def __init__(self, rng: random.Random, split: str = "train") -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        self.rng, self.split = rng, split

    def name(self, kind: str) -> str:
        """A name of this split for a ``person``, ``town``, ``work``, ``firm`` or ``river``."""
        pick = self.rng.choice
        while True:
            if kind == "person":
                first = pick(wordings.FIRST_HEADS) + pick(wordings.FIRST_TAILS)
                name = f"{first} {pick(wordings.NAME_HEADS)}{pick(wordings.FAMILY_TAILS)}"
            elif kind == "work":
                name = f"The {pick(wordings.WORK_HEADS)} {pick(wordings.WORK_TAILS)}"
            elif kind == "firm":
                name = f"{pick(wordings.NAME_HEADS)}{pick(wordings.FAMILY_TAILS)} {pick(wordings.FIRM_TAILS)}"
            else:
                tails = wordings.TOWN_TAILS if kind == "town" else wordings.RIVER_TAILS
                name = pick(wordings.NAME_HEADS) + pick(tails)
            if of_split(name, self.split):
                return name

    def value(self, kind: str) -> str:
        """A value of the given kind: a name, a word from a list, a date, a year, a number or an amount."""
        rng = self.rng
        if kind == "date":
            return f"{rng.randint(1, 28)} {rng.choice(wordings.MONTHS)} {rng.randint(1700, 1999)}"
        if kind in (ranges := {"year": (1500, 1999), "count": (100, 999), "pages": (100, 999)}):
            return str(rng.randint(*ranges[kind]))
        if kind == "amount":
            return f"{rng.randint(11, 999)} {rng.choice(('crowns', 'thalers', 'ducats', 'florins'))}"
        lists = {"profession": wordings.PROFESSIONS, "instrument": wordings.INSTRUMENTS, "genre": wordings.GENRES,
                 "product": wordings.PRODUCTS, "month": wordings.MONTHS}
        return rng.choice(lists[kind]) if kind in lists else self.name(kind)

    def entity(self, kind: Kind, name: str | None = None) -> Entity:
        """A new entity with all its facts drawn."""
        facts = {relation.name: self.value(relation.value) for relation in kind.relations}
        return Entity(name or self.name(kind.name), kind, facts, self.rng.choice(kind.pronouns))

    def similar_name(self, name: str, kind: str) -> str:
        """Another name of the same kind that shares a word with ``name`` where kinds have such names."""
        first, _, rest = name.rpartition(" ")
        for _ in range(20):
            other = self.name(kind)
            candidate = f"{first} {other.rpartition(' ')[2]}" if first else other
            if candidate != name and of_split(candidate, self.split):
                return candidate
        return self.name(kind)

    def document(self, entity: Entity, stated: list[Relation], difficulty: Difficulty) -> Document:
        """A text that states the given relations of ``entity`` in any order; later sentences often point back."""
        order = self.rng.sample(stated, len(stated))
        sentences = [self._statement(entity, relation, difficulty.num_wordings, place == 0 or self.rng.random() < 0.4)
                     for place, relation in enumerate(order)]
        if difficulty.fillers:
            fillers = self.rng.sample(entity.kind.fillers, len(entity.kind.fillers))
            num_fillers = max(self.rng.randint(0, 2), 5 - len(sentences))
            while num_fillers > 0 or sum(len(sentence.split()) for sentence in sentences) < SHORTEST_WORDS:
                sentences.insert(self.rng.randint(1, len(sentences)), fillers.pop())
                num_fillers -= 1
        return Document(" ".join(sentence[0].upper() + sentence[1:] for sentence in sentences), entity, tuple(order))

    def _statement(self, entity: Entity, relation: Relation, num_wordings: int, named: bool) -> str:
        subject, possessive = (entity.name, possessive_of(entity.name)) if named else entity.pronoun
        value = entity.facts[relation.name]
        template = self.rng.choice(relation.statements[:num_wordings])
        if value[0] in "aeiou":
            template = template.replace(" a {v}", " an {v}")
        return template.format(s=subject, p=possessive, v=value)

    def ask(self, entity: Entity, relation: Relation, subject: str | None = None) -> str:
        """A question for ``relation`` of ``entity``, which is called ``subject`` (its name, unless given)."""
        subject = subject or entity.name
        text = self.rng.choice(relation.questions).format(s=subject, p=possessive_of(subject))
        return text[0].upper() + text[1:]

    def context(self, difficulty: Difficulty, num_questions: int = 1) -> tuple[list[Document], list[Question]]:
        """Documents in random order, and different questions that they answer (fewer where they state too little)."""
        rng = self.rng
        num_documents = rng.randint(*difficulty.num_documents)
        if num_documents >= 2 and rng.random() < difficulty.two_hop_share:
            return self._two_hop(difficulty, num_documents)
        documents = self._documents(difficulty, num_documents, rng.choice(KINDS))
        rng.shuffle(documents)
        facts = [(place, relation) for place, document in enumerate(documents) for relation in document.stated]
        asked = rng.sample(facts, min(num_questions, len(facts)))
        return documents, [
            Question(self.ask(documents[place].entity, relation),
                     documents[place].entity.facts[relation.name], (place,)) for place, relation in asked]

    def _documents(self, difficulty: Difficulty, count: int, kind: Kind) -> list[Document]:
        rng = self.rng
        hard = rng.random() < difficulty.hard_share
        num_facts = rng.randint(*difficulty.num_facts)
        stated = rng.sample(kind.relations, num_facts)
        documents: list[Document] = []
        names: set[str] = set()
        while len(documents) < count:
            if not hard and documents:
                kind = rng.choice(KINDS)
                stated = rng.sample(kind.relations, rng.randint(*difficulty.num_facts))
            alike = bool(documents) and kind is documents[0].entity.kind and rng.random() < difficulty.similar_share
            name = self.similar_name(documents[0].entity.name, kind.name) if alike else self.name(kind.name)
            if name in names:
                continue
            names.add(name)
            documents.append(self.document(self.entity(kind, name), stated, difficulty))
        return documents

    def _two_hop(self, difficulty: Difficulty, count: int) -> tuple[list[Document], list[Question]]:
        """Documents of which two are a chain: the first one's value is the entity that the second is about."""
        rng = self.rng
        links = [(kind, relation) for kind in KINDS for relation in kind.relations
                 if relation.value in ("person", "town", "firm")]
        kind, link = rng.choice(links)
        first = self._documents(difficulty, (count + 1) // 2, kind)
        if link not in first[0].stated:
            first[0] = self.document(first[0].entity, [link, *first[0].stated[1:]], difficulty)
        bridge = next(other for other in KINDS if other.name == link.value)
        second = self._documents(difficulty, count // 2, bridge)
        target = rng.choice(second[0].stated)
        entity = self.entity(bridge, first[0].entity.facts[link.name])
        second[0] = self.document(entity, list(second[0].stated), difficulty)
        documents = [*first, *second]
        gold = (documents[0], documents[len(first)])
        rng.shuffle(documents)
        text = self.ask(entity, target, subject=f"the {link.noun} of {gold[0].entity.name}")
        places = tuple(next(i for i, document in enumerate(documents) if document is one) for one in gold)
        return documents, [Question(text, entity.facts[target.name], places)]


def synthetic_records(num_examples: int, seed: int = 42, split: str = "train",
                      difficulty: Difficulty | None = None) -> Iterator[Record]:
    """Records of the embedded world, one question each.

    Their ``reranking_scores`` are relevance as known by construction, on the scale of a cross-encoder's logits:
    high for the documents that answer, low for those of the same kind, lowest for the others.
    """
    world = World(random.Random(f"{split}-{seed}"), split)
    difficulty = difficulty or Difficulty()
    for number in range(num_examples):
        documents, questions = world.context(difficulty)
        question = questions[0]
        kind = documents[question.gold[-1]].entity.kind
        yield Record(
            id=f"synthetic-{split}-{seed}-{number}",
            query=question.text,
            documents=tuple(document.text for document in documents),
            answer=question.answer,
            answers=(question.answer,),
            reranking_scores=tuple(
                GOLD_SCORE if place in question.gold else HARD_SCORE if document.entity.kind is kind else EASY_SCORE
                for place, document in enumerate(documents)),
            document_ids=tuple(f"synthetic-{split}-{seed}-{number}-{place}" for place in range(len(documents))),
            titles=tuple(document.entity.name for document in documents),
        )
