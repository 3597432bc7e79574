"""What the four QA datasets have in common: a question, the paragraphs it came with, and where its answer stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from scaledown.data.passages import Paragraph
from scaledown.data.qa.checks import Check
from scaledown.data.sentences import Span


class Unusable(Exception):
    """A question that no record can be made of; the message is the reason, which is counted and told."""


@dataclass(frozen=True)
class Gold:
    """Characters of a question's paragraph that it is answered from: the passages that hold them are gold."""

    paragraph: int
    span: Span


@dataclass(frozen=True)
class Question:
    """A question with its aliases (the answer to learn first) and its paragraphs, gold and others."""

    id: str
    query: str
    answers: tuple[str, ...]
    paragraphs: tuple[Paragraph, ...]
    gold: tuple[Gold, ...]


@dataclass(frozen=True)
class Layout:
    """One way in which a dataset is published.

    ``recognises`` looks at a JSON object: the whole file, or the first of its rows; ``check`` tells the faults of the
    file, or of one row. ``rows`` are the questions of such content (an object, or rows), not yet read, which came from
    the path or dataset named; ``question`` reads one, and may raise :class:`Unusable`. ``questions_a_record`` is how
    many questions are looked at for each record wanted: more make a larger pool of hard negatives, and fewer do where
    each brings a whole article along. ``buffered_rows`` are shuffled together where rows come as a stream.
    """

    dataset: str
    name: str
    recognises: Callable[[dict[str, Any]], bool]
    check: Check
    rows: Callable[[Any, str], Iterable[Any]]
    question: Callable[[Any], Question]
    questions_a_record: float
    buffered_rows: int


def same_rows(content: Any, place: str) -> Iterable[Any]:
    """The rows of a layout whose content is its rows."""
    return content


def has_keys(*keys: str) -> Callable[[dict[str, Any]], bool]:
    """A test for an object with all of ``keys``."""
    return lambda head: all(key in head for key in keys)
