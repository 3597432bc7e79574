"""The model, questions, documents and passages that a memory was made from: it serves no others, and can cite."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

SHOWN_QUESTION_CHARACTERS = 60


class MemoryPassage(NamedTuple):
    """The place of a text that was compressed: a whole document, or a passage of a long one.

    Attributes:
        document: the number of its document in the list that was given for the question.
        number: its own number among the passages of that document.
        start, end: its characters in the document's text, without the title.
    """

    document: int
    number: int
    start: int
    end: int


@dataclass(frozen=True)
class MemoryOrigin:
    """The model and the questions that a memory serves, and the documents in it.

    A long document that was split is in it as its passages, each with embeddings of its own.

    Attributes:
        model: the fingerprint of the model's trained weights and settings.
        questions: B texts; None for documents that were compressed without a query, which serve any.
        document_ids: for each question the ids of its documents: as they were given, else hashes of their texts; that
            of a document in several passages stands there for each of them.
        document_tokens: the longest text that was compressed at once, in tokens; documents were split or cut there.
        passages: for each question where its texts stand; None in files from before documents were split.
        kept_numbers: for each question the numbers and names that stand behind each text's memory; None for a model
            without ``--keep_numbers``.
    """

    model: str
    questions: tuple[str | None, ...]
    document_ids: tuple[tuple[str, ...], ...]
    document_tokens: int
    passages: tuple[tuple[MemoryPassage, ...], ...] | None = None
    kept_numbers: tuple[tuple[str, ...], ...] | None = None

    @property
    def has_split_documents(self) -> bool:
        """True if any text is a later passage of a document, which thus was split."""
        return any(map(_has_later_passage, self.passages or ()))

    @property
    def serves_all(self) -> bool:
        """True for one list of documents that were compressed without a query, which any number of questions share."""
        return self.questions == (None,)

    def select(self, numbers: Sequence[int]) -> MemoryOrigin:
        """Return the origin of some of the questions, by number."""
        passages = self.passages and tuple(self.passages[number] for number in numbers)
        kept_numbers = self.kept_numbers and tuple(self.kept_numbers[number] for number in numbers)
        return dataclasses.replace(self, questions=tuple(self.questions[number] for number in numbers),
                                   document_ids=tuple(self.document_ids[number] for number in numbers),
                                   passages=passages, kept_numbers=kept_numbers)

    def keep(self, texts: Sequence[Sequence[int]]) -> MemoryOrigin:
        """Return the origin of some of each question's documents and passages, by their number in the memory."""
        passages = None if self.passages is None else _kept(self.passages, texts)
        kept_numbers = None if self.kept_numbers is None else _kept(self.kept_numbers, texts)
        return dataclasses.replace(self, document_ids=_kept(self.document_ids, texts), passages=passages,
                                   kept_numbers=kept_numbers)

    def beside(self, other: MemoryOrigin) -> MemoryOrigin:
        """Return the origin of this memory's documents with those of ``other`` behind them, question by question.

        The numbers of these go on from the highest of the documents before them.

        Raises:
            ValueError: if it is of another model or of other questions.
        """
        if other.model != self.model:
            raise ValueError("memory of two models cannot be joined: compress all documents with the model that is to "
                             "answer")
        questions = []
        for number, (own, others) in enumerate(zip(self.questions, other.questions, strict=True)):
            # Without a query it goes with any question.
            if own is not None and others is not None and own != others:
                raise ValueError(f"memory {number} is for the question {_shown(own)}, and the memory to be joined with "
                                 f"it for {_shown(others)}: give memory of the same questions, in the same order")
            questions.append(others if own is None else own)

        passages, kept_numbers = None, None
        if self.passages is not None and other.passages is not None:
            passages = tuple(map(_counted_on, self.passages, other.passages))
        if self.kept_numbers is not None and other.kept_numbers is not None:
            kept_numbers = _concatenated(self.kept_numbers, other.kept_numbers)
        return dataclasses.replace(self, questions=tuple(questions), passages=passages, kept_numbers=kept_numbers,
                                   document_ids=_concatenated(self.document_ids, other.document_ids))

    def in_order(self, question: int, texts: Sequence[int]) -> list[int]:
        """Return texts of a question, given best first, in the order in which the generator is to read them.

        If any document of the question was split, that is the order of the documents and of their passages, since a
        passage continues the one before it. Otherwise the best stays first.
        """
        if self.passages is None or not _has_later_passage(self.passages[question]):
            return list(texts)
        # Passages sort by their document, then by their own number.
        return sorted(texts, key=self.passages[question].__getitem__)

    def check(self, questions: Sequence[str], model: str) -> None:
        """Refuse another model, or other questions than a memory with a query was made for.

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
            if own not in (None, asked):
                raise ValueError(
                    f"memory {number} was made for the question {_shown(own)}, not for {_shown(asked)}, and holds what "
                    "matters for its own question alone: compress the documents for the new one. A model that was "
                    "trained with --input_order document_first need not read them again: store = read_documents("
                    "documents) once, then compress(questions, documents, store=store). "
                    "One that was trained with --query_dropout can make memory for any question: compress(None, "
                    "documents)")

    @classmethod
    def from_json(cls, values: Any) -> MemoryOrigin | None:
        """Return an origin from the JSON form of its fields; None from null."""
        if values is None:
            return None
        passages = values.get("passages")
        if passages is not None:
            passages = tuple(map(_passages_from_json, passages))
        kept_numbers = values.get("kept_numbers")
        questions = tuple(None if question is None else str(question) for question in values["questions"])
        return cls(str(values["model"]), questions, _texts(values["document_ids"]),
                   int(values["document_tokens"]), passages, None if kept_numbers is None else _texts(kept_numbers))


def _texts(values: Any) -> tuple[tuple[str, ...], ...]:
    """Return lists of texts from JSON as tuples."""
    return tuple(tuple(map(str, of_question)) for of_question in values)


def _has_later_passage(passages: Sequence[MemoryPassage]) -> bool:
    return any(passage.number > 0 for passage in passages)


def _concatenated(first: Sequence[tuple[Any, ...]], second: Sequence[tuple[Any, ...]]) -> tuple[tuple[Any, ...], ...]:
    """Return for each question the values of both."""
    return tuple((*own, *others) for own, others in zip(first, second, strict=True))


def _counted_on(first: tuple[MemoryPassage, ...], second: tuple[MemoryPassage, ...]) -> tuple[MemoryPassage, ...]:
    """Return the passages of one question from two memories; the second one's documents are counted on."""
    num_before = max((passage.document + 1 for passage in first), default=0)
    moved = [passage._replace(document=passage.document + num_before) for passage in second]
    return (*first, *moved)


def _kept(of_questions: Sequence[Sequence[Any]], texts: Sequence[Sequence[int]]) -> tuple[tuple[Any, ...], ...]:
    """Return for each question its values with these numbers."""
    kept = []
    for values, numbers in zip(of_questions, texts, strict=True):
        kept.append(tuple(values[number] for number in numbers))
    return tuple(kept)


def _passages_from_json(of_question: Sequence[Sequence[Any]]) -> tuple[MemoryPassage, ...]:
    return tuple(MemoryPassage(*map(int, values)) for values in of_question)


def _shown(question: str) -> str:
    if len(question) > SHOWN_QUESTION_CHARACTERS:
        question = f"{question[:SHOWN_QUESTION_CHARACTERS]}..."
    return repr(question)
