"""Documents that the generator reads as text: all of them, or some beside the memory of the others.

Memory loses how some things are spelled: numbers, names. The text of one document costs as many tokens as the memory of
a dozen, so that a few are read as text and the rest from memory.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scaledown.config import CUT
from scaledown.models.loading.memory_origin import MemoryPassage
from scaledown.models.memory import Memory
from scaledown.models.serving.inputs.long_documents import split_input
from scaledown.models.serving.inputs.user_input import UserInput
from scaledown.prompt.plain_text import cut_texts

if TYPE_CHECKING:
    from scaledown.models.processor import Processor

WHOLE = sys.maxsize
"""A limit of tokens that no text reaches."""

TextDocuments = int | Sequence[int] | Sequence[Sequence[int]] | None
"""The number of a question's best documents that are read as text, or their numbers: of one question, or of each."""


def check_memory_of(given: UserInput, memory: Memory) -> None:
    """Refuse documents that are not those of the memory beside them.

    Raises:
        ValueError: if their numbers differ, or their ids, if the memory knows them.
    """
    counts = [len(of_question) for of_question in given.documents]
    if counts != memory.num_documents.tolist():
        raise ValueError(f"documents beside memory must be those that were compressed, in their order: there are "
                         f"{counts} for the questions, and memory of {memory.num_documents.tolist()}")
    # Memory that compress did not make has no ids.
    if memory.origin is None:
        return
    for number, (ids, known) in enumerate(zip(given.document_ids, memory.origin.document_ids, strict=True)):
        if tuple(ids) != tuple(known):
            raise ValueError(f"the documents of question {number} are not those of its memory: their ids are {ids}, "
                             f"those in the memory {list(known)}")


def read_text_documents(text_documents: TextDocuments, given: UserInput, is_chosen: bool,
                        enable_reranking: bool) -> int | list[list[int]]:
    """Return ``text_documents`` as a number of documents, to be chosen by score, or as their numbers for each question.

    A number of at least all documents chooses nothing, so a model without scores may be given it: it stands for all.

    Args:
        text_documents: as the user gave it; None is 0.
        given: the questions with their documents.
        is_chosen: whether the documents that are read at all are chosen by score.
        enable_reranking: whether the model scores documents.

    Raises:
        ValueError: for something else, for documents that are not there, or a model that cannot choose.
    """
    if text_documents is None:
        return 0
    counts = [len(of_question) for of_question in given.documents]
    if not isinstance(text_documents, int) or isinstance(text_documents, bool):
        if is_chosen:
            raise ValueError("keep_documents and keep_tokens choose documents by score, and text_documents names some: "
                             "give text_documents as a number, or leave these out")
        return _named(text_documents, counts, given.is_one)

    # A number: the scores will say which, unless there is nothing to choose.
    if text_documents < 0:
        raise ValueError(f"text_documents must be a whole number of at least 0, got {text_documents}")
    if enable_reranking or text_documents == 0:
        return text_documents
    if any(count > text_documents for count in counts):
        raise ValueError("this model has no reranking head to choose documents by; train one with --enable_reranking, "
                         "or name the documents: text_documents=[0, 2], for several questions a list of such lists")
    return [list(range(count)) for count in counts]


def _named(text_documents: Any, counts: Sequence[int], is_one: bool) -> list[list[int]]:
    """Return the numbers of the documents that are named for each question."""
    # One question has its numbers in one list, as it has its documents; a list of lists does as well.
    lists = [text_documents] if is_one and _are_numbers(text_documents) else text_documents
    if not isinstance(lists, list | tuple) or not all(map(_are_numbers, lists)):
        raise ValueError("text_documents must be a number of documents, or the numbers of some, such as [0, 2], and "
                         f"for several questions a list of such lists; got {text_documents!r}")
    if len(lists) != len(counts):
        raise ValueError(f"{len(counts)} questions, but text_documents for {len(lists)}")

    faults = []
    for question, (numbers, count) in enumerate(zip(lists, counts, strict=True)):
        missing = sorted(number for number in numbers if not 0 <= number < count)
        if missing:
            faults.append(f"question {question} has no documents {missing}, only {count} of them, counted from 0")
    if faults:
        raise ValueError(f"text_documents: {'; '.join(faults)}")
    return [sorted(set(numbers)) for numbers in lists]


def _are_numbers(value: Any) -> bool:
    is_list = isinstance(value, list | tuple)
    return is_list and all(isinstance(number, int) and not isinstance(number, bool) for number in value)


def some_of(given: UserInput, documents: Sequence[Sequence[int]]) -> UserInput:
    """Return the questions with some of their documents, by number."""
    sources = []
    for of_question, numbers in zip(given.sources, documents, strict=True):
        sources.append([of_question[number] for number in numbers])
    return given._replace(sources=sources)


def texts_to_read(processor: Processor, given: UserInput, document_tokens: int | None,
                  long_documents: str) -> tuple[list[list[str]], int | None]:
    """Return the documents as a generator without compressed documents reads them, and where it is to cut each.

    Args:
        processor: the model's.
        given: questions and documents.
        document_tokens: what a document may take, for each passage that the compressor would read of it [all].
        long_documents: "split" or "cut".

    Returns:
        texts, and the tokens that are read of each; None for ``config.document_tokens``, with a warning.
    """
    if long_documents == CUT:
        return given.documents, document_tokens
    if document_tokens is None:
        return given.documents, WHOLE

    _, passages = split_input(processor, given, long_documents)
    if list(map(len, passages)) == list(map(len, given.sources)):
        # No document has several passages.
        return given.documents, document_tokens

    documents = []
    for texts, of_question in zip(given.documents, passages, strict=True):
        num_passages = Counter(passage.document for passage in of_question)
        documents.append([cut_texts(processor.tokenizer, [text], document_tokens * num_passages[number])[0]
                          for number, text in enumerate(texts)])
    return documents, WHOLE


def whole_documents(processor: Processor, given: UserInput,
                    long_documents: str) -> tuple[tuple[MemoryPassage, ...], ...]:
    """Return where the texts of documents stand that are read in full text, not as passages."""
    if long_documents == CUT:
        return split_input(processor, given, CUT)[1]
    found = []
    for documents in given.sources:
        found.append(tuple(MemoryPassage(number, 0, 0, len(document.body))
                           for number, document in enumerate(documents)))
    return tuple(found)
