"""The pages of a corpus, in the layouts in which corpora are published.

KILT's knowledge source (Petroni et al., arXiv:2009.02252) has a page a line; its ``text`` is a list: the title,
paragraphs, section headings ``Section::::Early life.`` and list items ``BULLET::::- one of them``. Others have a text
a line (BEIR: ``{"_id", "title", "text"}``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scaledown.data.storage.lines import first_value, is_text, shown

ID_NAMES = ("id", "_id", "docid", "doc_id", "wikipedia_id")
TEXT_NAMES = ("text", "contents")
TITLE_NAMES = ("title", "wikipedia_title")
EXPECTED = "an object with id (or _id), text and, if it has one, title"
SECTION = "Section::::"
_BULLET = re.compile(r"^BULLET::::\s*(?:[-*#:]+\s+|\d+\.\s+)?")


@dataclass(frozen=True)
class Page:
    """A whole text of the corpus, before it is cut. Its ``id`` should be unique."""

    id: str
    title: str
    text: str


def page_of(values: Any) -> Page:
    """Return the page that a line or a row of a corpus holds.

    Raises:
        ValueError: if it holds none; the message says what was expected.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"expected {EXPECTED}")

    text = first_value(values, TEXT_NAMES)
    if isinstance(text, list) and all(isinstance(line, str) for line in text):
        text = kilt_text(text)
    title = first_value(values, TITLE_NAMES)
    page = Page(_as_text(first_value(values, ID_NAMES)), "" if title is None else _as_text(title), text)

    # The values may still be of any type. Text and title may be blank, an id may not.
    faults = []
    for name, value in (("id", page.id), ("title", page.title), ("text", page.text)):
        if value is None or name == "id" and not str(value).strip():
            faults.append(f"it has no {name}")
        elif not is_text(value):
            faults.append(f"its {name} is {shown(value)}")

    if faults:
        raise ValueError(f"{'; '.join(faults)}; expected {EXPECTED}")
    return page


def _as_text(value: Any) -> Any:
    """Return a number, which an id or a title may be, as text, and any other value as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def kilt_text(lines: list[str]) -> str:
    """Return the running text of a KILT page: without title and section headings, list items without their marks."""
    texts = []
    for line in lines[1:]:  # the title comes first
        if line.strip() and not line.startswith(SECTION):
            texts.append(_BULLET.sub("", line).strip())
    return "\n".join(texts)
