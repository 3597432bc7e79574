"""How a config class is made: fields that carry their flag's help, checks that name all faults, and back from JSON."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any


def setting(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field that carries the help text and the choices of its flag."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def require(faults: list[str]) -> None:
    """Raise a ValueError that names all ``faults``, where there are any."""
    if faults:
        raise ValueError("; ".join(faults))


def positive(config: Any, *names: str) -> list[str]:
    """A fault for each of these fields that is a number, but not a finite one above 0."""
    values = ((name, getattr(config, name)) for name in names)
    return [f"--{name} must be above 0 and finite, got {value}" for name, value in values
            if value is not None and not 0 < value < math.inf]


def from_dict(cls: type, values: dict[str, Any], source: str = "config") -> Any:
    """Build config ``cls`` from ``values``; a key it does not know is an error that names ``source``.

    Raises:
        ValueError: for unknown keys, values of another type, or values that the config itself refuses.
    """
    hints = typing.get_type_hints(cls)
    wrong = [f"{name} is {value!r}, expected {getattr(hints[name], '__name__', hints[name])}"
             for name, value in values.items() if name in hints and not _has_type(value, hints[name])]
    if wrong:
        raise ValueError(f"{source}: {'; '.join(wrong)}")
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{source}: unknown keys {unknown} (did a newer version write it?); {cls.__name__} "
                         f"has {sorted(known)}")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a value from JSON, where 1.0 may be 1 and a tuple is a list, fits an annotation."""
    for kind in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
        if typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)[0]
            if isinstance(value, list | tuple) and all(_has_type(each, inner) for each in value):
                return True
        elif type(value) is kind or (kind is float and type(value) is int):
            return True
    return False
