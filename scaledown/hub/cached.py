"""Models in the Hub's local cache that are complete: what was downloaded once loads without the Hub."""

from __future__ import annotations

import json
import os
from pathlib import Path

from scaledown.config import NO_COMPRESSOR

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def snapshot(name: str, revision: str | None) -> str | None:
    """Return the local cache's snapshot of a model or a checkpoint, or None unless it has all that it needs."""
    from huggingface_hub import errors, try_to_load_from_cache

    # A path, or else None or a mark that the Hub has no such file.
    try:
        config_file = try_to_load_from_cache(name, "config.json", revision=revision)
    except errors.HFValidationError:
        return None
    if not isinstance(config_file, str):
        return None

    # A download that was interrupted leaves a snapshot with some of its files.
    folder = Path(config_file).parent
    is_complete = _is_whole_checkpoint(folder) or (_has_tokenizer(folder) and _has_weights(folder))
    return str(folder) if is_complete else None


def _is_whole_checkpoint(folder: Path) -> bool:
    """Return whether a folder holds all that a ScaleDown checkpoint needs (models/loading/checkpoint.py)."""
    try:
        settings = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    # Of the settings of models, compressor_type is a checkpoint's alone.
    if not isinstance(settings, dict) or "compressor_type" not in settings:
        return False

    needed = ["generator.safetensors"]
    if settings["compressor_type"] != NO_COMPRESSOR:
        needed.append("compressor.safetensors")
    return all((folder / file).is_file() for file in needed) and _has_tokenizer(folder / "tokenizer")


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / file).is_file() for file in TOKENIZER_FILES)


def _has_weights(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()

    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return all(os.path.isfile(folder / shard) for shard in shards)
