"""Hard negatives: passages that BM25 ranks high for a question, and that do not hold its answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tqdm.auto import tqdm

from scaledown.data.answers import holds_answer, is_found_in_text, padded, searchable, worded
from scaledown.data.passages import Passage
from scaledown.data.pipeline.retrieval import BM25
from scaledown.data.qa.gold import Candidate

FIRST_DEPTH = 64
"""Passages that are ranked for a question before any are ruled out."""
DEEPER = 16
"""How much deeper each further search goes, if too few are left."""


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
                for candidate in tqdm(candidates, desc="hard negatives", unit=" questions", leave=False)]

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
