"""The demo world as a ranking task: many candidates a question, few of them relevant, known by construction.

It is hard for the same reasons as real ranking: documents about the right entity that do not state what is asked,
documents that only name it as somebody's birthplace or employer, and documents that state the right thing of another
entity.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from scaledown.data.records import Record
from scaledown.data.world.synthetic import (
    DEFAULT_DIFFICULTY,
    EASY_SCORE,
    GOLD_SCORE,
    HARD_SCORE,
    Document,
    Entity,
    World,
)
from scaledown.data.world.wordings import KINDS, Kind, Relation

NUM_CANDIDATES = 20
MOST_RELEVANT, MOST_SILENT, MOST_MENTIONS = 2, 2, 3
SAME_KIND_SHARE = 0.5
SIMILAR_SHARE = 0.3


def ranking_records(num_examples: int, seed: int = 42, split: str = "train", num_candidates: int = NUM_CANDIDATES,
                    same_kind_share: float = SAME_KIND_SHARE) -> Iterator[Record]:
    """Yield records of ``num_candidates`` documents, of which one or two are relevant.

    Their ``reranking_scores`` tell the relevance, as those of :func:`scaledown.data.world.synthetic.synthetic_records`.

    Args:
        same_kind_share: share of the documents about other entities that state the asked relation of an entity of the
            same kind.
    """
    draw = _Candidates(World(random.Random(f"ranking-{split}-{seed}"), split), same_kind_share)
    for number in range(num_examples):
        entity, asked, documents = draw.question(num_candidates)
        name, answer = f"ranking-{split}-{seed}-{number}", entity.facts[asked.name]
        # Scores, ids and titles stand in the order of the documents.
        yield Record(
            id=name, query=draw.world.ask(entity, asked), documents=tuple(document.text for document in documents),
            answer=answer, answers=(answer,),
            reranking_scores=tuple(_score(document, entity, asked) for document in documents),
            document_ids=tuple(f"{name}-{place}" for place in range(len(documents))),
            titles=tuple(document.entity.name for document in documents))


def qrels_of(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Return the relevance of each candidate (1 or 0) by query and document id.

    The records must have their own scores still, not a teacher's.
    """
    qrels = {}
    for record in records:
        scores = zip(record.document_ids, record.reranking_scores, strict=True)
        qrels[record.id] = {name: int(score == GOLD_SCORE) for name, score in scores}
    return qrels


def _score(document: Document, entity: Entity, asked: Relation) -> float:
    """Return the score of a document: gold, hard if it is of the same kind or names the entity, else easy."""
    if document.entity is entity and asked in document.stated:
        return GOLD_SCORE
    is_near = document.entity.kind is entity.kind or entity.name in document.text
    return HARD_SCORE if is_near else EASY_SCORE


class _Candidates:
    """Draws a question and the documents that a search engine might have found for it."""

    def __init__(self, world: World, same_kind_share: float) -> None:
        self.world, self.rng, self.same_kind_share = world, world.rng, same_kind_share

    def question(self, num_candidates: int) -> tuple[Entity, Relation, list[Document]]:
        """Return an entity, the relation that is asked for, and the candidates in random order."""
        rng = self.rng
        kind = rng.choice(KINDS)
        entity, asked = self.world.entity(kind), rng.choice(kind.relations)

        # The relevant documents.
        num_relevant = rng.randint(1, min(MOST_RELEVANT, num_candidates))
        documents = [self._stating(entity, asked) for _ in range(num_relevant)]

        # Documents that name the entity without the answer, as far as there is room.
        near = [self._silent(entity, asked) for _ in range(rng.randint(0, MOST_SILENT))]
        near += self._mentions(entity)
        documents += rng.sample(near, min(len(near), num_candidates - len(documents)))

        # The rest are about entities of other names.
        names = {document.entity.name for document in documents}
        while len(documents) < num_candidates:
            document = self._other(entity, asked)
            if document.entity.name not in names:
                names.add(document.entity.name)
                documents.append(document)

        rng.shuffle(documents)
        return entity, asked, documents

    def _stating(self, entity: Entity, asked: Relation) -> Document:
        """Return a document that states the relation asked for, among other facts."""
        others = [relation for relation in entity.kind.relations if relation is not asked]
        num_others = self.rng.randint(*DEFAULT_DIFFICULTY.num_facts) - 1
        return self.world.document(entity, [asked, *self.rng.sample(others, num_others)], DEFAULT_DIFFICULTY)

    def _silent(self, entity: Entity, asked: Relation) -> Document:
        """Return a document about the entity that does not state the relation asked for."""
        others = [relation for relation in entity.kind.relations if relation is not asked]
        num_facts = min(len(others), self.rng.randint(*DEFAULT_DIFFICULTY.num_facts))
        return self.world.document(entity, self.rng.sample(others, num_facts), DEFAULT_DIFFICULTY)

    def _mentions(self, entity: Entity) -> list[Document]:
        """Return documents about others whose value the entity is: a town as a birthplace, a person as an author."""
        links: list[tuple[Kind, Relation]] = []
        for kind in KINDS:
            links += [(kind, relation) for relation in kind.relations if relation.value == entity.kind.name]
        if not links:
            return []

        documents = []
        for kind, relation in self.rng.choices(links, k=self.rng.randint(0, MOST_MENTIONS)):
            # Another entity, whose value for this relation is replaced.
            subject = self.world.entity(kind)
            subject = replace(subject, facts=subject.facts | {relation.name: entity.name})
            documents.append(self._stating(subject, relation))
        return documents

    def _other(self, entity: Entity, asked: Relation) -> Document:
        """Return a document about another entity; one of the same kind states the relation asked for."""
        if self.rng.random() >= self.same_kind_share:
            kind = self.rng.choice([kind for kind in KINDS if kind is not entity.kind])
            return self._stating(self.world.entity(kind), self.rng.choice(kind.relations))

        # Some have a name that shares a word with the entity's.
        is_similar = self.rng.random() < SIMILAR_SHARE
        name = self.world.similar_name(entity.name, entity.kind.name) if is_similar else None
        return self._stating(self.world.entity(entity.kind, name), asked)
