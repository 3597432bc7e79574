"""Documents as users have them: strings, dicts, or objects like LangChain's ``Document``; each has a text and an id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from scaledown.prompt import titled

TEXT_NAMES = ("text", "content", "page_content")
"""Keys of a dict that may hold the text of a document; the first one that is there counts."""
ID_NAMES = ("id", "source")
HASH_DIGITS = 16
SHOWN_CHARACTERS = 40


class UserDocument(NamedTuple):
    """A document as the model reads it.

    Attributes:
        title: "" if it has none.
        body: its text without the title.
        id: as the user gave it, else a hash of the text with the title, ``sha256:...``.
    """

    title: str
    body: str
    id: str

    @property
    def text(self) -> str:
        """The text with the title in front, if there is one."""
        return titled(self.title, self.body)


def read_document(value: Any) -> UserDocument:
    """Return the text and the id of one document.

    Args:
        value: a string; a dict with ``text`` (or ``content`` or ``page_content``), and perhaps ``title`` and ``id``; or
            an object with ``page_content`` and perhaps ``metadata``, a dict with ``title``, ``id`` or ``source``.

    Raises:
        ValueError: if it is something else, or a text in it cannot be read; the message does not name its place.
    """
    fields = _fields(value)
    name = next((name for name in TEXT_NAMES if fields.get(name) is not None), None)
    if name is None:
        keys = ", ".join(map(str, fields)) or "nothing"
        raise ValueError(f"must have its text under one of {', '.join(TEXT_NAMES)}; it has {keys}")
    check_text(fields[name], "" if isinstance(value, str) else f"its {name} ")

    # Title and id stand beside the text, or in the metadata that loaders of documents write.
    metadata = fields.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    title = _first(fields.get("title"), metadata.get("title"))
    if title is not None:
        check_text(title, "its title ")

    given_id = _first(fields.get("id"), *(metadata.get(name) for name in ID_NAMES))
    if given_id is None:
        given_id = _hash(titled(title or "", fields[name]))
    return UserDocument(title or "", fields[name], str(given_id))


def is_document(value: Any) -> bool:
    """Return whether a value has the form of a document, and is no list of them."""
    return isinstance(value, str | Mapping) or hasattr(value, "page_content")


def check_text(text: Any, name: str = "") -> None:
    """Refuse something that is no text, or a text that no tokenizer can read; ``name`` begins the message.

    Raises:
        ValueError: if it is one of these.
    """
    if not isinstance(text, str):
        raise ValueError(f"{name}must be a string, got {shown(text)}")

    try:
        # Half of a surrogate pair is a character to Python, but no tokenizer can read it.
        text.encode()
    except UnicodeEncodeError as fault:
        raise ValueError(f"{name}holds half a character ({text[fault.start]!a}, character {fault.start + 1}): "
                         "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') mends it") from None


def shown(value: Any) -> str:
    """Return a value as messages show it: its type, and the start of its text."""
    text = repr(value)
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}..."
    return f"{type(value).__name__} {text}"


def _fields(value: Any) -> Mapping[str, Any]:
    """Return a document's parts by name, whatever its form.

    Raises:
        ValueError: if it has none of the forms.
    """
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, Mapping):
        return value
    if hasattr(value, "page_content"):
        return {name: getattr(value, name, None) for name in ("page_content", "metadata", "id")}
    raise ValueError(f"must be a string, a dict with a text, or an object with page_content, got {shown(value)}")


def _first(*values: Any) -> Any:
    """Return the first value that is not None, or None."""
    return next((value for value in values if value is not None), None)


def _hash(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]}"
