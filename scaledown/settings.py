"""Tools for config classes: fields with their flags' help, checks that report all faults, and reading from JSON."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
LISTS = {int: "a list of whole numbers", float: "a list of numbers", str: "a list of texts"}
"""Types, and tuples of them, in a message."""
MOST_DIGITS = 4
"""Of a number in a text such as "0-5,24-29": no model has so many layers."""
RETIRED: Mapping[str, Any] = {
    "distill_logits": 0.0, "keep_threshold": None, "expand_threshold": None, "pad_to_max": None,
    "pretrain_batch_size": None, "pretrain_learning_rate": 1e-4, "pretrain_shortest_words": 2,
    "pretrain_longest_words": None, "pretrain_auto_encoding_share": 0.5}
"""Settings that runs of earlier versions had, or that no run chooses, with the defaults that hold for every run."""
_BECAME = {"keep_threshold": "is set in a checkpoint by python -m scaledown.evaluation.calibration",
           "expand_threshold": "is set in a checkpoint by python -m scaledown.evaluation.calibration",
           "pad_to_max": "is gone: batches have one shape if the device needs it",
           "pretrain_batch_size": "is gone: --batch_size holds for pretraining, too"}


def setting(default: Any, help: str, choices: tuple[str, ...] | None = None, *, group: str | None = None,
            is_advanced: bool = False, has_flag: bool = True) -> Any:
    """Return a dataclass field that carries what its flag needs, unless it has none.

    The help may end with a default in brackets; else the default is shown behind it. ``group`` is the flag's group in
    the help of the training scripts, if not that of its config; an advanced flag is left to their ``--help_all``.
    """
    metadata = {"help": help, "choices": choices, "group": group, "is_advanced": is_advanced, "has_flag": has_flag}
    return dataclasses.field(default=default, metadata=metadata)


def require(faults: list[str]) -> None:
    """Raise a ValueError that names all ``faults``, if there are any."""
    if faults:
        raise ValueError("; ".join(faults))


def positive(config: Any, *names: str) -> list[str]:
    """Return a fault for each of these fields that is a number, but not a finite one above 0."""
    values = ((name, getattr(config, name)) for name in names)
    return [f"--{name} must be above 0 and finite, got {value}" for name, value in values
            if value is not None and not 0 < value < math.inf]


def not_negative(config: Any, *names: str) -> list[str]:
    """Return a fault for each of these fields that is a number, but not a finite one of at least 0."""
    values = ((name, getattr(config, name)) for name in names)
    return [f"--{name} must be at least 0 and finite, got {value}" for name, value in values
            if value is not None and not 0 <= value < math.inf]


def not_among_choices(config: Any) -> list[str]:
    """Return a fault for each field whose value is none of its choices; None is always allowed."""
    faults = []
    for field in dataclasses.fields(config):
        value, choices = getattr(config, field.name), field.metadata["choices"]
        if choices is not None and value is not None and value not in choices:
            faults.append(f"--{field.name} must be one of {', '.join(choices)}, got {value!r}")
    return faults


def numbers_in(text: str) -> list[int]:
    """Return the numbers that a text such as "0-5,24-29" names; none if it is no such text."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        last = last or first
        # Checked before the numbers are listed: there may be billions in a range, and none in a falling one.
        if not (_is_small_number(first) and _is_small_number(last)) or int(last) < int(first):
            return []
        numbers += range(int(first), int(last) + 1)
    return numbers


def _is_small_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= MOST_DIGITS


def not_ranges(config: Any, *names: str) -> list[str]:
    """Return a fault for each of these fields that is given, but is no text such as "0-5,24-29"."""
    faults = []
    for name in names:
        text = getattr(config, name)
        numbers = None if text is None else numbers_in(text)
        if numbers is not None and (not numbers or numbers != sorted(set(numbers))):
            faults.append(f"--{name} must be rising numbers such as 0-5,24-29, of at most {MOST_DIGITS} digits, "
                          f"got {text!r}")
    return faults


def not_default(config: Any, *names: str) -> list[str]:
    """Return those of these fields whose value is not their default."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    return [name for name in names if getattr(config, name) != defaults[name]]


def from_dict(cls: type, values: Mapping[str, Any], source: str = "config") -> Any:
    """Build config ``cls`` from ``values``; a key that it does not know is an error, and all errors name ``source``.

    Raises:
        ValueError: for unknown keys, values of another type, or values that the config itself refuses.
    """
    known = [field.name for field in dataclasses.fields(cls)]
    faults = wrong_types(values, typing.get_type_hints(cls))
    if unknown := sorted(set(values) - set(known)):
        faults.append(f"unknown keys {unknown} (did a newer version write it?); {cls.__name__} has {sorted(known)}")
    if faults:
        raise ValueError(f"{source}: {'; '.join(faults)}")

    # JSON has lists for tuples.
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return cls(**given)
    except ValueError as fault:
        raise ValueError(f"{source}: {fault}") from None


def wrong_types(values: Mapping[str, Any], hints: Mapping[str, Any]) -> list[str]:
    """Return a fault for each value that does not fit the annotation of its name in ``hints``."""
    faults = []
    for name, value in values.items():
        if name in hints and not _has_type(value, hints[name]):
            faults.append(f"{name} is {value!r}, expected {_in_words(hints[name])}")
    return faults


def _in_words(hint: Any) -> str:
    """Return an annotation in words; None is left out, which stands for a setting that is not given."""
    if isinstance(hint, types.UnionType):
        return " or ".join(_in_words(kind) for kind in typing.get_args(hint) if kind is not type(None))
    if typing.get_origin(hint) is tuple:
        return LISTS[typing.get_args(hint)[0]]
    return WORDS[hint]


def _has_type(value: Any, hint: Any) -> bool:
    """Return whether a value read from JSON, in which 1.0 may be 1 and a tuple is a list, fits an annotation."""
    for kind in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
        if typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)[0]
            if isinstance(value, list | tuple) and all(_has_type(element, inner) for element in value):
                return True
        # Not isinstance: a bool is an int, but no number of layers.
        elif type(value) is kind or (kind is float and type(value) is int):
            return True
    return False


def what_became_of(name: str) -> str:
    """Return the rest of a sentence about a setting in ``RETIRED``."""
    return _BECAME.get(name, f"is gone: every run is now as with its default, {RETIRED[name]!r}")
