"""Values from users' files: a check for text, and words for a value in a message."""

from __future__ import annotations

import json
from typing import Any

from scaledown.files import has_half_surrogate

HALF_A_PAIR = "half a surrogate pair, which is no character and cannot be written as UTF-8"
LONGEST_SHOWN = 40


def is_text(value: Any) -> bool:
    """Return whether ``value`` is text that can be written as UTF-8."""
    return isinstance(value, str) and not has_half_surrogate(value)


def shown(value: Any) -> str:
    """Return ``value`` for a message: itself if it is short, else its kind."""
    if isinstance(value, str) and not is_text(value):
        return f"text with {HALF_A_PAIR}"

    # From parquet a value may be a date or bytes, which JSON cannot show.
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        return f"a {type(value).__name__}"

    return text if len(text) <= LONGEST_SHOWN else kind(value)


def kind(value: Any) -> str:
    """Return the type of ``value`` in JSON's words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
