"""The demo world: documents, questions and answers generated from a seed, so that everything runs offline.

The facts of its entities (people, towns, works, firms) are drawn anew for each example, so that no answer can be known
without its document. Names are of the training or of the evaluation half, so that no entity is in both.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from scaledown.data.records import Record
from scaledown.data.world.naming import Names, possessive_of
from scaledown.data.world.wordings import KINDS, Kind, Relation

SHORTEST_DOCUMENT_WORDS = 35
"""The fewest words of a document with fillers: at least 40 tokens of the demo tokenizer."""
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
    """A text about one entity, and the relations that it states, in the order of the text."""

    text: str
    entity: Entity
    stated: tuple[Relation, ...]


@dataclass(frozen=True)
class Question:
    """A question, its answer, and the places of the gold documents in the context."""

    text: str
    answer: str
    gold: tuple[int, ...]


@dataclass(frozen=True)
class Difficulty:
    """The settings of an example: its size, and how alike its documents are.

    Attributes:
        num_documents: fewest and most documents.
        num_facts: fewest and most facts in a document.
        hard_share: chance that all documents are hard negatives of one another: of one kind, with the same relations.
        two_hop_share: chance that the question leads through two documents.
        similar_share: chance that a document of the first one's kind has a name that shares a word with its name.
        num_wordings: number of each relation's statements in use.
        fillers: add sentences without facts.
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


DEFAULT_DIFFICULTY = Difficulty()


