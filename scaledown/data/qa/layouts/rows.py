"""Reading the fields of a row alike, whether it comes from an official file or from the Hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scaledown.data.answers import padded
from scaledown.data.qa.question import Unusable


def as_objects(value: Any, *names: str) -> list[dict[str, Any]]:
    """Return a list of objects, from itself or from the lists by field, of which those named, that the Hub has."""
    if isinstance(value, dict):
        columns = [value[name] for name in names]
        return [dict(zip(names, entries, strict=True)) for entries in zip(*columns, strict=True)]
    return list(value)


def as_pairs(value: Any, first: str, second: str) -> list[tuple[Any, Any]]:
    """A list of pairs, from itself or from the two lists by key that the Hub's datasets make of it."""
    pairs = zip(value[first], value[second], strict=True) if isinstance(value, dict) else value
    return [(left, right) for left, right in pairs]


def distinct_answers(answers: Iterable[str]) -> tuple[str, ...]:
    """The answers with single spaces, in order, without those that are equal to an earlier one once normalised.

    Raises:
        Unusable: where none is left, since nothing of them survives normalisation.
    """
    kept: dict[str, str] = {}
    for answer in answers:
        if (key := padded(answer)).strip():
            kept.setdefault(key, " ".join(answer.split()))
    if not kept:
        raise Unusable("its answer is empty")
    return tuple(kept.values())


def clean_query(text: str) -> str:
    """The question with single spaces.

    Raises:
        Unusable: where it is blank.
    """
    if not (query := " ".join(text.split())):
        raise Unusable("its question is blank")
    return query
