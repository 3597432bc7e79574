"""A fingerprint of a generator's files. A checkpoint keeps it beside the place of its folder.

The checkpoint's weights fit that generator alone. The fingerprint is taken from the files, not from the loaded model,
so it is the same in float32, in bfloat16 and in 4 bits.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scaledown import hub
from scaledown.config import ScaleDownConfig
from scaledown.files import parse_json
from scaledown.hub.model_places import COMPRESSOR, FILE, local_folder, locate, located, needed

WEIGHTS_FILE = "model.safetensors"
NOT_COMPARED = {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"}
"""Settings in a generator's ``config.json`` that do not change what it computes."""
SAMPLED_NUMBERS = 64
SHOWN_SETTINGS = 3

GeneratorFiles = Mapping[str, Any]
"""``config``: the generator's ``config.json``; ``weights``: the fingerprint of numbers from each of its tensors;
``compressor``: the same of a compressor's own model in a local folder, of which the checkpoint holds LoRA alone."""


def read(config: ScaleDownConfig) -> GeneratorFiles | None:
    """Return what the files of the generator of ``config`` hold; None if they are not on this disk (yet).

    Raises:
        ValueError: if they are damaged.
    """
    folder = hub.on_disk(config.generator_model, config.generator_revision)
    if folder is None:
        return None

    files = _read(folder)
    # A model of the Hub has its commit; a folder's files may be replaced.
    own = local_folder(config, COMPRESSOR) if COMPRESSOR in needed(config) else None
    if own is not None and config.compressor_model != config.generator_model:
        files["compressor"] = _read(Path(own))
    return files


def _read(folder: Path) -> dict[str, Any]:
    """Return the settings and the fingerprint of the model in ``folder``; a ValueError names it if it is damaged."""
    try:
        settings = parse_json((folder / "config.json").read_text(encoding="utf-8"))
        compared = {name: value for name, value in settings.items() if name not in NOT_COMPARED}
        paths = weight_files(folder)
        # Weights in another format than safetensors have no fingerprint.
        weights = fingerprint(paths) if all(path.is_file() for path in paths) else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, SafetensorError) as fault:
        raise ValueError(f"{folder}: cannot be loaded ({fault})") from fault
    return {"config": compared, "weights": weights}


def weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers loads a model's weights from."""
    index = folder / f"{WEIGHTS_FILE}.index.json"
    if not index.is_file():
        return [folder / WEIGHTS_FILE]

    # weight_map: from the name of a weight to the shard that holds it.
    shards = parse_json(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / shard for shard in sorted(set(shards))]


