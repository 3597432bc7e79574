"""Documents that are longer than the compressor reads at once: split into passages, so that nothing is lost, or cut.

A document of at most ``document_tokens`` tokens, its title included, is read as it is. A longer one becomes passages of
at most that many tokens of the compressor's tokenizer, so that none of them is cut when it is read. They end with
sentences, and with paragraphs (at blank lines) unless a passage would be short: what is about one thing compresses and
ranks better. Each has the title in front, and line breaks in it become spaces (:mod:`scaledown.prompt.passages`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from scaledown.config import CUT, LONG_DOCUMENTS
from scaledown.models.loading.memory_origin import MemoryPassage
from scaledown.models.serving.inputs.documents import UserDocument
from scaledown.models.serving.inputs.user_input import UserInput, texts_of
from scaledown.prompt import titled
from scaledown.prompt.passages import Paragraph, PassageSplitter
from scaledown.prompt.plain_text import cut_texts, plain_ids

if TYPE_CHECKING:
    from scaledown.models.processor import Processor

STRETCH_CHARACTERS = 100_000
"""A longer document is tokenised and split in stretches of this length, so that its words never fill the memory."""
BORDERS = ("\n\n", "\n", ". ", " ")
"""Where a stretch ends: behind the last paragraph in it, else the last line, the last sentence, the last word."""

_splitters: WeakKeyDictionary[Processor, PassageSplitter] = WeakKeyDictionary()
"""For each processor its splitter, which remembers the tokens of words."""


class DocumentPart(NamedTuple):
    """A part of a document that is read by itself.

    Attributes:
        text: as it is read, with the document's title in front.
        start, end: its characters in the document's text, without the title.
    """

    text: str
    start: int
    end: int


def checked_long_documents(long_documents: str) -> str:
    """Return the word that says what becomes of long documents.

    Raises:
        ValueError: if it is neither "split" nor "cut".
    """
    if long_documents not in LONG_DOCUMENTS:
        raise ValueError(f"long_documents must be one of {', '.join(map(repr, LONG_DOCUMENTS))}, got "
                         f"{long_documents!r}")
    return long_documents


def split_input(processor: Processor, given: UserInput,
                long_documents: str) -> tuple[UserInput, tuple[tuple[MemoryPassage, ...], ...]]:
    """Return the input with long documents split into passages, and for each question where these stand.

    With "cut" all documents stay as they are, and the compressor reads the start of long ones.
    """
    # A document of several questions is split once.
    distinct: dict[UserDocument, None] = {}
    for of_question in given.sources:
        distinct |= dict.fromkeys(of_question)
    parts_of = parts_by_document(processor, list(distinct), long_documents)

    sources, passages = [], []
    for of_question in given.sources:
        texts: list[UserDocument] = []
        places: list[MemoryPassage] = []
        for document, source in enumerate(of_question):
            for number, (text, start, end) in enumerate(parts_of[source]):
                # Its title is in the text already.
                texts.append(UserDocument("", text, source.id))
                places.append(MemoryPassage(document, number, start, end))
        sources.append(texts)
        passages.append(tuple(places))
    return given._replace(sources=sources), tuple(passages)


def parts_by_document(processor: Processor, documents: Sequence[UserDocument],
              long_documents: str) -> dict[UserDocument, list[DocumentPart]]:
    """Return for each document its parts that the compressor reads, each by itself: one, unless it is split."""
    tokenizer, limit = processor.compressor_tokenizer, processor.config.document_tokens
    if long_documents == CUT:
        found = {}
        for document, read in zip(documents, cut_texts(tokenizer, texts_of(documents), limit), strict=True):
            # The whole text goes to the compressor, which cuts its tokens and says so.
            num_left_out = len(document.text) - len(read)
            found[document] = [DocumentPart(document.text, 0, max(0, len(document.body) - num_left_out))]
        return found

    # Beyond a stretch they are too long without a count.
    countable = [document for document in documents if len(document.text) <= STRETCH_CHARACTERS]
    num_tokens = dict(zip(countable, map(len, plain_ids(tokenizer, texts_of(countable))), strict=True))
    too_long = [document for document in documents if num_tokens.get(document, limit + 1) > limit]

    found = {document: [DocumentPart(document.text, 0, len(document.body))] for document in documents}
    if too_long:
        found |= _split(processor, too_long)
        processor.warn_once("documents longer than %d tokens are read as passages (the first such as %d); "
                            "long_documents cut reads their start alone; said once", limit, len(found[too_long[0]]))
    return found


def _split(processor: Processor, documents: Sequence[UserDocument]) -> dict[UserDocument, list[DocumentPart]]:
    """Return the passages of documents that are too long to be read at once."""
    paragraphs, owners, starts = [], [], []
    for document in documents:
        for start, end in _spans(document.body):
            paragraphs.append(Paragraph("", document.title, document.body[start:end]))
            owners.append(document)
            starts.append(start)

    # Nothing in a document, such as an answer, is known that must not be cut.
    cut = _splitter(processor).split_batch(paragraphs, [()] * len(paragraphs))
    found: dict[UserDocument, list[DocumentPart]] = {document: [] for document in documents}
    for document, start, passages in zip(owners, starts, cut, strict=True):
        # Characters are counted from the paragraph's start.
        found[document] += [DocumentPart(passage.document, start + passage.start, start + passage.end)
                            for passage in passages]

    for document, parts in found.items():
        if not parts:
            # White space alone, or a long title, which is read as far as it goes.
            parts.append(DocumentPart(titled(document.title, ""), 0, len(document.body)))
    return found


def _splitter(processor: Processor) -> PassageSplitter:
    if processor not in _splitters:
        # It must not hold the processor, by which it is known for as long as that lives.
        tokenizer: Any = processor.compressor_tokenizer
        _splitters[processor] = PassageSplitter(lambda texts: list(map(len, plain_ids(tokenizer, texts))),
                                                processor.config.document_tokens, ends_with_paragraphs=True)
    return _splitters[processor]


def _spans(text: str) -> list[tuple[int, int]]:
    """Return the stretches of a text, each up to ``STRETCH_CHARACTERS`` long, as (start, end) in characters."""
    spans, start = [], 0
    while len(text) - start > STRETCH_CHARACTERS:
        last = start + STRETCH_CHARACTERS
        # The end of the first kind of border that there is; rfind gives -1 for one that there is not.
        ends = [place + len(border) for border in BORDERS if (place := text.rfind(border, start, last)) > start]
        spans.append((start, ends[0] if ends else last))
        start = spans[-1][1]
    return [*spans, (start, len(text))]


def texts_of_passages(processor: Processor, documents: Sequence[UserDocument], long_documents: str) -> list[str]:
    """Return the texts that the compressor reads of a list of documents, each by itself."""
    parts_of = parts_by_document(processor, documents, long_documents)
    texts = []
    for document in documents:
        texts += [part.text for part in parts_of[document]]
    return texts
