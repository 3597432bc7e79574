"""The settings of a run: its flags, over those of a ``--config`` file, over a ``--preset``, over the defaults.

A run that is resumed has the settings that it had before, which its own ``config.json`` says.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaledown import cli, hub
from scaledown.config import (
    DEFAULT_GENERATOR,
    EMBEDDED,
    NO_COMPRESSOR,
    OF_A_COMPRESSOR,
    SMOLLM2,
    belongs_to_a_compressor,
)
from scaledown.files import parse_json
from scaledown.settings import require
from scaledown.training.presets.machines import DEMO, LAPTOP, settings
from scaledown.training.presets.settings_file import read_settings

TRAINS_A_COMPRESSOR = ("learning_rate_compressor", "compressor_warmup_steps", "reranking_loss_weight",
                       "readout_loss_weight", "readout_steps", "train_text_documents", "query_dropout",
                       "pretrain_steps", "pretrain_data")
"""Settings of a training that mean nothing without a compressor."""
MAY_CHANGE_ON_RESUME = frozenset({
    "resume", "overwrite", "output_dir", "device", "logging_steps", "report_to", "num_workers", "shard",
    "gradient_checkpointing", "gradient_accumulation_steps"})
"""Settings that may differ when a run is resumed: they change results by rounding at most."""
SOFT_TOKENS = {"readout_loss_weight": 1.0, "learning_rate_compressor": 1e-4}
"""To train a checkpoint with soft tokens further: without the readout loss, and at the rate of a new compressor, it
soon forgets what it was trained to say (lab/LOG.md)."""
RUN_FILE = "config.json"
RESOLVED = {"generator_revision", "compressor_revision"}
"""Settings that a run records as a commit, whatever branch or tag was given: compared when the commit is known."""


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the settings of a training script's run.

    Args:
        parser: the script's. If it has no default generator, that is the demo's for the demo's records.
        argv: its command line; None for that of the process.

    Raises:
        ValueError: for a file of settings with faults, or a run to resume that is not there or had other settings.
    """
    defaults = vars(parser.parse_args([]))
    names = [name for name in defaults if name != "config"]

    flags = cli.given(parser, argv)
    file = read_settings(flags["config"]) if "config" in flags else {}
    if flags.get("resume") and not flags.get("overwrite"):
        folder = Path((defaults | file | flags)["output_dir"])
        file = _of_resumed_run(file, flags, folder)
        # It is the run's own, whose settings are all known.
        flags.pop("preset", None)
    else:
        file = _of_the_baseline(flags, file, defaults)
    flags, file = _with_both_rates(flags), _with_both_rates(file)

    # A checkpoint to start from says what its model is; what is asked for beside that is compared with it later.
    asked = defaults | file | flags
    start = _of_checkpoint(asked["init_compressor"])

    # The demo's settings depend on the compressor, which no preset names, but a checkpoint does.
    known = file | start | flags if "preset" in flags else start | file | flags
    compressor = (defaults | known)["compressor_type"], asked["enable_reranking"]
    preset = settings(asked["preset"], *compressor) | start

    # A preset on the command line wins over the file, as any flag does; one in the file gives way to what stands there.
    chosen = file | preset | flags if "preset" in flags else preset | file | flags

    if defaults["generator_model"] is None:
        defaults["generator_model"] = EMBEDDED if chosen.get("train_data") is None else DEFAULT_GENERATOR

    # The demo generator brings the demo's settings; all that is asked for wins over them.
    if (defaults | chosen)["generator_model"] == EMBEDDED:
        defaults |= settings(DEMO, *compressor)

    values = defaults | chosen
    # Layers that are named leave no number of them to a preset.
    if values.get("layers") is not None and "num_layers" not in file | flags:
        values["num_layers"] = None
    return argparse.Namespace(**{name: values[name] for name in names})