class World(Names):
    """Draws entities, documents and questions, beside names, of one split from ``rng``."""

    def entity(self, kind: Kind, name: str | None = None) -> Entity:
        """Return a new entity with all its facts drawn."""
        facts = {relation.name: self.value(relation.value) for relation in kind.relations}
        return Entity(name or self.name(kind.name), kind, facts, self.rng.choice(kind.pronouns))

    def document(self, entity: Entity, stated: list[Relation], difficulty: Difficulty) -> Document:
        """Return a text that states the given relations of ``entity`` in random order."""
        # The first sentence names the entity; later ones often point back to it by a pronoun.
        order = self.rng.sample(stated, len(stated))
        sentences = []
        for place, relation in enumerate(order):
            is_named = place == 0 or self.rng.random() < 0.4
            sentences.append(self._statement(entity, relation, difficulty.num_wordings, is_named))

        # Fillers stand anywhere but in front, and lengthen a document of few facts to at least five sentences.
        if difficulty.fillers:
            fillers = self.rng.sample(entity.kind.fillers, len(entity.kind.fillers))
            num_fillers = max(self.rng.randint(0, 2), 5 - len(sentences))
            while num_fillers > 0 or sum(len(sentence.split()) for sentence in sentences) < SHORTEST_DOCUMENT_WORDS:
                sentences.insert(self.rng.randint(1, len(sentences)), fillers.pop())
                num_fillers -= 1

        text = " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
        return Document(text, entity, tuple(order))

    def _statement(self, entity: Entity, relation: Relation, num_wordings: int, is_named: bool) -> str:
        """Return a sentence that states ``relation`` of ``entity``, by its name or a pronoun."""
        subject, possessive = (entity.name, possessive_of(entity.name)) if is_named else entity.pronoun
        value = entity.facts[relation.name]
        template = self.rng.choice(relation.statements[:num_wordings])
        if value[0] in "aeiou":
            template = template.replace(" a {v}", " an {v}")
        return template.format(s=subject, p=possessive, v=value)

    def ask(self, entity: Entity, relation: Relation, subject: str | None = None) -> str:
        """Return a question for ``relation`` of ``entity``, which is called ``subject`` (default: its name)."""
        subject = subject or entity.name
        text = self.rng.choice(relation.questions).format(s=subject, p=possessive_of(subject))
        return text[0].upper() + text[1:]

    def context(self, difficulty: Difficulty, num_questions: int = 1) -> tuple[list[Document], list[Question]]:
        """Return documents in random order, and different questions that they answer (fewer if they state too little).

        A two-hop context has a single question, whatever ``num_questions`` is.
        """
        rng = self.rng
        num_documents = rng.randint(*difficulty.num_documents)
        if num_documents >= 2 and rng.random() < difficulty.two_hop_share:
            return self._two_hop(difficulty, num_documents)

        documents = self._documents(difficulty, num_documents, rng.choice(KINDS))
        rng.shuffle(documents)

        # Any fact that any document states can be asked for.
        facts: list[tuple[int, Relation]] = []
        for place, document in enumerate(documents):
            facts += [(place, relation) for relation in document.stated]
        questions = []
        for place, relation in rng.sample(facts, min(num_questions, len(facts))):
            entity = documents[place].entity
            questions.append(Question(self.ask(entity, relation), entity.facts[relation.name], (place,)))
        return documents, questions

    def _documents(self, difficulty: Difficulty, count: int, kind: Kind, taken: Collection[str] = ()) -> list[Document]:
        """Return ``count`` documents about entities of different names, the first of them of ``kind``.

        None but the first has a name that is ``taken``.
        """
        rng = self.rng
        is_hard = rng.random() < difficulty.hard_share
        num_facts = rng.randint(*difficulty.num_facts)
        stated = rng.sample(kind.relations, num_facts)
        documents: list[Document] = []
        names: set[str] = set()
        while len(documents) < count:
            # Hard negatives share kind and relations with the first document; others are drawn on their own.
            if not is_hard and documents:
                kind = rng.choice(KINDS)
                stated = rng.sample(kind.relations, rng.randint(*difficulty.num_facts))

            # A name is drawn again if it is taken: two entities of one name would contradict each other.
            has_same_kind = bool(documents) and kind is documents[0].entity.kind
            if has_same_kind and rng.random() < difficulty.similar_share:
                name = self.similar_name(documents[0].entity.name, kind.name)
            else:
                name = self.name(kind.name)
            if name not in names and not (documents and name in taken):
                names.add(name)
                documents.append(self.document(self.entity(kind, name), stated, difficulty))
        return documents

    def _two_hop(self, difficulty: Difficulty, count: int) -> tuple[list[Document], list[Question]]:
        """Return documents of which two form a chain, and the question that leads through both.

        One states whose employee Oda Velm is, the other is about that firm, and the question asks for a fact of "the
        employer of Oda Velm".
        """
        rng = self.rng

        # The relation of the first hop has an entity as its value.
        links: list[tuple[Kind, Relation]] = []
        for kind in KINDS:
            links += [(kind, relation) for relation in kind.relations if relation.value in ("person", "town", "firm")]
        kind, link = rng.choice(links)

        # The first half of the documents begins with the one that states this link.
        documents = self._documents(difficulty, (count + 1) // 2, kind)
        if link not in documents[0].stated:
            documents[0] = self.document(documents[0].entity, [link, *documents[0].stated[1:]], difficulty)

        # The entity that the link names gets a document of its own: another draw, if there is one of that name.
        names = {document.entity.name for document in documents}
        while documents[0].entity.facts[link.name] in names:
            facts = documents[0].entity.facts | {link.name: self.value(link.value)}
            start = replace(documents[0].entity, facts=facts)
            documents[0] = self.document(start, list(documents[0].stated), difficulty)
        start = documents[0].entity
        names.add(start.facts[link.name])

        # The other half begins with the document about the entity that the link names, which takes the place of one
        # drawn at random.
        target_kind = next(kind for kind in KINDS if kind.name == link.value)
        others = self._documents(difficulty, count // 2, target_kind, names)
        asked = rng.choice(others[0].stated)
        target = self.entity(target_kind, start.facts[link.name])
        others[0] = self.document(target, list(others[0].stated), difficulty)

        # order[place] is the number, in both halves together, of the document that moves to ``place``.
        order = list(range(count))
        rng.shuffle(order)
        gold = (order.index(0), order.index(len(documents)))  # the first document of each half
        both_halves = documents + others
        shuffled = [both_halves[number] for number in order]

        text = self.ask(target, asked, subject=f"the {link.noun} of {start.name}")
        return shuffled, [Question(text, target.facts[asked.name], gold)]


def synthetic_records(num_examples: int, seed: int = 42, split: str = "train",
                      difficulty: Difficulty | None = None) -> Iterator[Record]:
    """Yield records of the demo world, one question each.

    Their ``reranking_scores`` are the relevance, known by construction, on the scale of a cross-encoder's logits:
    high for the documents that answer, low for others of the same kind, lowest for the rest.
    """
    world = World(random.Random(f"{split}-{seed}"), split)
    for number in range(num_examples):
        documents, [question] = world.context(difficulty or DEFAULT_DIFFICULTY)
        name = f"synthetic-{split}-{seed}-{number}"

        # The last gold document states the answer; others of its kind are hard negatives.
        kind = documents[question.gold[-1]].entity.kind
        scores = [HARD_SCORE if document.entity.kind is kind else EASY_SCORE for document in documents]
        for place in question.gold:
            scores[place] = GOLD_SCORE

        yield Record(
            id=name, query=question.text, documents=tuple(document.text for document in documents),
            answer=question.answer, answers=(question.answer,), reranking_scores=tuple(scores),
            document_ids=tuple(f"{name}-{place}" for place in range(len(documents))),
            titles=tuple(document.entity.name for document in documents))
