"""Text from data as figures and pages show it: nothing in it is obeyed, and what cannot be seen is spelt out."""

from __future__ import annotations

import unicodedata

UNSEEN = ("Cc", "Cs")
"""Unicode's categories of control characters and of half surrogates, which UTF-8 and fonts do not have."""


def printable(text: str) -> str:
    r"""Return ``text`` with ``\x1b`` and the like for what is no character to be seen; line breaks stay."""
    return "".join(repr(sign)[1:-1] if unicodedata.category(sign) in UNSEEN and sign != "\n" else sign
                   for sign in text)


def one_line(text: str) -> str:
    """Return ``text`` in one line, printable."""
    return printable(" ".join(text.split()))


def label(text: str, columns: int) -> str:
    """Return ``text`` in one line of at most ``columns``, of which wide characters such as Chinese ones take two."""
    line, width = one_line(text), 0
    for place, sign in enumerate(line):
        width += 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        if width > columns:
            return line[:place].rstrip() + "…"
    return line
