"""The fields of a row, read alike from an official file and from the Hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scaledown.data.answers import padded
from scaledown.data.qa.question import Unusable


def as_objects(value: Any, *names: str) -> list[dict[str, Any]]:
    """Return a list of objects as it is; or make one, with the fields ``names``, of the Hub's columns."""
    if isinstance(value, dict):
        columns = [value[name] for name in names]
        return [dict(zip(names, entries, strict=True)) for entries in zip(*columns, strict=True)]
    return list(value)


def as_pairs(value: Any, left: str, right: str) -> list[tuple[Any, Any]]:
    """Return a list of pairs, from such a list or from the Hub's two columns ``left`` and ``right``."""
    pairs = zip(value[left], value[right], strict=True) if isinstance(value, dict) else value
    return [tuple(pair) for pair in pairs]


def distinct_answers(answers: Iterable[str]) -> tuple[str, ...]:
    """Return the answers with single spaces, in order, without those that equal an earlier one once normalised.

    Raises:
        Unusable: if none is left, because nothing of any survives normalisation.
    """
    distinct: dict[str, str] = {}  # by normalised form
    for answer in answers:
        key = padded(answer)
        if key.strip():
            distinct.setdefault(key, " ".join(answer.split()))

    if not distinct:
        raise Unusable("its answer is empty")
    return tuple(distinct.values())


def clean_query(text: str) -> str:
    """Return the question with single spaces.

    Raises:
        Unusable: if it is blank.
    """
    query = " ".join(text.split())
    if not query:
        raise Unusable("its question is blank")
    return query
