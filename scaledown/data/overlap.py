"""The overlap of the evaluation half with the training half, on which memory would pass for skill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scaledown.data.answers import padded
from scaledown.data.records import Record


@dataclass(frozen=True)
class Overlap:
    """The questions and passages of an evaluation half that are in training, too.

    Attributes:
        num_shared_questions: evaluation questions that training has, up to case, punctuation and articles.
        num_questions: all questions of the evaluation half.
        num_shared_passages: distinct evaluation passages that training has, up to case and white space.
        num_passages: all distinct passages of the evaluation half.
    """

    num_shared_questions: int
    num_questions: int
    num_shared_passages: int
    num_passages: int

    def note(self) -> str | None:
        """Return the overlap in a sentence, for the terminal and the report; None if there is none."""
        passages = f"{self.num_shared_passages} of their {self.num_passages} passages"

        # Shared questions tell more than shared passages, so they come first.
        if self.num_shared_questions:
            return (f"{self.num_shared_questions} of the {self.num_questions} evaluation questions are in training "
                    f"too, and {passages}: on those, what is measured is memory, and says nothing of new questions")
        if self.num_shared_passages:
            return (f"none of the {self.num_questions} evaluation questions is in training, but {passages} are: with "
                    "passages that training has not seen, less may be right")
        return None


def overlap(records: Sequence[Record], eval_records: Sequence[Record]) -> Overlap:
    """Count what training (``records``) and evaluation (``eval_records``) share."""
    # Each evaluation question counts, also one that is repeated; passages count once.
    train_questions = {_question_key(record) for record in records}
    num_shared_questions = sum(_question_key(record) in train_questions for record in eval_records)

    passages = _passage_keys(eval_records)
    shared_passages = passages & _passage_keys(records)
    return Overlap(num_shared_questions, len(eval_records), len(shared_passages), len(passages))


def _question_key(record: Record) -> str:
    """Return the normal form of a record's query."""
    # A query of nothing but punctuation stands for itself.
    return padded(record.query).strip() or record.query


def _passage_keys(records: Sequence[Record]) -> set[str]:
    """Return the distinct documents of the records, up to case and white space."""
    keys = set()
    for record in records:
        keys.update(" ".join(document.casefold().split()) for document in record.documents)
    return keys
