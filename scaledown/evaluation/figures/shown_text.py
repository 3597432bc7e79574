"""Text from data as figures and pages show it: on one line, with invisible characters written as escapes."""

from __future__ import annotations

import unicodedata

UNSEEN = ("Cc", "Cs")
"""Unicode's categories of control characters and of lone surrogates, which UTF-8 and fonts do not have."""


def printable(text: str) -> str:
    r"""Return ``text`` with invisible characters as escapes such as ``\x1b``; line breaks stay."""
    shown = []
    for character in text:
        is_unseen = unicodedata.category(character) in UNSEEN and character != "\n"
        shown.append(repr(character)[1:-1] if is_unseen else character)  # repr without its quotes

    return "".join(shown)


def one_line(text: str) -> str:
    """Return ``text`` on one line, printable."""
    return printable(" ".join(text.split()))


def label(text: str, columns: int) -> str:
    """Return ``text`` on one line of at most ``columns``; wide characters such as Chinese ones take two."""
    line, width = one_line(text), 0
    for place, character in enumerate(line):
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1  # wide or full width
        if width > columns:
            return line[:place].rstrip() + "…"
    return line
