"""Text from data in Markdown: escaped, so that it stands on the page as it is."""

from __future__ import annotations

import re

from scaledown.evaluation.figures.style import one_line

SAMPLE_CHARACTERS = 160

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|~$&-])")
_NO_PART_OF_AN_ANCHOR = re.compile(r"[^\w\s-]")


def escape(text: str) -> str:
    """Return ``text`` as one line with markdown's signs escaped, so that a table cell shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def sample(text: str) -> str:
    """Return :func:`escape` of ``text``, cut if it is long."""
    line = one_line(text)
    return escape(line if len(line) <= SAMPLE_CHARACTERS else line[:SAMPLE_CHARACTERS].rstrip() + "…")


def unbroken(text: str) -> str:
    """Return ``text`` with spaces at which no line is broken, for numbers that belong together."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def anchor(heading: str) -> str:
    """Return the name by which a link reaches a heading, as viewers of Markdown make it."""
    return _NO_PART_OF_AN_ANCHOR.sub("", heading.lower()).strip().replace(" ", "-")
