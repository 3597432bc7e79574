"""The passages of a question: gold ones, which hold its answer, and hard negatives to fill up its documents with.

A hard negative is one that BM25 ranks high for the question, and that does not hold the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scaledown.data.answers import holds_answer, is_found_in_text, padded, searchable, worded
from scaledown.data.pipeline.retrieval import BM25
from scaledown.data.qa.question import QAQuestion
from scaledown.progress import Bar
from scaledown.prompt.passages import Paragraph, Passage, PassageSplitter
from scaledown.prompt.sentences import Span

FIRST_DEPTH = 64
"""Passages that are ranked for a question before any are ruled out."""
DEEPER = 16
"""How much deeper each further search goes, if too few are left."""


@dataclass(frozen=True)
class Candidate:
    """A question and the passages that answer it."""

    question: QAQuestion
    gold: tuple[Passage, ...]


def cut_paragraphs(questions: Iterable[QAQuestion], splitter: PassageSplitter) -> dict[Paragraph, list[Passage]]:
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


def find_gold(questions: Iterable[QAQuestion], passages: dict[Paragraph, list[Passage]], num_documents: int,
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


class HardNegatives:
    """A pool of the passages of one half, each document once, from which negatives are chosen."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._passages = list({passage.document: passage for passage in passages}.values())
        self._index = BM25([passage.document for passage in self._passages])
        self._searchable: dict[int, str] = {}

    def choose(self, candidates: Sequence[Candidate], num_documents: int) -> list[list[Passage]]:
        """Return the passages that fill up each question's gold ones to ``num_documents``, best by BM25 first.

        None comes from a gold paragraph or holds an alias of the answer as whole words; if the answer is yes or no,
        coming from another paragraph is all that can be asked. There are fewer if the pool has no more.
        """
        return [self._choose(candidate, num_documents - len(candidate.gold))
                for candidate in Bar(candidates, desc="hard negatives", unit=" questions", leave=False)]

    def _choose(self, candidate: Candidate, count: int) -> list[Passage]:
        depth = FIRST_DEPTH
        while True:
            hits = self._index.search([candidate.question.query], depth)[0]
            negatives = self._without_answer(candidate, (hit.index for hit in hits))[:count]
            if len(negatives) == count or depth >= len(self._passages):
                return negatives

            # Most of the hits hold the answer: rank more of the pool, in the end all of it.
            depth *= DEEPER

    def _without_answer(self, candidate: Candidate, indices: Iterable[int]) -> list[Passage]:
        """Return those passages, by index, that are not gold and do not hold an answer."""
        answers = []
        for answer in candidate.question.answers:
            if is_found_in_text(answer):
                # Once as SQuAD's metric compares words, once split at any punctuation ("1919–1980").
                answers += [padded(answer), worded(answer)]
        answers = [answer for answer in answers if answer.strip()]

        # Another paragraph may repeat a gold document word by word.
        gold_paragraphs = {passage.paragraph for passage in candidate.gold}
        gold_documents = {passage.document for passage in candidate.gold}

        negatives = []
        for i in indices:
            passage = self._passages[i]
            is_gold = passage.paragraph in gold_paragraphs or passage.document in gold_documents
            if not is_gold and not holds_answer(self._document(i), answers):
                negatives.append(passage)
        return negatives

    def _document(self, i: int) -> str:
        """Return document ``i`` as answers are searched in it; one passage may be a hit of many questions."""
        if i not in self._searchable:
            self._searchable[i] = searchable(self._passages[i].document)
        return self._searchable[i]
