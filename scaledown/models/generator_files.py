"""What a generator's files hold, in a few bytes: a checkpoint keeps it, for its weights fit that generator alone.

It is read from the files, not from the loaded model, so it is the same in float32, in bfloat16 and in 4 bits.
"""

from __future__ import annotations

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
from scaledown.config import EMBEDDED, ScaleDownConfig
from scaledown.files import parse_json

FILE = "generator_files.json"
WEIGHTS_FILE = "model.safetensors"
NOT_COMPARED = {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"}
"""Settings in a generator's ``config.json`` that say nothing of what it computes."""
SAMPLED_NUMBERS = 64
SHOWN_SETTINGS = 3

GeneratorFiles = Mapping[str, Any]
"""``config``: the generator's ``config.json``; ``weights``: the fingerprint of numbers from each of its tensors."""


def read(config: ScaleDownConfig) -> GeneratorFiles | None:
    """What the files of the generator of ``config`` hold; None if they are not on this disk (yet).

    Raises:
        ValueError: if they are damaged.
    """
    folder = hub.on_disk(config.generator_model, config.generator_revision)
    if folder is None:
        return None
    try:
        values = parse_json((folder / "config.json").read_text(encoding="utf-8"))
        paths = weight_files(folder)
        return {"config": {name: value for name, value in values.items() if name not in NOT_COMPARED},
                "weights": fingerprint(paths) if all(map(Path.is_file, paths)) else None}
    except (OSError, ValueError, AttributeError, KeyError, TypeError, SafetensorError) as fault:
        raise ValueError(f"{folder}: cannot be loaded ({fault})") from fault


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers takes a model's weights from."""
    index = folder / f"{WEIGHTS_FILE}.index.json"
    if not index.is_file():
        return [folder / WEIGHTS_FILE]
    shards = parse_json(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / shard for shard in sorted(set(shards))]


def fingerprint(paths: list[Path]) -> str:
    """The fingerprint of weights in safetensors files: of the name, the shape and some numbers of each tensor.

    Training moves all numbers of a tensor, so a few tell, and a model of any size is read in moments. It is the same
    however the tensors are spread over files.
    """
    digest = hashlib.sha256()
    with ExitStack() as opened:
        files = [opened.enter_context(safe_open(path, framework="pt")) for path in paths]
        holders = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (it cannot be iterated)
        for name in sorted(holders):
            piece = holders[name].get_slice(name)
            digest.update(f"{name}{piece.get_shape()}".encode())
            for sample in _samples(piece):
                digest.update(sample.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _samples(piece: Any) -> Iterator[Tensor]:
    """Numbers from the start, the middle and the end of a tensor, as bfloat16 rounds them: files may do that, too."""
    size, *others = piece.get_shape() or [0]
    if not size:
        return
    length = 1 if others else SAMPLED_NUMBERS
    for start in (0, size // 2, max(0, size - length)):
        sample = piece[start:start + length].flatten()
        yield sample.to(torch.bfloat16) if sample.is_floating_point() else sample


def save(files: GeneratorFiles | None, folder: Path) -> None:
    """Write down in a checkpoint's ``folder`` what its generator's files hold: null if that is not known."""
    (folder / FILE).write_text(json.dumps(files, indent=2) + "\n", encoding="utf-8")


def check(folder: Path, config: ScaleDownConfig, files: GeneratorFiles | None) -> None:
    """See that a checkpoint was trained on the generator whose ``files`` are there now.

    A checkpoint that was written before they were kept is taken as it is.

    Raises:
        ValueError: if it was trained on another one: what differs, and what to do.
    """
    path = folder / FILE
    if not path.is_file() or files is None:
        return
    try:
        then = parse_json(path.read_text(encoding="utf-8"))
        faults = differences(then, files) if then is not None else []
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as fault:
        raise ValueError(f"{path}: cannot be read ({fault}); delete it to load the checkpoint without knowing that its "
                         "generator is the right one") from None
    if faults:
        raise ValueError(
            f"{folder} was trained on another generator than {config.generator_model} is now: {'; '.join(faults)}. "
            f"Put the one back that it was trained on, or name its folder as generator_model in "
            f"{folder / 'config.json'}. If it is the same one, saved in another way, delete {path}: then it is loaded "
            "unchecked")


def check_unchanged(config: ScaleDownConfig, files: GeneratorFiles | None) -> None:
    """See that a generator's files still hold what they held when a model was loaded from them.

    Raises:
        ValueError: if they do not.
    """
    now = read(config)
    if now is not None and files is not None and (faults := differences(files, now)):
        raise ValueError(f"{config.generator_model} has changed since this model was loaded: {'; '.join(faults)}. Put "
                         "the generator back that was there")


def differences(then: GeneratorFiles, now: GeneratorFiles) -> list[str]:
    """What differs between a generator's files then and now, in words."""
    before, after = ({name: value for name, value in files["config"].items() if value is not None}
                     for files in (then, now))
    settings = [f"{name} in its config.json was {before.get(name)!r}, is {after.get(name)!r}"
                for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    more = [f"{len(settings) - SHOWN_SETTINGS} more settings"] if len(settings) > SHOWN_SETTINGS else []
    are_other_weights = None not in (then["weights"], now["weights"]) and then["weights"] != now["weights"]
    return settings[:SHOWN_SETTINGS] + more + ["its weights differ"] * are_other_weights


def check_place(folder: Path, config: ScaleDownConfig) -> None:
    """See that the local folder that a checkpoint names as its generator is there.

    A model of the Hub has its commit beside its name, so a name without one is that of a folder; looked for on the Hub,
    it would at best be found as another model.

    Raises:
        ValueError: if it is not: from where it was looked for, and what to do.
    """
    name = config.generator_model
    if config.generator_revision is not None or name == EMBEDDED or os.path.isdir(os.path.expanduser(name)):
        return
    place = "" if os.path.isabs(os.path.expanduser(name)) else f", a relative one, looked for from {Path.cwd()}"
    raise ValueError(
        f"{folder} names its generator by a local folder that is not there: {name!r}{place}. Write where it is now (or "
        f"a Hub id, with its commit or branch as generator_revision) as generator_model into {folder / 'config.json'}"
        + (", or start from the folder that it was trained in" if place else ""))
