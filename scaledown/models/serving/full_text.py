"""Documents in full text, for a generator that reads them itself: all of the text that a compressor would read."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

from scaledown.config import CUT
from scaledown.models.loading.memory_origin import MemoryPassage
from scaledown.models.serving.long_documents import split_input
from scaledown.models.serving.user_input import UserInput
from scaledown.prompt import cut_texts

if TYPE_CHECKING:
    from scaledown.models.processor import Processor

WHOLE = sys.maxsize
"""A limit of tokens that no text reaches."""


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
