"""Answers as they grow: token ids become text that is never taken back.

``generate`` passes its tokens to a streamer while it runs, so it runs in a thread, and the reader of the answers takes
the tokens from a queue.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

UNFINISHED = "\ufffd"
"""The text of a tokenizer for a character of which some bytes are still missing."""
_END = object()


class Piece(NamedTuple):
    """More text of one answer.

    Attributes:
        question: its number among the questions.
        text: the new text.
    """

    question: int
    text: str


def steps(generate: Callable[..., Any]) -> Iterator[Tensor]:
    """Run ``generate`` in a thread, and yield the next token (B,) of each answer as it comes.

    Args:
        generate: takes ``streamer`` and ``stopping_criteria``. It is stopped if the caller stops taking tokens.
    """
    streamer = _TokenQueue()

    def run() -> None:
        try:
            generate(streamer=streamer, stopping_criteria=[streamer.stopping])
        except BaseException as fault:  # noqa: BLE001 - raised again below, in the thread of the reader
            streamer.tokens.put(fault)
        finally:
            streamer.tokens.put(_END)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (token := streamer.tokens.get()) is not _END:
            if isinstance(token, BaseException):
                raise token
            yield token
    finally:
        # The model is free again only when the thread has ended.
        streamer.stopping.is_asked = True
        thread.join()


def pieces(tokens: Iterator[Tensor], numbers: Sequence[int], stop_ids: Sequence[int],
           to_text: Callable[[list[int]], str]) -> Iterator[Piece]:
    """Yield text as its tokens come; all text of a question, joined, is its whole answer.

    Args:
        tokens: the next token of each answer, step by step; those of dummies come last.
        numbers: of the questions.
        stop_ids: tokens that end an answer.
        to_text: an answer's ids to its text, without spaces around it.
    """
    answers = [GrowingAnswer(number) for number in numbers]
    for step in tokens:
        for answer, token in zip(answers, step.tolist()[:len(answers)], strict=True):
            # Behind its end an answer is padded until the longest of the batch ends.
            if token in stop_ids:
                answer.has_ended = True
            elif not answer.has_ended and (new := answer.add(token, to_text)):
                yield Piece(answer.number, new)

    for answer in answers:
        if new := answer.rest(to_text):
            yield Piece(answer.number, new)


class GrowingAnswer:
    """An answer, token by token, of which no text is taken back.

    Attributes:
        number: of its question.
        ids: its tokens so far.
        text: what was returned of its text so far.
        has_ended: whether the token that ends it has come; whoever adds tokens sets it.
    """

    def __init__(self, number: int) -> None:
        self.number, self.ids, self.text, self.has_ended = number, [], "", False

    def add(self, token: int, to_text: Callable[[list[int]], str]) -> str:
        """Add a token, and return the text that is new with it; ``to_text`` makes a text of all ids."""
        self.ids.append(token)
        text = to_text(self.ids)
        # The last character may still change: its other bytes come with the next tokens.
        return "" if text.endswith(UNFINISHED) else self._take(text)

    def rest(self, to_text: Callable[[list[int]], str]) -> str:
        """Return what is left at the end: half a character will not become a whole one any more."""
        return self._take(to_text(self.ids))

    def _take(self, text: str) -> str:
        """Return the new end of ``text``; nothing if it changes what was already returned."""
        if not text.startswith(self.text):
            return ""
        new, self.text = text[len(self.text):], text
        return new


class _TokenQueue(BaseStreamer):
    """A streamer of transformers that holds tokens until they are taken."""

    def __init__(self) -> None:
        self.tokens: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.stopping = _Stopping()

    def put(self, value: Tensor) -> None:
        """Take the next tokens (B,), but not the prompt's ids, which come first: a prompt of embeddings has none."""
        if value.numel() and value.dim() == 1:
            self.tokens.put(value)

    def end(self) -> None:
        """Do nothing: the thread itself puts the end into the queue, also after an error."""


class _Stopping(StoppingCriteria):
    """Ends all answers when asked."""

    is_asked = False

    def __call__(self, input_ids: Tensor, scores: Tensor, **settings: Any) -> Tensor:
        return torch.full((len(input_ids),), self.is_asked, dtype=torch.bool, device=input_ids.device)
