"""The identity of a question, whatever its case, punctuation, spaces and Unicode normal form."""

from __future__ import annotations

import unicodedata

_CATEGORIES = ("L", "M", "N")
"""Unicode's categories of letters, the marks that belong to them (vowels, in many scripts), and digits."""


def question_key(text: str) -> str:
    """Return a key that equal questions share: the letters and digits of ``text``, without differences of case."""
    # Folding can undo the normal form (U+01F0, a j with a caron, becomes two characters), so it is restored.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(character for character in folded if unicodedata.category(character)[0] in _CATEGORIES)
