"""Tensors with a description in JSON, as one safetensors file that is written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scaledown.files import parse_json, whole_file

KEY = "scaledown"
"""The entry of the file's metadata that holds the description."""


def write(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write tensors and their description; a file that is there is replaced as a whole.

    Raises:
        ValueError: if the disk cannot take it.
    """
    try:
        with whole_file(path) as draft:
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(weights, draft, metadata={"format": "pt", KEY: json.dumps(description)})
    except SafetensorError as fault:
        raise ValueError(f"{path}: cannot be written ({fault})") from fault


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what :func:`write` wrote: the tensors, on the CPU, and their description.

    Raises:
        ValueError: if the file is missing, damaged, or was written by something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = parse_json((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (SafetensorError, OSError, ValueError) as fault:
        raise ValueError(f"{path}: damaged, or no safetensors file ({fault})") from None
    if not isinstance(description, dict):
        raise ValueError(f"{path}: a safetensors file, but not one that ScaleDown wrote with a description")
    return tensors, description
