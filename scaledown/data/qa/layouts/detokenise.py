"""Natural Questions' tokens into text as people write it, with the place of each token kept.

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
    """A text and where each of its tokens stands in it; a tag stands nowhere."""

    text: str
    places: tuple[Span, ...]

    def span(self, first: int, end: int) -> Span:
        """The characters of tokens ``first`` to ``end`` (not included)."""
        places = [place for place in self.places[first:end] if place[0] < place[1]]
        return (places[0][0], places[-1][1]) if places else (0, 0)


def is_tag(token: str) -> bool:
    """Whether a token is an HTML tag, such as ``<P>``."""
    return len(token) > 2 and token.startswith("<") and token.endswith(">")


def detokenise(tokens: Sequence[str]) -> Joined:
    """Join tokens: a line for what stands between two tags, no space before a comma, straight quotes."""
    text, places = "", []
    separator = ""
    for i, token in enumerate(tokens):
        if is_tag(token) or not token:
            separator = "\n" if text and token else separator
            places.append((len(text), len(text)))
            continue
        written = _WRITTEN.get(token, token)
        is_range = token == _DASH and text[-1:].isdigit() and "".join(tokens[i + 1:i + 2])[:1].isdigit()
        text += "" if separator == " " and (is_range or _NO_SPACE_BEFORE.match(token)) else separator
        places.append((len(text), len(text) + len(written)))
        text += written
        separator = "" if is_range or _NO_SPACE_AFTER.match(token) else " "
    return Joined(text, tuple(places))
