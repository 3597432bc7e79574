"""The common form of all QA datasets: a question, its paragraphs and the place of its answer, from any layout."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from scaledown.data.qa.checks import FieldCheck
from scaledown.prompt.passages import Paragraph
from scaledown.prompt.sentences import Span


class Unusable(Exception):
    """A question that no record can be made of; the message is the reason, which is counted and reported."""


@dataclass(frozen=True)
class Gold:
    """Characters of one of a question's paragraphs that answer it: the passages that hold them are gold."""

    paragraph: int
    span: Span


@dataclass(frozen=True)
class QAQuestion:
    """A question with its aliases (the answer to learn first) and its paragraphs, gold and others."""

    id: str
    query: str
    answers: tuple[str, ...]
    paragraphs: tuple[Paragraph, ...]
    gold: tuple[Gold, ...]


@dataclass(frozen=True)
class Layout:
    """One way in which a dataset is published.

    Attributes:
        name: the layout in words, for messages.
        recognises: returns whether a JSON object is of this layout: the whole file, or the first of its rows.
        check: finds the faults of the whole file, or of one row.
        rows: takes the content (an object, or rows) and the path or dataset it came from, and returns the questions in
            it, not yet read.
        question: reads one of them, and may raise :class:`Unusable`.
        questions_a_record: questions that are read for each record wanted. More make a larger pool of hard negatives;
            fewer are enough if each comes with a whole article.
        buffered_rows: rows that are shuffled together, if they come as a stream.
        is_whole_file: one object holds all questions of a file; otherwise one object is one question.
    """

    name: str
    recognises: Callable[[dict[str, Any]], bool]
    check: FieldCheck
    rows: Callable[[Any, str], Iterable[Any]]
    question: Callable[[Any], QAQuestion]
    questions_a_record: float
    buffered_rows: int
    is_whole_file: bool = False


@dataclass(frozen=True)
class QADataset:
    """A dataset, on the Hub and on disk.

    Attributes:
        name: as ``--dataset`` takes it.
        hub_name: its id on the Hub.
        hub_config: its config there, or None.
        folders: names that its folder may have, if all datasets are read from one.
        layouts: the ways in which it is published.
    """

    name: str
    hub_name: str
    hub_config: str | None
    folders: tuple[str, ...]
    layouts: tuple[Layout, ...]


def same_rows(content: Any, place: str) -> Iterable[Any]:
    """Return the rows of a layout whose content is its rows."""
    return content


def has_keys(*keys: str) -> Callable[[dict[str, Any]], bool]:
    """Return a test for an object with all of ``keys``."""
    return lambda head: all(key in head for key in keys)
