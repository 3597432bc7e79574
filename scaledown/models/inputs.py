"""What a user hands to a model, checked before anything is computed: one message with all its faults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Documents = Sequence[Sequence[str]]
SHOWN_FAULTS = 5


def check_texts(questions: Sequence[str], documents: Documents) -> None:
    """Refuse questions and documents that cannot be read.

    Args:
        questions: B texts.
        documents: for each of them a list of texts.

    Raises:
        ValueError: if something is no text or no list of texts, a text cannot be encoded, or the numbers differ.
    """
    if isinstance(questions, str) or isinstance(documents, str):
        raise ValueError("questions is a list of strings, and documents has one list of strings for each of them")
    if len(questions) != len(documents):
        raise ValueError(f"{len(questions)} questions, but documents for {len(documents)}")

    faults = [text_fault(f"questions[{number}]", question) for number, question in enumerate(questions)]
    for number, each in enumerate(documents):
        if not isinstance(each, Sequence) or isinstance(each, str):
            faults.append(f"documents[{number}] must be a list of strings, got {_shown(each)}")
            continue
        faults += [text_fault(f"documents[{number}][{place}]", text) for place, text in enumerate(each)]

    found = [fault for fault in faults if fault is not None]
    if found:
        more = f"; and {len(found) - SHOWN_FAULTS} more" if len(found) > SHOWN_FAULTS else ""
        raise ValueError("; ".join(found[:SHOWN_FAULTS]) + more)


def text_fault(place: str, text: Any) -> str | None:
    """Return what is wrong with the text that was given at ``place``, or None."""
    if not isinstance(text, str):
        return f"{place} must be a string, got {_shown(text)}"
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        return (f"{place} holds half a character ({text[fault.start]!a}, character {fault.start + 1}): text.encode("
                "'utf-16', 'surrogatepass').decode('utf-16', 'replace') mends it")
    return None


def check_number(name: str, number: Any) -> None:
    """Refuse a number that does not count something.

    Raises:
        ValueError: if it is no whole number above 0.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{name} must be a whole number above 0, got {number!r}")


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '...'}"
