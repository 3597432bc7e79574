"""Answers as they grow: token ids become text that is never taken back.

``generate`` hands its tokens to a streamer while it runs, so it runs in a thread of its own, and whoever reads the
pieces takes them from a queue.
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
"""What a tokenizer writes for a character of which only some bytes are there."""
_END = object()


class Piece(NamedTuple):
    """More text of one answer.

    Attributes:
        question: its number among the questions.
        text: what is new.
    """

    question: int
    text: str


def steps(generate: Callable[..., Any]) -> Iterator[Tensor]:
    """Run ``generate`` in a thread, and yield the next token (B,) of each answer as it comes.

    Args:
        generate: takes ``streamer`` and ``stopping_criteria``. It ends early if nobody takes its tokens any more.
    """
    streamer = _Queue()

    def run() -> None:
        try:
            generate(streamer=streamer, stopping_criteria=[streamer.stopping])
        except BaseException as fault:  # noqa: BLE001 - handed to whoever reads
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
        streamer.stopping.is_asked = True
        thread.join()


class _Queue(BaseStreamer):
    """A streamer of transformers that keeps the tokens until they are taken."""

    def __init__(self) -> None:
        self.tokens: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.stopping = _Stopping()

    def put(self, value: Tensor) -> None:
        """Take the next tokens (B,); what comes first are the prompt's ids, of which embeddings have none."""
        if value.numel() and value.dim() == 1:
            self.tokens.put(value)

    def end(self) -> None:
        """Called by ``generate`` at its end; the thread says so itself, in any case."""


class _Stopping(StoppingCriteria):
    """Ends all answers when asked."""

    is_asked = False

    def __call__(self, input_ids: Tensor, scores: Tensor, **settings: Any) -> Tensor:
        return torch.full((len(input_ids),), self.is_asked, dtype=torch.bool, device=input_ids.device)


def pieces(tokens: Iterator[Tensor], numbers: Sequence[int], stop_ids: Sequence[int],
           to_text: Callable[[list[int]], str]) -> Iterator[Piece]:
    """Yield text as its tokens come; the pieces of a question, joined, are its whole answer.

    Args:
        tokens: the next token of each answer, step by step; those of dummies come behind.
        numbers: of the questions.
        stop_ids: tokens that end an answer.
        to_text: an answer's ids to its text, without spaces around it.
    """
    growing = [_Growing(number) for number in numbers]
    for step in tokens:
        for answer, token in zip(growing, step.tolist()[:len(growing)], strict=True):
            if token in stop_ids:
                answer.has_ended = True
            elif not answer.has_ended:
                answer.ids.append(token)
                if text := answer.take(to_text(answer.ids)):
                    yield Piece(answer.number, text)
    for answer in growing:
        if rest := answer.rest(to_text(answer.ids)):
            yield Piece(answer.number, rest)


class _Growing:
    """An answer with the text of it that was handed on."""

    def __init__(self, number: int) -> None:
        self.number, self.ids, self.said, self.has_ended = number, [], "", False

    def take(self, text: str) -> str:
        """Return what is new in ``text``; nothing while its last character may still change."""
        return "" if text.endswith(UNFINISHED) else self.rest(text)

    def rest(self, text: str) -> str:
        """Return what is new in ``text``."""
        if not text.startswith(self.said):
            return ""
        new, self.said = text[len(self.said):], text
        return new