def parse_or_offline(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """As :func:`parse`; if the generator of ``--preset laptop`` cannot be reached, the run starts from smollm2.

    Not if a generator or a checkpoint is named.

    Raises:
        ValueError: also if smollm2 is not on this disk either.
    """
    args = parse(parser, argv)
    named = cli.given(parser, argv)
    if args.preset != LAPTOP or args.resume or args.init_compressor or args.generator_model != DEFAULT_GENERATOR:
        return args
    if "generator_model" in named:
        return args

    try:
        hub.locate(DEFAULT_GENERATOR)
        return args
    except ValueError as fault:
        reason = str(fault).split(" What works")[0]

    try:
        hub.locate(SMOLLM2)
    except ValueError as fault:
        raise ValueError(f"{reason} Without it --preset {LAPTOP} starts from {SMOLLM2}: {fault}") from None
    print(f"{reason} Starting from {SMOLLM2} instead.", file=sys.stderr)
    # A compressor of another kind is a new one, for that generator.
    start = "generator_model" if "compressor_type" in named else "init_compressor"
    return parse(parser, [*(sys.argv[1:] if argv is None else argv), f"--{start}", SMOLLM2])


def _of_checkpoint(name: str | None) -> dict[str, Any]:
    """Return the model's settings of the checkpoint ``name``, if it is on this disk, and those to train it further."""
    config = None if name is None else hub.checkpoint_config(name)
    if config is None:
        return {}
    # A head that scores documents stays, but it is trained only if that is asked for.
    left_out = {"enable_reranking", "keep_threshold", "expand_threshold", *RESOLVED}
    model = {field: value for field, value in dataclasses.asdict(config).items() if field not in left_out}
    return model | (SOFT_TOKENS if config.soft_tokens else {})


def _of_the_baseline(flags: Mapping[str, Any], file: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``file`` for ``--compressor_type none``; those of any other type are as they were.

    Raises:
        ValueError: for flags that train a compressor, which would do nothing; all of them together.
    """
    if (file | flags).get("compressor_type") != NO_COMPRESSOR:
        return file
    require([belongs_to_a_compressor(name) for name in TRAINS_A_COMPRESSOR
             if name in flags and flags[name] != defaults[name]])

    # A run's file holds all settings, also those that did nothing in it. Where the flag makes it the baseline of a run
    # with a compressor, it has that run's other settings.
    unused = TRAINS_A_COMPRESSOR
    if flags.get("compressor_type") == NO_COMPRESSOR:
        unused += OF_A_COMPRESSOR
    return {name: value for name, value in file.items() if name not in unused}


def _with_both_rates(values: dict[str, Any]) -> dict[str, Any]:
    """Let ``learning_rate`` set both learning rates, unless one is named beside it."""
    rate = values.get("learning_rate")
    if rate is None:
        return values
    return {"learning_rate_generator": rate, "learning_rate_compressor": rate} | values


def parse_or_resume(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the settings of a measurement; with ``--resume`` those that the run in ``--output_dir`` had.

    Raises:
        ValueError: if there is no run to resume, or a flag contradicts its settings; all of them together.
    """
    args = parser.parse_args(argv)
    if not args.resume or args.overwrite:
        return args

    path = Path(args.output_dir) / RUN_FILE
    try:
        own = parse_json(path.read_text(encoding="utf-8"))["settings"]
        if not isinstance(own, dict):
            raise ValueError("settings is no object")
    except FileNotFoundError:
        raise ValueError(f"--resume: no run in {args.output_dir} (it has no {RUN_FILE}); give its folder as "
                         "--output_dir") from None
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise ValueError(f"--resume: {path} cannot be read ({fault})") from None

    # What may change is as given now, all else as it was.
    check_same_settings(own, cli.given(parser, argv), Path(args.output_dir))
    kept = {name: value for name, value in own.items() if hasattr(args, name) and name not in MAY_CHANGE_ON_RESUME}
    return argparse.Namespace(**vars(args) | kept)


def check_same_settings(own: Mapping[str, Any], given: Mapping[str, Any], folder: Path) -> None:
    """Refuse to resume the run in ``folder``, which recorded the settings ``own``, with others.

    Raises:
        ValueError: if ``given`` has any; all of them together.
    """
    # A setting that the run does not record is compared by the run folder, when all are known.
    differing = []
    for name, value in sorted(given.items()):
        if name in own and name not in MAY_CHANGE_ON_RESUME | RESOLVED and own[name] != value:
            differing.append(f"--{name} was {own[name]!r}, is {value!r}")
    if differing:
        raise ValueError(f"--resume: the run in {folder} had other settings: {'; '.join(differing)}. Leave them out: "
                         "--resume goes on with what the run had; or start anew in another --output_dir")


def _of_resumed_run(file: Mapping[str, Any], flags: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings of the run in ``folder``, with those of ``file`` that may change when it is resumed.

    Raises:
        ValueError: if there is no run, or ``file`` or ``flags`` contradict its settings; all of them together.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        raise ValueError(f"--resume: no run in {folder} (it has no {RUN_FILE}); give its folder as --output_dir")
    own = read_settings(path, "--resume")

    check_same_settings(own, {**file, **flags}, folder)

    may_change = {name: value for name, value in file.items() if name in MAY_CHANGE_ON_RESUME}
    # A folder that was moved has another name than the run recorded.
    return own | may_change | {"output_dir": str(folder)}
