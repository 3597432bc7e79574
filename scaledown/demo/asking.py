"""One question to the demo: it is checked, its documents are compressed, and all systems answer one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scaledown.config import SPLIT
from scaledown.demo.answer_flops import answer_flops
from scaledown.demo.memory_look import MemoryLook, look_into
from scaledown.demo.timed_answer import GrowingText, growing_answer, now
from scaledown.evaluation.systems import FULL_TEXT, NO_DOCUMENTS, SCALEDOWN
from scaledown.models.engine.decoder import token_embeddings
from scaledown.models.loading.memory_origin import MemoryPassage
from scaledown.models.memory import Memory
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.choosing import Keep, by_score, check_keep_documents, documents_to_keep
from scaledown.models.serving.inputs.long_documents import split_input
from scaledown.models.serving.inputs.user_input import UserInput, read_input
from scaledown.prompt.plain_text import plain_ids

SYSTEMS = (SCALEDOWN, FULL_TEXT, NO_DOCUMENTS)
MOST_DOCUMENTS, MOST_TOKENS = 100, 20_000
"""The most that a question may bring: documents, and tokens of the generator in question and documents."""
MOST_LOOKS = 12
"""Passages into whose memory the page looks, those that are kept first; each is drawn token by token."""


@dataclass(frozen=True)
class ReadPassage:
    """A document as the compressor read it, or a passage of a long one.

    Attributes:
        name: its title or its number, and the number of the passage; an id is not shown.
        text: as it was read, with the title.
        place: its characters in the text of its document; None if it is the whole document.
        score: None without reranking.
        is_kept: the generator reads it.
        look: into its memory; None if that was not done.
    """

    name: str
    text: str
    place: tuple[int, int] | None
    score: float | None
    is_kept: bool
    look: MemoryLook | None = None


@dataclass(frozen=True)
class AskedQuestion:
    """The state of a question: all that is known of it so far.

    Attributes:
        passages: all that was compressed, in the order of the documents.
        threshold: the score from which on "auto" keeps a passage; None if there is none.
        answers: by the name of their system, in the order in which they are given.
    """

    passages: tuple[ReadPassage, ...]
    threshold: float | None
    answers: dict[str, GrowingText]


def ask(model: ScaleDownModel, question: str, documents: Sequence[Any], keep: Keep = None) -> Iterator[AskedQuestion]:
    """Yield what is known of a question, as it becomes known.

    Args:
        model: with a compressor.
        question: as it was typed.
        documents: as models take them.
        keep: the number of the best documents or passages that the generator reads, "auto", or None for all.

    Raises:
        ValueError: if something is missing, too long, or asks for what the model cannot do.
    """
    given = checked_input(model, question, documents, keep)
    [question] = given.questions
    started = now(model)
    memory = model.compress(question, documents, long_documents=SPLIT)
    compress_seconds = now(model) - started

    # What the compressor read, and what is kept of it.
    parts, places = split_input(model.processor, given, SPLIT)
    [texts], [kept] = parts.documents, documents_to_keep(memory, keep, model.config.keep_threshold)
    asked = AskedQuestion(_passages(given, texts, places[0], memory, kept), model.config.keep_threshold, {})
    yield asked

    [query_ids] = plain_ids(model.processor.compressor_tokenizer, [question])
    query_tokens = min(len(query_ids), model.config.query_tokens)
    passage_tokens = [len(ids) for ids in plain_ids(model.processor.compressor_tokenizer, texts)]
    for system in SYSTEMS:
        read, seconds = (memory.keep([kept]), compress_seconds) if system is SCALEDOWN else (None, 0.0)
        for answer in growing_answer(model, system, question, list(documents), read, seconds):
            if answer.seconds is not None:
                flops = answer_flops(model, answer, query_tokens, passage_tokens)
                answer = dataclasses.replace(answer, flops=flops)
            asked = dataclasses.replace(asked, answers=asked.answers | {system.name: answer})
            yield asked

        # The look comes behind the answer, which it would keep waiting.
        if system is SCALEDOWN:
            asked = dataclasses.replace(asked, passages=_with_looks(model, asked.passages, memory))
            yield asked


def checked_input(model: ScaleDownModel, question: str, documents: Sequence[Any], keep: Keep) -> UserInput:
    """Return the question with its documents as texts.

    Raises:
        ValueError: as :func:`ask`.
    """
    if not question.strip():
        raise ValueError("Question: type one, or choose a sample.")
    if not documents:
        raise ValueError("Documents: paste at least one, open a file, or choose a sample.")
    if len(documents) > MOST_DOCUMENTS:
        raise ValueError(f"Documents: {len(documents):,} are too many; this page takes {MOST_DOCUMENTS}.")
    if keep is not None:
        check_keep_documents(keep, model.config.enable_reranking, model.config.keep_threshold)

    # Counted as the generator reads them in full text, which is the longest of its prompts.
    given = read_input(question.strip(), documents)
    texts = [*given.questions, *given.documents[0]]
    num_tokens = sum(len(ids) for ids in plain_ids(model.processor.tokenizer, texts))
    if num_tokens > MOST_TOKENS:
        raise ValueError(f"Documents: with the question they have {num_tokens:,} tokens; this page takes "
                         f"{MOST_TOKENS:,}.")
    return given


def _passages(given: UserInput, texts: Sequence[str], places: Sequence[MemoryPassage], memory: Memory,
              kept: Sequence[int]) -> tuple[ReadPassage, ...]:
    """Return what was compressed, with its names and scores."""
    is_split = {place.document for place in places if place.number > 0}
    scores = [None] * len(places) if memory.scores is None else memory.scores[0].tolist()

    passages = []
    for number, (text, place, score) in enumerate(zip(texts, places, scores, strict=True)):
        name = given.sources[0][place.document].title or f"Document {place.document + 1}"
        span = None
        if place.document in is_split:
            name, span = f"{name}, passage {place.number + 1}", (place.start, place.end)
        passages.append(ReadPassage(name, text, span, score, number in kept))
    return tuple(passages)


def _with_looks(model: ScaleDownModel, passages: tuple[ReadPassage, ...], memory: Memory) -> tuple[ReadPassage, ...]:
    """Return the passages with a look into the memory of those that are shown."""
    table = token_embeddings(model.generator.base)                                # (V, D)
    shown = looked_into(passages)
    looked = []
    for number, passage in enumerate(passages):
        if number in shown:
            look = look_into(memory.embeddings[0, number], passage.text, model.processor.tokenizer, table)
            passage = dataclasses.replace(passage, look=look)
        looked.append(passage)
    return tuple(looked)


def looked_into(passages: Sequence[ReadPassage]) -> list[int]:
    """Return the numbers of the passages that are drawn token by token: the kept ones, then the best of the others."""
    # Without scores they stay in their order.
    order = by_score([0.0 if passage.score is None else passage.score for passage in passages])
    order.sort(key=lambda number: not passages[number].is_kept)
    return order[:MOST_LOOKS]
