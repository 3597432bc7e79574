"""Checks of a QA dataset's fields: each one finds everything that is wrong with a value, with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from scaledown.data.storage.lines import HALF_A_PAIR, is_text, shown

Fault = tuple[str, str]
"""A place in a row or a file (``answers[0].text``), and what is wrong there."""
FieldCheck = Callable[[Any, str], Iterator[Fault]]
"""Takes a value and its place, and yields the value's faults."""


def plain_text(value: Any, place: str) -> Iterator[Fault]:
    """Accept text, blank or not."""
    if not isinstance(value, str):
        yield place, f"expected text, got {shown(value)}"
    elif not is_text(value):
        yield place, f"it holds {HALF_A_PAIR}"


def label(value: Any, place: str) -> Iterator[Fault]:
    """Accept an id: text that is not blank, or a whole number."""
    # A bool is an int to Python, and no id.
    if isinstance(value, bool) or not (isinstance(value, int) or is_text(value) and value.strip()):
        yield place, f"expected text that is not blank, or a whole number, got {shown(value)}"


def whole_number(value: Any, place: str) -> Iterator[Fault]:
    """Accept a whole number of any sign: an offset out of range spoils one question, not the file."""
    if isinstance(value, bool) or not isinstance(value, int):
        yield place, f"expected a whole number, got {shown(value)}"


def flag(value: Any, place: str) -> Iterator[Fault]:
    """Accept true or false."""
    if not isinstance(value, bool):
        yield place, f"expected true or false, got {shown(value)}"


def each(check: FieldCheck) -> FieldCheck:
    """Return a check of a list whose entries all pass ``check``."""
    def faults(value: Any, place: str) -> Iterator[Fault]:
        if not isinstance(value, list):
            yield place, f"expected a list, got {shown(value)}"
            return

        for number, entry in enumerate(value):
            yield from check(entry, f"{place}[{number}]")

    return faults


def fields(checks: dict[str, FieldCheck]) -> FieldCheck:
    """Return a check of an object with these fields.

    The name ``"a|b"`` means a field that is called ``a`` or ``b``, and ``"a?"`` one that may be missing or null.
    """
    def faults(value: Any, place: str) -> Iterator[Fault]:
        if not isinstance(value, dict):
            yield place, f"expected an object, got {shown(value)}"
            return

        for names, check in checks.items():
            is_optional = names.endswith("?")
            choices = names.removesuffix("?").split("|")
            name = next((choice for choice in choices if choice in value), None)
            # The object of a whole row has an empty place, which would leave a dot in front.
            field_place = f"{place}.{name or ' or '.join(choices)}".lstrip(".")

            if name is None and not is_optional:
                yield field_place, "it is missing"
            elif name is not None and not (is_optional and value[name] is None):
                yield from check(value[name], field_place)

    return faults


def columns_or(as_list: FieldCheck, checks: dict[str, FieldCheck]) -> FieldCheck:
    """Return a check of a list that passes ``as_list``, or of the same list by columns.

    The Hub's datasets turn a list of objects into an object of lists, one for each field, all of one length.
    """
    as_columns = fields({name: each(check) for name, check in checks.items()})

    def faults(value: Any, place: str) -> Iterator[Fault]:
        if not isinstance(value, dict):
            yield from as_list(value, place)
            return

        yield from as_columns(value, place)

        # Columns that are no lists at all are faults already: only the lengths of lists are compared.
        lengths = {name: len(value[name]) for name in checks if isinstance(value.get(name), list)}
        if len(set(lengths.values())) > 1:
            yield place, "expected lists of one length, got " + ", ".join(f"{lengths[name]} {name}" for name in lengths)

    return faults


def objects(checks: dict[str, FieldCheck]) -> FieldCheck:
    """Return a check of objects with these fields, as a list or by columns."""
    return columns_or(each(fields(checks)), checks)


def pairs(left: str, left_check: FieldCheck, right: str, right_check: FieldCheck) -> FieldCheck:
    """Return a check of pairs, as a list of two-entry lists or by columns; ``left`` and ``right`` name the entries."""
    def pair(value: Any, place: str) -> Iterator[Fault]:
        if not isinstance(value, list) or len(value) != 2:
            yield place, f"expected a pair of {left} and {right}, got {shown(value)}"
            return

        yield from left_check(value[0], f"{place}[0]")
        yield from right_check(value[1], f"{place}[1]")

    return columns_or(each(pair), {left: left_check, right: right_check})
