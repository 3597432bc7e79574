"""Gold passages: those that hold what a question is answered from, once its paragraphs are cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from scaledown.data.answers import holds_answer, is_found_in_text, padded
from scaledown.data.passages import Paragraph, Passage, PassageSplitter
from scaledown.data.qa.question import Question
from scaledown.data.sentences import Span


@dataclass(frozen=True)
class Candidate:
    """A question and the passages that answer it."""

    question: Question
    gold: tuple[Passage, ...]


def cut_paragraphs(questions: Iterable[Question], splitter: PassageSplitter) -> dict[Paragraph, list[Passage]]:
    """The passages of every paragraph, none of which cuts what a question is answered from."""
    kept: dict[Paragraph, set[Span]] = {}
    for question in questions:
        for paragraph in question.paragraphs:
            kept.setdefault(paragraph, set())
        for gold in question.gold:
            kept[question.paragraphs[gold.paragraph]].add(gold.span)
    paragraphs = list(kept)
    return dict(zip(paragraphs, splitter.split(paragraphs, list(kept.values())), strict=True))


def find_gold(questions: Iterable[Question], passages: dict[Paragraph, list[Passage]], num_documents: int,
              dropped: Counter[str]) -> list[Candidate]:
    """The questions with their gold passages; what is dropped is counted in ``dropped``, by reason."""
    candidates = []
    for question in questions:
        gold = tuple(dict.fromkeys(
            passage for place in question.gold for passage in passages[question.paragraphs[place.paragraph]]
            if passage.overlaps(place.span)))
        if len(gold) > num_documents:
            dropped[f"it has more gold passages than --num_documents {num_documents}"] += 1
        elif not _is_answered(question.answers[0], gold):
            dropped["no gold passage holds its answer whole"] += 1
        else:
            candidates.append(Candidate(question, gold))
    return candidates


def _is_answered(answer: str, gold: Iterable[Passage]) -> bool:
    return not is_found_in_text(answer) or any(
        answer.casefold() in passage.document.casefold() or holds_answer(padded(passage.document), [padded(answer)])
        for passage in gold)
