"""Pages: what a corpus is made of, in the layouts that corpora come in.

KILT's knowledge source (Petroni et al., arXiv:2009.02252) has a page a line; its ``text`` is a list: the title,
paragraphs, section headings ``Section::::Early life.`` and list items ``BULLET::::- one of them``. Others have a text
a line (BEIR: ``{"_id", "title", "text"}``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scaledown.data.storage.values import is_text, shown

ID_NAMES = ("id", "_id", "docid", "doc_id", "wikipedia_id")
TEXT_NAMES = ("text", "contents")
TITLE_NAMES = ("title", "wikipedia_title")
EXPECTED = "an object with id (or _id), text and, if it has one, title"
SECTION = "Section::::"
_BULLET = re.compile(r"BULLET::::\s*(?:[-*#:]+\s+|\d+\.\s+)?")


@dataclass(frozen=True)
class Page:
    """A text of the corpus, whole. ``id`` is its own."""

    id: str
    title: str
    text: str


def page_of(values: Any) -> Page:
    """The page that a line or a row of a corpus holds.

    Raises:
        ValueError: where it holds none; the message says what was expected.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"expected {EXPECTED}")
    id, text, title = (_first(values, names) for names in (ID_NAMES, TEXT_NAMES, TITLE_NAMES))
    if isinstance(text, list) and all(isinstance(line, str) for line in text):
        text = kilt_text(text)
    page = Page(_as_text(id), "" if title is None else _as_text(title), text)
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
    """Return a number, which an id or a title may be, as text; whatever else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def kilt_text(lines: list[str]) -> str:
    """The running text of a KILT page: without its title and section headings; list items without their marks."""
    return "\n".join(_BULLET.sub("", line, count=1).strip() if line.startswith("BULLET::::") else line.strip()
                     for line in lines[1:] if line.strip() and not line.startswith(SECTION))


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)
