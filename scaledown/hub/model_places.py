"""The places of the models that a checkpoint needs and does not hold.

A local folder is named relative to the checkpoint, so that the two can be moved together, and the record beside it says
where the folder was when the checkpoint was written.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import NamedTuple

from scaledown import hub
from scaledown.config import ScaleDownConfig

FILE = "generator_files.json"
"""The record, written and read by :mod:`scaledown.models.loading.generator_files`."""


class NamedModel(NamedTuple):
    """A model that a checkpoint needs and names.

    Attributes:
        what: the model, in words.
        field: the setting that names it.
        revision: the setting of its revision.
        place: the key, in a checkpoint's record, of the folder that held it when the checkpoint was written.
    """

    what: str
    field: str
    revision: str
    place: str


GENERATOR = NamedModel("generator", "generator_model", "generator_revision", "folder")
COMPRESSOR = NamedModel("compressor's model", "compressor_model", "compressor_revision", "compressor_folder")


def relative_to(folder: Path, config: ScaleDownConfig) -> ScaleDownConfig:
    """Return ``config`` as a checkpoint in ``folder`` keeps it: local models are named relative to the checkpoint.

    These are those that it needs, the generator and, if it holds LoRA alone for it, the compressor's model. One with
    which the checkpoint shares no folder but the root keeps its absolute path.
    """
    # Real paths, because ".." behind a symbolic link leads out of the link's target.
    start, names = os.path.realpath(folder), {}
    for model in needed(config):
        place = local_folder(config, model)
        if place is None:
            continue
        if os.path.commonpath([place, start]) != os.path.abspath(os.sep):
            place = os.path.relpath(place, start)
        names[model.field] = place
    return dataclasses.replace(config, **names)


def locate(folder: Path, config: ScaleDownConfig) -> ScaleDownConfig:
    """Return ``config``, read from the checkpoint in ``folder``, with the places where its local models are now.

    They are looked for from the checkpoint, then from the current folder (as checkpoints of earlier versions named
    them), then where they were when the checkpoint was written. A model of the Hub has its commit beside its name, so a
    name without one is a folder's. If the Hub were asked for it, the answer would at best be another model.

    Raises:
        ValueError: if one is at none of these; the message says where it was looked for, and what to do.
    """
    # All at once: some settings need a compressor's model that is the generator.
    return dataclasses.replace(config, **{model.field: located(folder, config, model) for model in needed(config)})


def located(folder: Path, config: ScaleDownConfig, model: NamedModel) -> str:
    """Return the place of one model, as :func:`locate` finds it; of one that is no folder its name."""
    name = getattr(config, model.field)
    if getattr(config, model.revision) is not None or name in hub.NAMED:
        return name

    # An absolute name stays as it is: join drops what stands before it.
    path = os.path.expanduser(name)
    places = [os.path.normpath(os.path.join(os.path.realpath(folder), path)), os.path.abspath(path)]
    if recorded := _recorded_place(folder, model):
        places.append(recorded)
    for place in places:
        if os.path.isdir(place):
            return place

    looked_in = ", ".join(dict.fromkeys(places))
    by_argument = ", or in Python give from_pretrained(..., generator_model=FOLDER)" if model == GENERATOR else ""
    raise ValueError(
        f"{folder} names its {model.what} by a local folder that is not there: {name!r} (looked for: {looked_in}). "
        f"Write where it is now (or a Hub id, with its commit or branch as {model.revision}) as {model.field} into "
        f"{folder / 'config.json'}{by_argument}")


def needed(config: ScaleDownConfig) -> list[NamedModel]:
    """Return the models whose files a checkpoint needs.

    A compressor's own model is among them if it is the generator, or if the checkpoint holds LoRA alone for it.
    """
    is_needed = config.compressor_model is not None and (
        config.compressor_lora_rank is not None or config.compressor_model == config.generator_model)
    return [GENERATOR, COMPRESSOR] if is_needed else [GENERATOR]


def local_folder(config: ScaleDownConfig, model: NamedModel) -> str | None:
    """Return the real path of a model's folder, if it is named by one; None for the demo's or the Hub's."""
    name = getattr(config, model.field)
    path = os.path.expanduser(name)
    if getattr(config, model.revision) is not None or name in hub.NAMED or not os.path.isdir(path):
        return None
    return os.path.realpath(path)


def _recorded_place(folder: Path, model: NamedModel) -> str | None:
    """Return the folder of a model in a checkpoint's record; None if there is none.

    A damaged record is told when its fingerprints are compared (:mod:`scaledown.models.loading.generator_files`).
    """
    try:
        record = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return str(record[model.place])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
