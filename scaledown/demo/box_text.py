"""The text of the documents' box: typed or pasted there, or written into it by a file or a sample.

Blank lines separate documents, or lines of three dashes if there is one, so that a document may hold blank lines. A
first line that begins with "# " is the title of the text below it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from scaledown.models.serving.inputs.documents import UserDocument

SEPARATOR = "---"
TITLE = "# "
_BLANK_LINES = re.compile(r"\n\s*\n")


def documents_in(text: str) -> list[dict[str, str]]:
    """Return the documents of the box, with their titles if they have one, as models take them."""
    text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    blocks = _BLANK_LINES.split(text)
    if any(_is_separator(line) for line in lines):
        blocks = _between_separators(lines)
    return [_document(block.strip()) for block in blocks if block.strip()]


def box_text(documents: Sequence[UserDocument]) -> str:
    """Return the text of the box from which :func:`documents_in` reads these documents, none of which is empty.

    Their ids are left out, and the spaces around their texts. A line of three dashes in a document gets one more, and
    so does the "#" of a first line that would become the title of a document without one.
    """
    blocks = []
    for document in documents:
        body = "\n".join(_inside(line) for line in document.body.strip().split("\n"))
        title = " ".join(document.title.split())
        if title:
            blocks.append(f"{TITLE}{title}\n{body}")
        else:
            blocks.append(f"#{body}" if "title" in _document(body) else body)

    # A separator is needed as soon as one document has blank lines, also behind a single document.
    if any(_BLANK_LINES.search(block) for block in blocks):
        return "\n".join(f"{block}\n{SEPARATOR}" for block in blocks)
    return "\n\n".join(blocks)


def _between_separators(lines: Sequence[str]) -> list[str]:
    blocks: list[list[str]] = [[]]
    for line in lines:
        if _is_separator(line):
            blocks.append([])
        else:
            blocks[-1].append(line)
    return ["\n".join(block) for block in blocks]


def _document(block: str) -> dict[str, str]:
    first, _, rest = block.partition("\n")
    if first.startswith(TITLE) and rest.strip():
        return {"title": first.removeprefix(TITLE).strip(), "text": rest.strip()}
    return {"text": block}


def _is_separator(line: str) -> bool:
    return line.strip() == SEPARATOR


def _inside(line: str) -> str:
    """Return a line of a document as one that separates nothing."""
    return f"{line.rstrip()}-" if _is_separator(line) else line
