"""Prompts of training records: their documents from memory, and those that are drawn as text beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scaledown.models.processor import Processor


def training_prompts(processor: Processor, questions: Sequence[str], queries: Sequence[str],
                     documents: Sequence[Sequence[str]], num_memory_tokens: int,
                     text_documents: Sequence[Sequence[int]] | None) -> tuple[list[list[int]], list[int]]:
    """Return the prompts, and the numbers of the pairs whose memory they read.

    Args:
        processor: makes the prompts.
        questions: those that the generator reads.
        queries: those that the compressor reads; the numbers and names behind the memory are those beyond them.
        documents: of each question.
        num_memory_tokens: L.
        text_documents: of each question, the numbers of the documents that its prompt has as text [none].
    """
    texts: list[list[str | None]] = []
    from_memory: list[list[str]] = []
    in_prompts: list[int] = []
    num_pairs = 0
    for number, of_question in enumerate(documents):
        are_texts = set() if text_documents is None else set(text_documents[number])
        texts.append([text if place in are_texts else None for place, text in enumerate(of_question)])
        from_memory.append([text for place, text in enumerate(of_question) if place not in are_texts])
        # Pairs are counted question by question.
        in_prompts += [num_pairs + place for place in range(len(of_question)) if place not in are_texts]
        num_pairs += len(of_question)

    prompts = processor.memory_prompts(questions, list(map(len, from_memory)), num_memory_tokens, texts,
                                       processor.kept_numbers(queries, from_memory))
    return prompts, in_prompts
