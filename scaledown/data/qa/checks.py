"""What the fields of a QA dataset must hold, and everything in a row or a file that is otherwise, with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from scaledown.data.storage.values import HALF_A_PAIR, is_text, shown

Fault = tuple[str, str]
"""Where something stands in a row or a file (``answers[0].text``), and what is wrong with it."""
Check = Callable[[Any, str], Iterator[Fault]]
"""Yields the faults of a value that stands at a place."""


def plain_text(value: Any, place: str) -> Iterator[Fault]:
    """Text, blank or not."""
    if not isinstance(value, str):
        yield place, f"expected text, got {shown(value)}"
    elif not is_text(value):
        yield place, f"it holds {HALF_A_PAIR}"


def label(value: Any, place: str) -> Iterator[Fault]:
    """Text that is not blank, or a whole number: an id."""
    if isinstance(value, bool) or not (isinstance(value, int) or is_text(value) and value.strip()):
        yield place, f"expected text that is not blank, or a whole number, got {shown(value)}"


def whole_number(value: Any, place: str) -> Iterator[Fault]:
    """A whole number of any sign: a place that does not exist is no fault of the file, but of one question."""
    if isinstance(value, bool) or not isinstance(value, int):
        yield place, f"expected a whole number, got {shown(value)}"


def flag(value: Any, place: str) -> Iterator[Fault]:
    """True or false."""
    if not isinstance(value, bool):
        yield place, f"expected true or false, got {shown(value)}"


def each(check: Check) -> Check:
    """A list of what passes ``check``."""
    def faults(value: Any, place: str) -> Iterator[Fault]:
        if not isinstance(value, list):
            yield place, f"expected a list, got {shown(value)}"
            return
        for number, entry in enumerate(value):
            yield from check(entry, f"{place}[{number}]")

    return faults


def fields(checks: dict[str, Check]) -> Check:
    """An object with these fields: ``"a|b"`` is the first of both that it has, ``"a?"`` may be missing or null."""
    def faults(value: Any, place: str) -> Iterator[Fault]:
        if not isinstance(value, dict):
            yield place, f"expected an object, got {shown(value)}"
            return
        for names, check in checks.items():
            choices, is_optional = names.removesuffix("?").split("|"), names.endswith("?")
            found = next((choice for choice in choices if choice in value), None)
            its_place = f"{place}.{found or ' or '.join(choices)}".lstrip(".")
            if found is None and not is_optional:
                yield its_place, "it is missing"
            elif found is not None and not (is_optional and value[found] is None):
                yield from check(value[found], its_place)

    return faults


def columns_or(as_list: Check, checks: dict[str, Check]) -> Check:
    """What passes ``as_list``, or the lists by field, all of one length, that the Hub's datasets make of it."""
    as_columns = fields({name: each(check) for name, check in checks.items()})

    def faults(value: Any, place: str) -> Iterator[Fault]:
        if not isinstance(value, dict):
            yield from as_list(value, place)
            return
        yield from as_columns(value, place)
        lengths = {name: len(value[name]) for name in checks if isinstance(value.get(name), list)}
        if len(set(lengths.values())) > 1:
            yield place, "expected lists of one length, got " + ", ".join(f"{lengths[name]} {name}" for name in lengths)

    return faults


def objects(checks: dict[str, Check]) -> Check:
    """Objects with these fields, in one of two forms."""
    return columns_or(each(fields(checks)), checks)


def pairs(first: str, first_check: Check, second: str, second_check: Check) -> Check:
    """Pairs of two fields, in one of two forms."""
    def pair(value: Any, place: str) -> Iterator[Fault]:
        if not isinstance(value, list) or len(value) != 2:
            yield place, f"expected a pair of {first} and {second}, got {shown(value)}"
            return
        yield from first_check(value[0], f"{place}[0]")
        yield from second_check(value[1], f"{place}[1]")

    return columns_or(each(pair), {first: first_check, second: second_check})
