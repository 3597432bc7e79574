"""JSON from a user's file: whatever is wrong with it shows as one kind of error, with its place."""

from __future__ import annotations

import json
from json import JSONDecodeError
from typing import Any


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
