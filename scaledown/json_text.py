"""JSON from a user's file: whatever is wrong with it shows as one kind of error, with its place."""

from __future__ import annotations

import json
import re
from json import JSONDecodeError
from typing import Any

_HALF_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        JSONDecodeError: for text that is not JSON; also where it is nested deeper, or a number in it longer, than
            Python reads, for which ``json.loads`` has errors of other kinds.
        UnicodeDecodeError: for bytes that are no text.
    """
    try:
        return json.loads(text)
    except (JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        raise JSONDecodeError("nested too deeply", "", 0) from None
    except ValueError:
        raise JSONDecodeError("a number with too many digits", "", 0) from None


def has_half_surrogate(text: str) -> bool:
    """Return whether ``text`` holds half of a surrogate pair: JSON's escapes can write it, UTF-8 cannot."""
    return _HALF_SURROGATE.search(text) is not None
