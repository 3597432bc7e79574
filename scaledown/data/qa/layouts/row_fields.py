"""The fields of a row as question, answers and texts: read alike from an official file and from the Hub.

Natural Questions has tokens instead of text. It writes ``( 1981 )``, ``Levi 's``, ``family - owned``, ``46 -- 10`` and
``said `` yes '' .``; a generator says ``(1981)``, ``Levi's``, ``family-owned``, ``46–10`` and ``said "yes".``, and
SQuAD's normalisation does not make all of them equal. So they are joined as people write, with the place of each token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scaledown.data.answers import padded
from scaledown.data.qa.question import Unusable
from scaledown.prompt.sentences import Span

_NO_SPACE_BEFORE = re.compile(r"(?:[,.;:!?%)\]}]+|''|'s|'S|'re|'ve|'ll|'d|'m|n't|-)$")
_NO_SPACE_AFTER = re.compile(r"(?:[(\[{$£€]|``|-)$")
_WRITTEN = {"``": '"', "''": '"', "--": "–"}
_DASH = "--"


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


@dataclass(frozen=True)
class JoinedTokens:
    """A text and the characters of each of its tokens; a tag takes none."""

    text: str
    places: tuple[Span, ...]

    def span(self, first: int, end: int) -> Span:
        """Return the characters of tokens ``first`` to ``end`` (not included)."""
        places = [place for place in self.places[first:end] if place[0] < place[1]]  # without tags
        return (places[0][0], places[-1][1]) if places else (0, 0)


def is_tag(token: str) -> bool:
    """Return whether a token is an HTML tag, such as ``<P>``."""
    return len(token) > 2 and token.startswith("<") and token.endswith(">")


def detokenise(tokens: Sequence[str]) -> JoinedTokens:
    """Join tokens: a line for the words between two tags, no space before a comma, straight quotes."""
    text, places = "", []
    separator = ""  # between the text so far and the next token
    for i, token in enumerate(tokens):
        if is_tag(token) or not token:
            # A tag starts a new line, unless the text is still empty.
            separator = "\n" if text and token else separator
            places.append((len(text), len(text)))
            continue

        # A dash between two numbers is a range, 46–10; elsewhere it keeps its spaces.
        next_token = tokens[i + 1] if i + 1 < len(tokens) else ""
        is_range = token == _DASH and text[-1:].isdigit() and next_token[:1].isdigit()
        if separator == " " and (is_range or _NO_SPACE_BEFORE.match(token)):
            separator = ""

        written = _WRITTEN.get(token, token)
        text += separator
        places.append((len(text), len(text) + len(written)))
        text += written
        separator = "" if is_range or _NO_SPACE_AFTER.match(token) else " "
    return JoinedTokens(text, tuple(places))
