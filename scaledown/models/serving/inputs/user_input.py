"""Checks of what a user passes to a model, before anything is computed: one message with all faults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from scaledown.models.serving.inputs.documents import UserDocument, check_text, is_document, read_document, shown

Questions = str | Sequence[str]
"""One question, or a list of them."""
Documents = Sequence[Any]
"""The documents of one question, or for each question a list of them; see
:mod:`scaledown.models.serving.inputs.documents`."""
SHOWN_TEXT_FAULTS = 5


class UserInput(NamedTuple):
    """B questions with their documents, as texts.

    Attributes:
        questions: B texts; None for documents that are compressed without a query.
        sources: for each of them a list of documents.
        is_one: whether the user gave one question as a string, and so gets one answer instead of a list.
    """

    questions: list[str | None]
    sources: list[list[UserDocument]]
    is_one: bool

    @property
    def documents(self) -> list[list[str]]:
        """For each question the texts of its documents, with their titles in front."""
        return [texts_of(of_question) for of_question in self.sources]

    @property
    def document_ids(self) -> list[tuple[str, ...]]:
        """For each question the ids of its documents."""
        return [ids_of(of_question) for of_question in self.sources]

    def select(self, numbers: Sequence[int]) -> UserInput:
        """Return some of the questions, by number."""
        return UserInput([self.questions[number] for number in numbers], [self.sources[number] for number in numbers],
                         self.is_one)


def read_input(questions: Questions, documents: Documents | None = None) -> UserInput:
    """Return questions and documents as texts, whatever form they were given in.

    Args:
        questions: one as a string, or a list of B.
        documents: the documents of the one question, or a list of B such lists [no documents].

    Raises:
        ValueError: if something is no text or no list, a text cannot be encoded, or the numbers differ; the message
            names the first faults by their place.
    """
    is_one = isinstance(questions, str)
    if is_one:
        lists = [[] if documents is None else documents]
        questions = [questions]
    else:
        _check_list("questions", questions)
        lists = [[] for _ in questions] if documents is None else documents
        _check_lists(questions, lists)

    # Faults are gathered, so that all of them can be mended in one go.
    faults: list[str] = []
    for number, question in enumerate(questions):
        try:
            check_text(question)
        except ValueError as fault:
            faults.append(f"question {number}: {fault}")

    sources = []
    for number, of_question in enumerate(lists):
        sources.append(_read_list(of_question, "" if is_one else f" of question {number}", faults))
    _raise_any(faults)
    return UserInput(list(questions), sources, is_one)


def read_without_query(documents: Documents) -> UserInput:
    """Return documents that are compressed without a query: one list of them, or several lists.

    Raises:
        ValueError: as :func:`read_input`.
    """
    _check_list("documents", documents)
    # A document is a string or an object, so a list inside the list is one of several lists.
    is_one = not any(isinstance(value, list | tuple) for value in documents)
    lists = [documents] if is_one else documents

    faults: list[str] = []
    sources = []
    for number, of_list in enumerate(lists):
        sources.append(_read_list(of_list, "" if is_one else f" of list {number}", faults))
    _raise_any(faults)
    return UserInput([None] * len(sources), sources, is_one)


def texts_of(documents: Sequence[UserDocument]) -> list[str]:
    """Return the texts of documents, with their titles in front."""
    return [document.text for document in documents]


def ids_of(documents: Sequence[UserDocument]) -> tuple[str, ...]:
    """Return the ids of documents."""
    return tuple(document.id for document in documents)


def read_documents(documents: Documents) -> list[UserDocument]:
    """Return a list of documents, whatever form they were given in.

    Raises:
        ValueError: as :func:`read_input`.
    """
    faults: list[str] = []
    found = _read_list(documents, "", faults)
    _raise_any(faults)
    return found


def question_list(questions: Questions) -> list[str]:
    """Return a list of questions, also for one question that is given as a string."""
    return [questions] if isinstance(questions, str) else list(questions)


def check_number(name: str, number: Any) -> None:
    """Refuse a number that does not count something.

    Raises:
        ValueError: if it is no whole number above 0.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{name} must be a whole number above 0, got {number!r}")


def check_type(name: str, value: Any, wanted: type) -> None:
    """Refuse something else than None or a ``wanted``, such as the path of a memory instead of the memory.

    Raises:
        ValueError: if it is something else.
    """
    if value is not None and not isinstance(value, wanted):
        raise ValueError(f"{name} must be a {wanted.__name__}, got {type(value).__name__} {str(value)[:40]!r}"
                         + (f"; {wanted.__name__}.load reads a file" if hasattr(wanted, "load") else ""))


def _check_list(name: str, value: Any) -> None:
    # A string is a sequence of strings, too: taken for a list, each character would be a text.
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{name} must be a list, got {shown(value)}")


def _check_lists(questions: Sequence[str], documents: Any) -> None:
    """Refuse documents that are not a list for each question."""
    _check_list("documents", documents)
    number = next((number for number, value in enumerate(documents) if is_document(value)), None)
    if number is not None:
        raise ValueError(f"documents must have a list of documents for each question of the list, but documents"
                         f"[{number}] is one document, {shown(documents[number])}. If all questions share the "
                         "documents, give documents=[documents] * len(questions); one question can be given as a "
                         "string, with its documents as one list")
    if len(questions) != len(documents):
        raise ValueError(f"{len(questions)} questions, but documents for {len(documents)}")


def _read_list(documents: Any, of_question: str, faults: list[str]) -> list[UserDocument]:
    """Return a list of documents; what cannot be read is added to ``faults``, with its place."""
    if isinstance(documents, str) or not isinstance(documents, Sequence):
        faults.append(f"the documents{of_question} must be a list, got {shown(documents)}")
        return []

    found = []
    for number, value in enumerate(documents):
        # One that cannot be read does not hide the faults of those after it.
        try:
            found.append(read_document(value))
        except ValueError as fault:
            advice = ""
            if not of_question and isinstance(value, list | tuple):
                advice = "; the documents of one question are one list, without lists in it"
            faults.append(f"document {number}{of_question}: {fault}{advice}")
    return found


def _raise_any(faults: Sequence[str]) -> None:
    if faults:
        num_more = len(faults) - SHOWN_TEXT_FAULTS
        more = f"; and {num_more} more" if num_more > 0 else ""
        raise ValueError("; ".join(faults[:SHOWN_TEXT_FAULTS]) + more)
