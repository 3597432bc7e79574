"""A file of settings: YAML or JSON with settings by name, or the ``config.json`` of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaledown.cli.values import meant
from scaledown.config import (
    EvaluationConfig,
    PretrainingConfig,
    RunConfig,
    ScaleDownConfig,
    TrainingConfig,
)
from scaledown.files import parse_json
from scaledown.settings import RETIRED, wrong_types

CONFIGS = (RunConfig, ScaleDownConfig, TrainingConfig, PretrainingConfig, EvaluationConfig)
"""The settings that a file may hold. Either script reads the other's files, and leaves out what is not its own."""
RUN_SETTINGS = "settings"
"""The key of a run's ``config.json`` under which its settings stand."""
NOT_FROM_A_RUN = {"resume", "overwrite"}
"""Settings that a run's ``config.json`` records, and that say what to do with that run alone."""


def read_settings(path: Path | str, flag: str = "--config") -> dict[str, Any]:
    """Read a YAML or JSON file of settings by name, or those in a run's ``config.json``.

    Raises:
        ValueError: naming ``flag`` and ``path``, if it cannot be read, or has unknown names or values of other types;
            all of them together.
    """
    known: dict[str, dataclasses.Field] = {}
    hints: dict[str, Any] = {}
    for cls in CONFIGS:
        known |= {field.name: field for field in dataclasses.fields(cls) if field.metadata["has_flag"]}
        hints |= typing.get_type_hints(cls)

    values = _read_mapping(Path(path), flag)
    if isinstance(values.get(RUN_SETTINGS), dict):
        values = {name: value for name, value in values[RUN_SETTINGS].items() if name not in NOT_FROM_A_RUN}
    # Earlier versions wrote settings that are fixed now.
    values = {name: value for name, value in values.items() if name not in RETIRED or value != RETIRED[name]}

    for name, value in values.items():
        # YAML takes 1e-4 for a text, since its numbers have a point: 1.0e-4.
        if isinstance(value, str) and float in (hints.get(name), *typing.get_args(hints.get(name))):
            with contextlib.suppress(ValueError):
                values[name] = float(value)

    faults = wrong_types(values, hints)
    for name in values:
        choices = known[name].metadata["choices"] if name in known else None
        if choices is not None and values[name] not in (None, *choices):
            faults.append(f"{name} is {values[name]!r}, expected one of {', '.join(choices)}")
    if unknown := [_with_likeness(str(name), known) for name in values if name not in known]:
        faults.append(f"unknown settings: {', '.join(sorted(unknown))}. --help_all shows those there are")
    if faults:
        raise ValueError(f"{flag} {path}: {'; '.join(faults)}")
    return values


def _with_likeness(name: str, known: Mapping[str, Any]) -> str:
    """Return an unknown name with what it was probably meant to be, if anything."""
    if name in RETIRED:
        return f"{name} (gone: every run is now as with its default, {RETIRED[name]!r})"
    hint = meant(name, list(known))
    return f"{name} ({hint})" if hint else name


def _read_mapping(path: Path, flag: str) -> dict[Any, Any]:
    """Read a YAML or JSON file that holds values by name; an empty one holds none."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        values = parse_json(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise ValueError(f"{flag} {path}: no such file") from None
    except OSError as fault:
        raise ValueError(f"{flag} {path}: cannot be read ({fault.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{flag} {path}: not UTF-8") from None
    except json.JSONDecodeError as fault:
        raise ValueError(f"{flag} {path}: not valid JSON (line {fault.lineno}: {fault.msg})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        # YAML tells a fault in several lines. A date of no calendar is a ValueError.
        raise ValueError(f"{flag} {path}: not valid YAML ({' '.join(str(fault).split())})") from None

    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{flag} {path}: expected settings by name, such as batch_size: 4")
    return values
