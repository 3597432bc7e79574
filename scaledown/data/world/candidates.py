"""The embedded world as a ranking task: many candidates a question, few of them relevant, known by construction.

What makes it hard is what makes it hard in earnest: documents about the right entity that do not state what is asked,
documents that only name it as somebody's birthplace or employer, and those that say the right thing of another one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from scaledown.data.records import Record
from scaledown.data.world.synthetic import EASY_SCORE, GOLD_SCORE, HARD_SCORE, Difficulty, Document, Entity, World
from scaledown.data.world.wordings import KINDS, Relation

NUM_CANDIDATES = 20
MOST_RELEVANT, MOST_SILENT, MOST_MENTIONS = 2, 2, 3
SAME_KIND_SHARE = 0.5
SIMILAR_SHARE = 0.3
DIFFICULTY = Difficulty()


def ranking_records(num_examples: int, seed: int = 42, split: str = "train", num_candidates: int = NUM_CANDIDATES,
                    same_kind_share: float = SAME_KIND_SHARE) -> Iterator[Record]:
    """Records of ``num_candidates`` documents, of which one or two are relevant.

    Their ``reranking_scores`` tell relevance as :func:`scaledown.data.world.synthetic.synthetic_records`' do.

    Args:
        same_kind_share: share of the documents about others that state the same of something of the same kind.
    """
    draw = _Candidates(World(random.Random(f"ranking-{split}-{seed}"), split), same_kind_share)
    for number in range(num_examples):
        entity, asked, documents = draw.question(num_candidates)
        name = f"ranking-{split}-{seed}-{number}"
        yield Record(
            id=name, query=draw.world.ask(entity, asked), documents=tuple(document.text for document in documents),
            answer=entity.facts[asked.name], answers=(entity.facts[asked.name],),
            reranking_scores=tuple(_score(document, entity, asked) for document in documents),
            document_ids=tuple(f"{name}-{place}" for place in range(len(documents))),
            titles=tuple(document.entity.name for document in documents))


def qrels_of(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """The relevance of each candidate (1 or 0) by query and document id, before a teacher's scores replace it."""
    return {record.id: {name: int(score == GOLD_SCORE) for name, score in
                        zip(record.document_ids, record.reranking_scores, strict=True)} for record in records}


def _score(document: Document, entity: Entity, asked: Relation) -> float:
    if document.entity is entity and asked in document.stated:
        return GOLD_SCORE
    is_near = document.entity.kind is entity.kind or entity.name in document.text
    return HARD_SCORE if is_near else EASY_SCORE


class _Candidates:
    """Draws a question and the documents that a search engine might have found for it."""

    def __init__(self, world: World, same_kind_share: float) -> None:
        self.world, self.rng, self.same_kind_share = world, world.rng, same_kind_share

    def question(self, num_candidates: int) -> tuple[Entity, Relation, list[Document]]:
        """An entity, what is asked of it, and the candidates in random order."""
        rng = self.rng
        kind = rng.choice(KINDS)
        entity, asked = self.world.entity(kind), rng.choice(kind.relations)
        documents = [self._about(entity, asked) for _ in range(rng.randint(1, min(MOST_RELEVANT, num_candidates)))]
        near = [self._silent(entity, asked) for _ in range(rng.randint(0, MOST_SILENT))] + self._mentions(entity)
        documents += rng.sample(near, min(len(near), num_candidates - len(documents)))
        names = {document.entity.name for document in documents}
        while len(documents) < num_candidates:
            other = self._other(entity, asked)
            if other.entity.name not in names:
                names.add(other.entity.name)
                documents.append(other)
        rng.shuffle(documents)
        return entity, asked, documents

    def _about(self, entity: Entity, asked: Relation) -> Document:
        """A document that states what is asked, among other facts."""
        others = [relation for relation in entity.kind.relations if relation is not asked]
        num_others = self.rng.randint(*DIFFICULTY.num_facts) - 1
        return self.world.document(entity, [asked, *self.rng.sample(others, num_others)], DIFFICULTY)

    def _silent(self, entity: Entity, asked: Relation) -> Document:
        """A document about the entity that does not state what is asked."""
        others = [relation for relation in entity.kind.relations if relation is not asked]
        num_facts = min(len(others), self.rng.randint(*DIFFICULTY.num_facts))
        return self.world.document(entity, self.rng.sample(others, num_facts), DIFFICULTY)

    def _mentions(self, entity: Entity) -> list[Document]:
        """Documents about others in which the entity is a value: where somebody was born, who wrote something."""
        links = [(kind, relation) for kind in KINDS for relation in kind.relations
                 if relation.value == entity.kind.name]
        if not links:
            return []
        found = []
        for kind, relation in self.rng.choices(links, k=self.rng.randint(0, MOST_MENTIONS)):
            other = self.world.entity(kind)
            other = replace(other, facts=other.facts | {relation.name: entity.name})
            found.append(self._about(other, relation))
        return found

    def _other(self, entity: Entity, asked: Relation) -> Document:
        """A document about another entity; one of the same kind states the same thing of it."""
        if self.rng.random() >= self.same_kind_share:
            kind = self.rng.choice([kind for kind in KINDS if kind is not entity.kind])
            return self._about(self.world.entity(kind), self.rng.choice(kind.relations))
        is_similar = self.rng.random() < SIMILAR_SHARE
        name = self.world.similar_name(entity.name, entity.kind.name) if is_similar else None
        return self._about(self.world.entity(entity.kind, name), asked)
