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
    """

    model: str
    questions: tuple[str, ...]
    document_ids: tuple[tuple[str, ...], ...]
    document_tokens: int

    def select(self, numbers: Sequence[int]) -> MemoryOrigin:
        """Return the origin of some of the questions, by number."""
        return dataclasses.replace(self, questions=tuple(self.questions[number] for number in numbers),
                                   document_ids=tuple(self.document_ids[number] for number in numbers))

    def keep(self, documents: Sequence[Sequence[int]]) -> MemoryOrigin:
        """Return the origin of some of each question's documents, by number."""
        kept = []
        for ids, numbers in zip(self.document_ids, documents, strict=True):
            kept.append(tuple(ids[number] for number in numbers))
        return dataclasses.replace(self, document_ids=tuple(kept))

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
        document_ids = tuple(tuple(map(str, ids)) for ids in values["document_ids"])
        return cls(str(values["model"]), tuple(map(str, values["questions"])), document_ids,
                   int(values["document_tokens"]))


def _shown(question: str) -> str:
    if len(question) > SHOWN_QUESTION_CHARACTERS:
        question = f"{question[:SHOWN_QUESTION_CHARACTERS]}..."
    return repr(question)
