"""Checks of what a user passes to a model, before anything is computed: one message with all faults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Documents = Sequence[Sequence[str]]
SHOWN_TEXT_FAULTS = 5
SHOWN_VALUE_CHARACTERS = 40


def check_texts(questions: Sequence[str], documents: Documents) -> None:
    """Refuse questions and documents that cannot be read.

    Args:
        questions: B texts.
        documents: for each of them a list of texts.

    Raises:
        ValueError: if something is no text or no list of texts, a text cannot be encoded, or the numbers differ.
    """
    # A string is a sequence of strings, too: taken for a list, each character would be a text.
    if isinstance(questions, str) or isinstance(documents, str):
        raise ValueError("questions is a list of strings, and documents has one list of strings for each of them")
    if len(questions) != len(documents):
        raise ValueError(f"{len(questions)} questions, but documents for {len(documents)}")

    faults = [_text_fault(f"questions[{number}]", question) for number, question in enumerate(questions)]
    for number, texts in enumerate(documents):
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            faults.append(f"documents[{number}] must be a list of strings, got {_shown(texts)}")
        else:
            faults += [_text_fault(f"documents[{number}][{place}]", text) for place, text in enumerate(texts)]

    messages = [fault for fault in faults if fault is not None]
    if messages:
        num_more = len(messages) - SHOWN_TEXT_FAULTS
        more = f"; and {num_more} more" if num_more > 0 else ""
        raise ValueError("; ".join(messages[:SHOWN_TEXT_FAULTS]) + more)


def check_number(name: str, number: Any) -> None:
    """Refuse a number that does not count something.

    Raises:
        ValueError: if it is no whole number above 0.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{name} must be a whole number above 0, got {number!r}")


def _text_fault(place: str, text: Any) -> str | None:
    """Return what is wrong with the text at ``place``, or None."""
    if not isinstance(text, str):
        return f"{place} must be a string, got {_shown(text)}"

    try:
        # Half of a surrogate pair is a character to Python, but no tokenizer can read it.
        text.encode()
    except UnicodeEncodeError as fault:
        return (f"{place} holds half a character ({text[fault.start]!a}, character {fault.start + 1}): text.encode("
                "'utf-16', 'surrogatepass').decode('utf-16', 'replace') mends it")
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    if len(text) > SHOWN_VALUE_CHARACTERS:
        text = f"{text[:SHOWN_VALUE_CHARACTERS]}..."
    return f"{type(value).__name__} {text}"
