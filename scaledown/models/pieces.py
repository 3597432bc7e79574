"""Answers as they grow: token ids become text that is never taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

UNFINISHED = "\ufffd"
"""What a tokenizer writes for a character of which only some bytes are there."""


class Piece(NamedTuple):
    """More text of one answer.

    Attributes:
        question: its number among the questions.
        text: what is new.
    """

    question: int
    text: str


def pieces(steps: Iterable[Tensor], numbers: Sequence[int], stop_ids: Sequence[int],
           to_text: Callable[[list[int]], str]) -> Iterator[Piece]:
    """Text as its tokens come; the pieces of a question, joined, are its whole answer.

    Args:
        steps: the next token (B,) of each answer, step by step.
        numbers: of the B questions.
        stop_ids: tokens that end an answer.
        to_text: an answer's ids to its text, without spaces around it.
    """
    growing = [_Growing(number) for number in numbers]
    for tokens in steps:
        for answer, token in zip(growing, tokens.tolist(), strict=True):
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
        """What is new in ``text``; nothing while its last character may still change."""
        return "" if text.endswith(UNFINISHED) else self.rest(text)

    def rest(self, text: str) -> str:
        """What is new in ``text``."""
        if not text.startswith(self.said):
            return ""
        new, self.said = text[len(self.said):], text
        return new
