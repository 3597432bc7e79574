"""The documents and passages in a question's prompt, and which of them are text."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from scaledown.models.loading.memory_origin import MemoryPassage
from scaledown.models.memory import Memory
from scaledown.models.serving.choosing import by_score, documents_to_keep
from scaledown.models.serving.compressing import compress
from scaledown.models.serving.inputs.long_documents import split_input
from scaledown.models.serving.inputs.user_input import UserInput
from scaledown.models.serving.text_documents import some_of, whole_documents

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel
    from scaledown.models.serving.question_answering import Request


class Sources(NamedTuple):
    """The documents and passages in the prompt of one question, in their order.

    Attributes:
        numbers: of each in the question's memory, or of documents in full text.
        scores: the relevance of each; None without reranking.
        document_ids: of each; None if they are not known.
        passages: where each stands; None if that is not known.
        texts: the text of each that is read as text, None for one from memory; None if all are from memory.
    """

    numbers: Sequence[int]
    scores: tuple[float, ...] | None
    document_ids: tuple[str, ...] | None
    passages: Sequence[MemoryPassage] | None
    texts: Sequence[str | None] | None = None


def whole_texts(model: ScaleDownModel, given: UserInput, long_documents: str) -> list[Sources]:
    """Return what prompts in full text have."""
    sources = []
    passages = whole_documents(model.processor, given, long_documents)
    for texts, ids, of_question in zip(given.documents, given.document_ids, passages, strict=True):
        sources.append(Sources(range(len(ids)), None, ids, of_question, texts))
    return sources


def chosen_by_score(model: ScaleDownModel, request: Request, given: UserInput,
                    memory: Memory | None) -> tuple[Memory, list[Sources]]:
    """Return the memory that the prompts read, and what they have; the best documents kept may be read as text.

    Of a document that was split a passage is read as text, unless all are.
    """
    if memory is None:
        memory = compress(model, given, request.batch_size, request.num_memory_tokens, request.cache,
                          long_documents=request.long_documents)
    kept = documents_to_keep(memory, request.keep_documents, model.config.keep_threshold, request.keep_tokens,
                             model.config.keep_numbers)
    if request.keep_documents is not None or request.keep_tokens is not None:
        memory = memory.keep(kept)
    sources = _sources(memory, kept)
    if not request.text_documents:
        return memory, sources

    texts_of, _ = split_input(model.processor, given, request.long_documents)
    in_full = whole_texts(model, given, request.long_documents)
    # Taken once: each makes the lists of all questions anew.
    documents, passages = given.documents, texts_of.documents
    from_memory = []
    for question, read in enumerate(sources):
        # Places among the documents that are kept, which are the numbers in the memory now.
        num_kept = len(read.numbers)
        as_text = by_score(read.scores)[:request.text_documents]
        from_memory.append([place for place in range(num_kept) if place not in as_text])
        texts = [passages[question][number] if place in as_text else None
                 for place, number in enumerate(read.numbers)]
        sources[question] = read._replace(texts=texts)

        # All of all documents: then it is full text, in which no document is split.
        if not from_memory[-1] and num_kept == len(passages[question]) > len(documents[question]):
            sources[question] = in_full[question]
    return memory.keep(from_memory), sources


def named_as_text(model: ScaleDownModel, request: Request, given: UserInput, memory: Memory | None,
                  named: list[list[int]]) -> tuple[Memory, list[Sources]]:
    """Return the memory that the prompts read, and what they have; documents that are named need no memory."""
    others = []
    for ids, as_text in zip(given.document_ids, named, strict=True):
        others.append([number for number in range(len(ids)) if number not in as_text])

    if memory is None:
        # Passages are those of the documents that are compressed: they count these alone.
        memory = compress(model, some_of(given, others), request.batch_size, request.num_memory_tokens, request.cache,
                          long_documents=request.long_documents)
        passages = []
        for of_question, numbers in zip(memory.origin.passages, others, strict=True):
            passages.append([passage._replace(document=numbers[passage.document]) for passage in of_question])
    else:
        kept, passages = [], []
        _, all_passages = split_input(model.processor, given, request.long_documents)
        for of_question, numbers in zip(all_passages, others, strict=True):
            kept.append([place for place, passage in enumerate(of_question) if passage.document in numbers])
            passages.append([of_question[place] for place in kept[-1]])
        memory = memory.keep(kept)

    # A document that is named is read whole, in its place among the passages of the others.
    sources = []
    for in_full, as_text, of_question in zip(whole_texts(model, given, request.long_documents), named, passages,
                                             strict=True):
        places = [(passage, None) for passage in of_question]
        places += [(in_full.passages[number], in_full.texts[number]) for number in as_text]
        places.sort(key=itemgetter(0))
        numbers = [passage.document for passage, _ in places]
        sources.append(Sources(numbers, None, tuple(in_full.document_ids[number] for number in numbers),
                               [passage for passage, _ in places], [text for _, text in places]))
    return memory, sources


def _sources(memory: Memory, chosen: list[list[int]]) -> list[Sources]:
    """Return what each prompt has of a memory whose texts had these numbers."""
    origin = memory.origin
    sources = []
    for question, numbers in enumerate(chosen):
        # Without the padding behind a question's documents.
        scores = None if memory.scores is None else tuple(memory.scores[question].tolist()[:len(numbers)])
        ids = None if origin is None else origin.document_ids[question]
        passages = None if origin is None or origin.passages is None else origin.passages[question]
        sources.append(Sources(numbers, scores, ids, passages))
    return sources
