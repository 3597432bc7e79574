"""Are two questions the same, whatever their case, punctuation, spaces and Unicode normal form?"""

from __future__ import annotations

import unicodedata

_KEPT = ("L", "M", "N")
"""Unicode's categories of letters, the marks that belong to them (vowels, in many scripts), and digits."""


def question_key(text: str) -> str:
    """Return what is equal for equal questions: the letters and digits of ``text``, without differences of case."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(character for character in folded if unicodedata.category(character)[0] in _KEPT)
