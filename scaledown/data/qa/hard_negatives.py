"""Hard negatives: passages that BM25 takes for good ones, and that do not hold the answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tqdm.auto import tqdm

from scaledown.data.answers import holds_answer, is_found_in_text, padded, searchable, worded
from scaledown.data.passages import Passage
from scaledown.data.pipeline.retrieval import BM25
from scaledown.data.qa.gold import Candidate

FIRST_DEPTH = 64
DEEPER = 16


class HardNegatives:
    """Chooses negatives from the passages of one half, each document once."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._passages = list({passage.document: passage for passage in passages}.values())
        self._index = BM25([passage.document for passage in self._passages])
        self._searchable: dict[int, str] = {}

    def choose(self, candidates: Sequence[Candidate], num_documents: int) -> list[list[Passage]]:
        """For each question, the passages that fill up its gold ones to ``num_documents``, best by BM25 first.

        None comes from a gold paragraph or holds an alias of the answer as whole words; where the answer is yes or
        no, being from another paragraph is all that can be asked. Fewer are given where the pool has no more.
        """
        return [self._choose(candidate, num_documents - len(candidate.gold))
                for candidate in tqdm(candidates, desc="hard negatives", unit=" questions", leave=False)]

    def _choose(self, candidate: Candidate, count: int) -> list[Passage]:
        depth = FIRST_DEPTH
        while True:
            hits = self._index.search([candidate.question.query], depth)[0]
            chosen = self._without_answer(candidate, (hit.index for hit in hits))[:count]
            if len(chosen) == count or depth >= len(self._passages):
                return chosen
            depth *= DEEPER

    def _without_answer(self, candidate: Candidate, indices: Iterable[int]) -> list[Passage]:
        answers = [guise(answer) for answer in candidate.question.answers if is_found_in_text(answer)
                   for guise in (padded, worded) if guise(answer).strip()]
        gold = {passage.paragraph for passage in candidate.gold}
        gold_documents = {passage.document for passage in candidate.gold}
        return [self._passages[i] for i in indices
                if self._passages[i].paragraph not in gold and self._passages[i].document not in gold_documents
                and not holds_answer(self._document(i), answers)]

    def _document(self, i: int) -> str:
        if i not in self._searchable:
            self._searchable[i] = searchable(self._passages[i].document)
        return self._searchable[i]
