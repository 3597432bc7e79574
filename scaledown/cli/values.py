"""The values of flags: read from their texts, with a fault in plain words."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence

from scaledown.config import AUTO, LARGEST_SEED

LONGEST_LIST = 70
"""Characters of a list of choices in a message, which stays one line with them."""


def whole_number(text: str) -> int:
    """Convert a flag's value to a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


def number(text: str) -> float:
    """Convert a flag's value to a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None


def positive(text: str) -> int:
    """Convert a flag's value to a whole number above 0."""
    if (value := whole_number(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be above 0, got {value}")
    return value


def number_or_auto(text: str) -> int | str:
    """Convert a flag's value to a whole number above 0, or leave "auto" as it is."""
    if text == AUTO:
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number above 0 or {AUTO!r}, got {text!r}")
    return positive(text)


def seed(text: str) -> int:
    """Convert a flag's value to a seed."""
    value = whole_number(text)
    if not 0 <= value <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"must be between 0 and {LARGEST_SEED}, got {value}")
    return value


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """Return a function that takes one of ``choices``, and for another text names the one that was probably meant."""

    def choice(text: str) -> str:
        if text in choices:
            return text
        hint = meant(text, choices)
        end = f": {hint}" if hint else ""
        raise argparse.ArgumentTypeError(f"expected one of {listed(choices)}, got {text!r}{end}")

    return choice


def meant(text: str, known: Sequence[str]) -> str:
    """Return the question whether the known text that ``text`` resembles was meant; "" if it resembles none."""
    # "--train-data" and "Embedded" are meant, too.
    by_plain = {name.lower().replace("-", "_"): name for name in known}
    likely = difflib.get_close_matches(text.lower().replace("-", "_"), by_plain, n=1)
    return f"did you mean {by_plain[likely[0]]}?" if likely else ""


def listed(choices: Sequence[str]) -> str:
    """Return choices as a list that fits a line: the first ones, and the number of the others."""
    shown: list[str] = []
    for name in choices:
        if len(", ".join([*shown, name])) > LONGEST_LIST:
            return f"{', '.join(shown)} and {len(choices) - len(shown)} more (see --help)"
        shown.append(name)
    return ", ".join(shown)
