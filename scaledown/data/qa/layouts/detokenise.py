"""Natural Questions' tokens turned into text as people write it, with the place of each token.

The dataset writes ``( 1981 )``, ``Levi 's``, ``family - owned``, ``46 -- 10`` and ``said `` yes '' .``; a generator
says ``(1981)``, ``Levi's``, ``family-owned``, ``46–10`` and ``said "yes".``, and SQuAD's normalisation does not make
all of them equal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from scaledown.data.sentences import Span

_NO_SPACE_BEFORE = re.compile(r"(?:[,.;:!?%)\]}]+|''|'s|'S|'re|'ve|'ll|'d|'m|n't|-)$")
_NO_SPACE_AFTER = re.compile(r"(?:[(\[{$£€]|``|-)$")
_WRITTEN = {"``": '"', "''": '"', "--": "–"}
_DASH = "--"


@dataclass(frozen=True)
class Joined:
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


def detokenise(tokens: Sequence[str]) -> Joined:
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
    return Joined(text, tuple(places))