def fingerprint(paths: list[Path]) -> str:
    """Return the fingerprint of weights in safetensors files: of the name, the shape and some numbers of each tensor.

    Training changes all numbers of a tensor, so a few are enough, and a model of any size is read in moments. It is the
    same however the tensors are split into files.
    """
    digest = hashlib.sha256()
    with ExitStack() as stack:
        file_of: dict[str, Any] = {}
        for path in paths:
            file = stack.enter_context(safe_open(path, framework="pt"))
            file_of |= dict.fromkeys(file.keys(), file)

        # By name, because the order in the files depends on the split.
        for name in sorted(file_of):
            weight = file_of[name].get_slice(name)
            digest.update(f"{name}{weight.get_shape()}".encode())
            for sample in _samples(weight):
                # As bytes: numpy has no bfloat16.
                digest.update(sample.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _samples(weight: Any) -> Iterator[Tensor]:
    """Yield numbers from the start, the middle and the end of a tensor, of which only these are read from the disk.

    They are rounded to bfloat16, as some files are that hold the same weights.
    """
    size, *other_sizes = weight.get_shape() or [0]
    if not size:
        return

    # Of a matrix, one index of the first dimension is a whole row; of a vector, it is a single number.
    length = 1 if other_sizes else SAMPLED_NUMBERS
    for start in (0, size // 2, max(0, size - length)):
        sample = weight[start:start + length].flatten()
        yield sample.to(torch.bfloat16) if sample.is_floating_point() else sample


def check_trust(folder: Path, name: str, is_trusted: bool) -> None:
    """Refuse a checkpoint that was downloaded and asks to run code that comes with its generator.

    Whoever trained it trusted that code; whoever loads it has not been asked.

    Args:
        folder: the checkpoint's.
        name: by which it was asked for; one in a local folder is the user's own to look through.
        is_trusted: whether the user allows it.

    Raises:
        ValueError: with what to do.
    """
    # Most checkpoints ask for nothing, and of a local one the user can read what it asks.
    if is_trusted or os.path.isdir(os.path.expanduser(name)) or not ScaleDownConfig.load(folder).trust_remote_code:
        return

    raise ValueError(f"{name}: its config.json asks to run code that comes with its generator (trust_remote_code). If "
                     "you trust its authors, pass trust_remote_code=True to from_pretrained; for a command, look "
                     f"through it first: hf download {name} --local-dir FOLDER, and give that folder")


def checked_config(folder: Path, generator_model: str | None = None) -> ScaleDownConfig:
    """Return the settings of the checkpoint in ``folder``, whose generator is the one that it was trained on.

    Args:
        folder: the checkpoint's.
        generator_model: the generator's place now, a folder or a Hub id, if it has moved.

    Raises:
        ValueError: if the settings cannot be read, or the generator is missing or another one.
    """
    config = ScaleDownConfig.load(folder)
    if generator_model is not None:
        # A compressor of the generator's own kind moves with it; a folder has no revision.
        moves_too = config.compressor_model == config.generator_model
        own = {COMPRESSOR.field: generator_model, COMPRESSOR.revision: None} if moves_too else {}
        config = dataclasses.replace(config, generator_model=generator_model, generator_revision=None, **own)
        if COMPRESSOR in needed(config) and not moves_too:
            config = dataclasses.replace(config, compressor_model=located(folder, config, COMPRESSOR))
    else:
        config = locate(folder, config)

    # If the generator is on this disk already; otherwise it is checked when it has been loaded.
    check(folder, config, read(config))
    return config


def save(files: GeneratorFiles | None, config: ScaleDownConfig, folder: Path) -> None:
    """Write a checkpoint's record of its generator into ``folder``: null if its files are not known."""
    record = files
    if files is not None:
        folders = {model.place: local_folder(config, model) for model in needed(config)}
        record = {**files, **{key: place for key, place in folders.items() if place is not None}}
    (folder / FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def check(folder: Path, config: ScaleDownConfig, files: GeneratorFiles | None) -> None:
    """Refuse a checkpoint that was trained on another generator than the one whose ``files`` are there now.

    A checkpoint without a record of its generator's files, as older versions wrote them, is accepted.

    Raises:
        ValueError: if it was trained on another one; the message names what differs, and what to do.
    """
    path = folder / FILE
    if not path.is_file() or files is None:
        return

    # A record that can be parsed may still be no record: differences then fails on its type or keys.
    try:
        trained_on = parse_json(path.read_text(encoding="utf-8"))
        faults = differences(trained_on, files) if trained_on is not None else []
        of_compressor = []
        if trained_on is not None and "compressor" in trained_on and "compressor" in files:
            of_compressor = differences(trained_on["compressor"], files["compressor"])
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as fault:
        raise ValueError(f"{path}: cannot be read ({fault}); delete it to load the checkpoint without knowing that its "
                         "generator is the right one") from None

    if faults:
        raise ValueError(
            f"{folder} was trained on another generator than {config.generator_model} is now: {'; '.join(faults)}. "
            "Put the one back that it was trained on, or name its folder: from_pretrained(..., generator_model=FOLDER) "
            f"or in {folder / 'config.json'}. If it is the same one, saved in another way, delete {path}: then it is "
            "loaded unchecked")
    if of_compressor:
        raise ValueError(f"{folder} holds the compressor's LoRA for another model than {config.compressor_model} is "
                         f"now: {'; '.join(of_compressor)}. Put the one back that it was trained on, or name its "
                         f"folder as compressor_model in {folder / 'config.json'}")


def check_unchanged(config: ScaleDownConfig, files: GeneratorFiles | None) -> None:
    """Refuse a generator whose files have changed since a model was loaded from them.

    Raises:
        ValueError: if they have.
    """
    now = read(config)
    if now is None or files is None:
        return
    if faults := differences(files, now):
        raise ValueError(f"{config.generator_model} has changed since this model was loaded: {'; '.join(faults)}. Put "
                         "the generator back that was there")


def differences(before: GeneratorFiles, now: GeneratorFiles) -> list[str]:
    """Return in words what differs between a generator's files before and now."""
    # A setting that is null is the same as one that is missing.
    old_settings = {name: value for name, value in before["config"].items() if value is not None}
    new_settings = {name: value for name, value in now["config"].items() if value is not None}

    faults = []
    for name in sorted(old_settings.keys() | new_settings.keys()):
        old, new = old_settings.get(name), new_settings.get(name)
        if old != new:
            faults.append(f"{name} in its config.json was {old!r}, is {new!r}")
    if len(faults) > SHOWN_SETTINGS:
        faults = [*faults[:SHOWN_SETTINGS], f"{len(faults) - SHOWN_SETTINGS} more of its settings"]

    # None: the weights were not on the disk in full.
    if None not in (before["weights"], now["weights"]) and before["weights"] != now["weights"]:
        faults.append("its weights differ")
    return faults
