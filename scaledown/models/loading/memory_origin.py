"""The model, questions and documents that a memory was made from, so that it serves no others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHOWN_QUESTION_CHARACTERS = 60


@dataclass(frozen=True)
class MemoryOrigin:
    """The model and the questions that a memory serves, and the documents in it.

    Attributes:
        model: the fingerprint of the model's trained weights and settings.
        questions: B texts.
        document_ids: for each question the ids of its documents: as they were given, else hashes of their texts.
        document_tokens: documents were cut there.
        kept_numbers: for each document the text that stands behind its memory in the prompt; None for a model without
            ``--keep_numbers``.
    """

    model: str
    questions: tuple[str, ...]
    document_ids: tuple[tuple[str, ...], ...]
    document_tokens: int
    kept_numbers: tuple[tuple[str, ...], ...] | None = None

    def select(self, numbers: Sequence[int]) -> MemoryOrigin:
        """Return the origin of some of the questions, by number."""
        kept_numbers = None if self.kept_numbers is None else tuple(self.kept_numbers[number] for number in numbers)
        return dataclasses.replace(self, questions=tuple(self.questions[number] for number in numbers),
                                   document_ids=tuple(self.document_ids[number] for number in numbers),
                                   kept_numbers=kept_numbers)

    def keep(self, documents: Sequence[Sequence[int]]) -> MemoryOrigin:
        """Return the origin of some of each question's documents, by number."""
        kept_numbers = None if self.kept_numbers is None else _some(self.kept_numbers, documents)
        return dataclasses.replace(self, document_ids=_some(self.document_ids, documents), kept_numbers=kept_numbers)

    def check(self, questions: Sequence[str], model: str) -> None:
        """Refuse another model, or other questions.

        Args:
            questions: B texts.
            model: the fingerprint of the model that is to answer.

        Raises:
            ValueError: if they are not those that the memory was made for; the message says what to do.
        """
        # Embeddings of another compressor mean nothing to this generator.
        if model != self.model:
            raise ValueError("this memory was made by another model, or before this one was trained further: compress "
                             "the documents again with the model that is to answer")

        # In their order, as the memory has them.
        for number, (own, asked) in enumerate(zip(self.questions, questions, strict=True)):
            if own != asked:
                raise ValueError(
                    f"memory {number} was made for the question {_shown(own)}, not for {_shown(asked)}, and holds what "
                    "matters for its own question alone: compress the documents for the new one. A model that was "
                    "trained with --input_order document_first need not read them again: store = read_documents("
                    "documents) once, then compress(questions, documents, store=store)")

    @classmethod
    def from_json(cls, values: Any) -> MemoryOrigin | None:
        """Return an origin from the JSON form of its fields; None from null."""
        if values is None:
            return None
        kept_numbers = values.get("kept_numbers")
        return cls(str(values["model"]), tuple(map(str, values["questions"])), _texts(values["document_ids"]),
                   int(values["document_tokens"]), None if kept_numbers is None else _texts(kept_numbers))


def _texts(values: Any) -> tuple[tuple[str, ...], ...]:
    """Return lists of texts from JSON as tuples."""
    return tuple(tuple(map(str, of_question)) for of_question in values)


def _some(texts: Sequence[Sequence[str]], documents: Sequence[Sequence[int]]) -> tuple[tuple[str, ...], ...]:
    """Return the texts of some of each question's documents, by number."""
    kept = []
    for of_question, numbers in zip(texts, documents, strict=True):
        kept.append(tuple(of_question[number] for number in numbers))
    return tuple(kept)


def _shown(question: str) -> str:
    if len(question) > SHOWN_QUESTION_CHARACTERS:
        question = f"{question[:SHOWN_QUESTION_CHARACTERS]}..."
    return repr(question)
