"""Gold passages: those that hold the answer to a question, once its paragraphs are cut."""

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
    """Cut every paragraph into passages, never inside the characters that answer a question."""
    # Questions share paragraphs: each is cut once, around the gold spans of all its questions.
    gold_spans: dict[Paragraph, set[Span]] = {}
    for question in questions:
        for paragraph in question.paragraphs:
            gold_spans.setdefault(paragraph, set())
        for gold in question.gold:
            gold_spans[question.paragraphs[gold.paragraph]].add(gold.span)

    paragraphs = list(gold_spans)
    return dict(zip(paragraphs, splitter.split(paragraphs, list(gold_spans.values())), strict=True))


def find_gold(questions: Iterable[Question], passages: dict[Paragraph, list[Passage]], num_documents: int,
              dropped: Counter[str]) -> list[Candidate]:
    """Return the questions with their gold passages; those without a use are counted in ``dropped``, by reason."""
    candidates = []
    for question in questions:
        # Two gold spans may lie in one passage, so a dict: it keeps each passage once, in order.
        gold: dict[Passage, None] = {}
        for place in question.gold:
            for passage in passages[question.paragraphs[place.paragraph]]:
                if passage.overlaps(place.span):
                    gold[passage] = None

        if len(gold) > num_documents:
            dropped[f"it has more gold passages than --num_documents {num_documents}"] += 1
        elif not _is_answered(question.answers[0], gold):
            dropped["no gold passage holds its answer whole"] += 1
        else:
            candidates.append(Candidate(question, tuple(gold)))
    return candidates


def _is_answered(answer: str, gold: Iterable[Passage]) -> bool:
    """Return whether a gold passage holds the answer whole. Yes and no are in no text, and always pass."""
    if not is_found_in_text(answer):
        return True
    for passage in gold:
        # As it is written, in either case, or token by token in SQuAD's normal form.
        if (answer.casefold() in passage.document.casefold()
                or holds_answer(padded(passage.document), [padded(answer)])):
            return True
    return False
