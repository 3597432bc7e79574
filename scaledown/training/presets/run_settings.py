"""The settings of a run: its flags, over those of a ``--config`` file, over a ``--preset``, over the defaults."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaledown import cli
from scaledown.config import (
    DEFAULT_GENERATOR,
    EMBEDDED,
    RETIRED,
    EvaluationConfig,
    PretrainingConfig,
    RunConfig,
    ScaleDownConfig,
    TrainingConfig,
)
from scaledown.files import parse_json
from scaledown.settings import wrong_types
from scaledown.training.presets.machines import DEMO, settings

CONFIGS = (RunConfig, ScaleDownConfig, TrainingConfig, PretrainingConfig, EvaluationConfig)
"""The settings that a file may hold. Either script reads the other's files, and leaves out what is not its own."""
RUN_SETTINGS = "settings"
"""The key of a run's ``config.json`` under which its settings stand."""
NOT_FROM_A_RUN = {"resume", "overwrite"}
"""Settings that a run's ``config.json`` records, and that say what to do with that run alone."""


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the settings of a training script's run.

    Args:
        parser: the script's. If it has no default generator, that is the demo's for the demo's records.
        argv: its command line; None for that of the process.

    Raises:
        ValueError: for a file of settings with faults.
    """
    defaults = vars(parser.parse_args([]))
    names = [name for name in defaults if name != "config"]

    flags = cli.given(parser, argv)
    file = read_settings(flags["config"]) if "config" in flags else {}
    flags, file = _with_both_rates(flags), _with_both_rates(file)

    # The demo's settings depend on the compressor, which no preset names.
    asked = defaults | file | flags
    compressor = asked["compressor_type"], asked["enable_reranking"]
    preset = settings(asked["preset"], *compressor)

    # A preset on the command line wins over the file, as any flag does; one in the file gives way to what stands there.
    chosen = file | preset | flags if "preset" in flags else preset | file | flags

    if defaults["generator_model"] is None:
        defaults["generator_model"] = EMBEDDED if chosen.get("train_data") is None else DEFAULT_GENERATOR

    # The demo generator brings the demo's settings; all that is asked for wins over them.
    if (defaults | chosen)["generator_model"] == EMBEDDED:
        defaults |= settings(DEMO, *compressor)

    values = defaults | chosen
    return argparse.Namespace(**{name: values[name] for name in names})


def _with_both_rates(values: dict[str, Any]) -> dict[str, Any]:
    """Let ``learning_rate`` set both learning rates, unless one is named beside it."""
    rate = values.get("learning_rate")
    if rate is None:
        return values
    return {"learning_rate_generator": rate, "learning_rate_compressor": rate} | values


def read_settings(path: Path | str) -> dict[str, Any]:
    """Read a YAML or JSON file of settings by name, or those in a run's ``config.json``.

    Raises:
        ValueError: naming ``path``, if it cannot be read, or has names that are no settings or values of other types;
            all of them together.
    """
    known: dict[str, dataclasses.Field] = {}
    hints: dict[str, Any] = {}
    for cls in CONFIGS:
        known |= {field.name: field for field in dataclasses.fields(cls) if field.metadata["has_flag"]}
        hints |= typing.get_type_hints(cls)

    values = _read_mapping(Path(path))
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
        faults.append(f"unknown settings: {', '.join(sorted(unknown))}; --help_all shows those there are")
    if faults:
        raise ValueError(f"--config {path}: {'; '.join(faults)}")
    return values


def _with_likeness(name: str, known: Mapping[str, Any]) -> str:
    """Return an unknown name with what it was probably meant to be, if anything."""
    if name in RETIRED:
        return f"{name} (gone: every run is now as with its default, {RETIRED[name]!r})"
    likely = difflib.get_close_matches(name, known, n=1)
    return f"{name} ({likely[0]}?)" if likely else name


def _read_mapping(path: Path) -> dict[Any, Any]:
    """Read a YAML or JSON file that holds values by name; an empty one holds none."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        values = parse_json(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise ValueError(f"--config {path}: no such file") from None
    except OSError as fault:
        raise ValueError(f"--config {path}: cannot be read ({fault.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"--config {path}: not UTF-8") from None
    except json.JSONDecodeError as fault:
        raise ValueError(f"--config {path}: not valid JSON (line {fault.lineno}: {fault.msg})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        # YAML tells a fault in several lines. A date of no calendar is a ValueError.
        raise ValueError(f"--config {path}: not valid YAML ({' '.join(str(fault).split())})") from None

    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"--config {path}: expected settings by name, such as batch_size: 4")
    return values
