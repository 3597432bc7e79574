"""What the evaluation half has in common with the training half: measured on that, memory looks like skill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scaledown.data.answers import padded
from scaledown.data.records import Record


@dataclass(frozen=True)
class Overlap:
    """What of an evaluation half training has, too.

    Attributes:
        num_shared_questions: questions, but for case, punctuation and articles.
        num_questions: all questions of the evaluation half.
        num_shared_passages: different passages, but for case and white space.
        num_passages: all different passages of the evaluation half.
    """

    num_shared_questions: int
    num_questions: int
    num_shared_passages: int
    num_passages: int

    def note(self) -> str | None:
        """The overlap in a sentence, for the terminal and the report; None if there is none."""
        passages = f"{self.num_shared_passages} of their {self.num_passages} passages"
        if self.num_shared_questions:
            return (f"{self.num_shared_questions} of the {self.num_questions} evaluation questions are in training "
                    f"too, and {passages}: on those, what is measured is memory, and says nothing of new questions")
        if self.num_shared_passages:
            return (f"none of the {self.num_questions} evaluation questions is in training, but {passages} are: with "
                    "passages that training has not seen, less may be right")
        return None


def overlap(records: Sequence[Record], eval_records: Sequence[Record]) -> Overlap:
    """Compare the two halves."""
    questions = [_question(record) for record in eval_records]
    passages = {_passage(document) for record in eval_records for document in record.documents}
    shared_questions = set(questions) & {_question(record) for record in records}
    shared_passages = passages & {_passage(document) for record in records for document in record.documents}
    return Overlap(sum(question in shared_questions for question in questions), len(questions),
                   len(shared_passages), len(passages))


def _question(record: Record) -> str:
    return padded(record.query).strip() or record.query


def _passage(text: str) -> str:
    return " ".join(text.casefold().split())
