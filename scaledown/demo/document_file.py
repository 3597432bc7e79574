"""A file of documents, as the browser sends it: its name and its bytes, never a path.

Plain text (.txt) is read like the text of the box, JSON (.json) is a list of documents, and JSON lines (.jsonl) have
one on each line. A document is a string, or an object with "text" and perhaps "title" and "id".
"""

from __future__ import annotations

from json import JSONDecodeError
from pathlib import PurePath
from typing import Any

from scaledown.data.storage.lines import Faults, json_values
from scaledown.demo.box_text import documents_in
from scaledown.files import parse_json
from scaledown.models.serving.inputs.documents import UserDocument, read_document

MOST_FILE_BYTES = 2**20
ENDINGS = (".txt", ".json", ".jsonl")
_SHOWN_NAME = 60


def documents_of_file(name: str, content: bytes) -> list[UserDocument]:
    """Return the documents of a file.

    Args:
        name: by which the user knows it; its ending says what is in it.
        content: its bytes.

    Raises:
        ValueError: if it is too long, no UTF-8, of another kind, or holds something that is no document; the message
            names the file and the place.
    """
    shown, ending = name[-_SHOWN_NAME:], PurePath(name).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"{shown}: a file of documents ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if len(content) > MOST_FILE_BYTES:
        raise ValueError(f"{shown}: longer than {MOST_FILE_BYTES // 2**20} MiB; give a part of it")
    try:
        # Windows' editors begin UTF-8 with a mark, which is no part of the text.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise ValueError(f"{shown}: not UTF-8 text (byte {fault.start + 1}); save it as UTF-8") from None

    if ending == ".jsonl":
        documents = _documents_of_lines(shown, text)
    elif ending == ".json":
        documents = _documents_of_list(shown, text)
    else:
        documents = [read_document(value) for value in documents_in(text)]
    if not documents:
        raise ValueError(f"{shown}: there is no document in it")
    return documents


def _documents_of_lines(name: str, text: str) -> list[UserDocument]:
    """Return the documents of JSON lines; their faults are told together, each with its line."""
    faults = Faults(name, "lines")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    documents = []
    for number, value in json_values(lines, faults):
        _add_document(documents, value, f"line {number}", faults)

    faults.raise_any()
    return documents


def _documents_of_list(name: str, text: str) -> list[UserDocument]:
    """Return the documents of a JSON list; their faults are told together, each with its number."""
    try:
        values = parse_json(text)
    except JSONDecodeError as fault:
        raise ValueError(f"{name}: no JSON ({fault.msg}, line {fault.lineno}, column {fault.colno})") from None
    if not isinstance(values, list):
        raise ValueError(f'{name}: must be a list of documents, such as ["a text", {{"title": "a title", "text": '
                         '"a text"}]')

    # Counted from 0, as the model's own messages count documents.
    faults, documents = Faults(name, "documents"), []
    for number, value in enumerate(values):
        _add_document(documents, value, f"document {number}", faults)

    faults.raise_any()
    return documents


def _add_document(documents: list[UserDocument], value: Any, place: str, faults: Faults) -> None:
    """Add a document to others, or its fault to theirs."""
    try:
        document = read_document(value)
        # The box would drop it, or take its title for a text.
        if not document.body.strip():
            raise ValueError("its text is empty; give it one, or leave the document out")
        documents.append(document)
    except ValueError as fault:
        faults.add(place, str(fault))
