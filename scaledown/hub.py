"""A name becomes a local folder or a Hub id; a name that cannot be reached gets a clear answer within seconds.

Without the check made here, an unknown name or a missing network shows only after half a minute of retries, as a
different exception in each library.
"""

from __future__ import annotations

import json
import os
import queue
import re
import threading
from pathlib import Path
from typing import Any

from scaledown.config import EMBEDDED

EMBEDDED_FOLDER = Path(__file__).resolve().parent / "models" / "embedded" / "generator"
CONNECT_SECONDS = 3
ANSWER_SECONDS = 8
WHAT_WORKS = {
    "model": "What works without it: a local folder, or the generator that ships, as in --generator_model embedded.",
    "dataset": "What works without it: official files on disk, by --source FILE_OR_FOLDER (or --pretrain_data FILE).",
}
SAFE_WEIGHTS = {"use_safetensors": True}
"""Weights come from safetensors alone: reading a pickle can run any code. On the Hub, transformers finds or asks for a
converted copy of a model's ``main`` that has none."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_MODEL_FILES = {"config.json", "modules.json"}
"""One of them says that there is a model: transformers' own, or what sentence-transformers puts together."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


def locate(name: str, revision: str | None = None, kind: str = "model", what_works: str | None = None) -> str:
    """Say where ``name`` loads from: a local folder where there is one, else its Hub id.

    Args:
        name: ``embedded``, a local folder, or a Hub id.
        revision: commit, branch or tag on the Hub; a local folder has none.
        kind: ``model`` or ``dataset``.
        what_works: advice for where it cannot be had [that of ``WHAT_WORKS``].

    Where the Hub does not answer, a model that is whole in the local cache is used from there.

    Raises:
        ValueError: within ``ANSWER_SECONDS``, where there is nothing by that name or it cannot be had.
    """
    if folder := _local_folder(name, kind):
        return folder
    answer = _ask_in_time(name, revision, kind)
    if not isinstance(answer, str):
        return name
    if kind == "model" and (folder := _cached_folder(name, revision)):
        return folder
    raise ValueError(f"{kind} {name!r}: {answer} {what_works or WHAT_WORKS[kind]}")


def load_tokenizer(name: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of ``name`` (see :func:`locate`).

    Raises:
        ValueError: where it cannot be found or read.
    """
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, "tokenizer", name, revision, trust_remote_code)


def load_config(name: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Load the Hugging Face config of ``name`` (see :func:`locate`).

    Raises:
        ValueError: where it cannot be found or read.
    """
    from transformers import AutoConfig

    return _load(AutoConfig, "config", name, revision, trust_remote_code)


def resolve_revision(name: str, revision: str | None) -> str | None:
    """Tell the commit that ``name`` at ``revision`` stands for, for a run's records; None for a local folder.

    Raises:
        ValueError: as :func:`locate`.
    """
    if _local_folder(name, "model"):
        return None
    if revision and _COMMIT.fullmatch(revision):
        return revision
    answer = _ask_in_time(name, revision, "model")
    if not isinstance(answer, str):
        return answer.sha
    if folder := _cached_folder(name, revision):
        return Path(folder).name
    raise ValueError(f"model {name!r}: {answer} {WHAT_WORKS['model']}")


def on_disk(name: str, revision: str | None = None) -> Path | None:
    """The folder with all files of a model: a local one, or the local cache's; None if they are not on this disk.

    Raises:
        ValueError: for a name that can only be a local folder, and is none.
    """
    folder = _local_folder(name, "model") or _cached_folder(name, revision)
    return Path(folder) if folder else None


def _load(auto_class: Any, what: str, name: str, revision: str | None, trust_remote_code: bool) -> Any:
    place = locate(name, revision)
    try:
        return auto_class.from_pretrained(place, revision=revision, trust_remote_code=trust_remote_code)
    # A damaged file shows as whatever the reading library raises, down to plain Exception from tokenizers.
    except Exception as fault:
        raise ValueError(f"model {name!r}: its {what} cannot be read: {fault}") from fault


def _local_folder(name: str, kind: str) -> str | None:
    """Return the folder that ``name`` means on this disk, or None where it can only be a Hub id."""
    if name == EMBEDDED and kind == "model":
        if not (EMBEDDED_FOLDER / "config.json").is_file():
            raise ValueError(f"the embedded generator is not in {EMBEDDED_FOLDER}; "
                             "rebuild it with: python -m lab.embedded")
        return str(EMBEDDED_FOLDER)
    # os.path, because pathlib raises on a name that is too long or has an unknown ~user.
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        if kind == "model" and not any(os.path.isfile(os.path.join(path, file)) for file in _MODEL_FILES):
            raise ValueError(f"model {name!r}: this folder holds no config.json, so it is not a Hugging Face model")
        return path
    if os.path.exists(path):
        raise ValueError(f"{kind} {name!r} is a file, expected a folder or a Hub id")
    if os.path.isabs(path) or name.startswith((".", "~")):
        raise ValueError(f"{kind} {name!r}: there is no such folder")
    return None


def _ask_in_time(name: str, revision: str | None, kind: str) -> Any:
    """As :func:`_ask`, but never longer than ``ANSWER_SECONDS``: a name server that is silent has its own patience."""
    answers: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_ask(name, revision, kind)), daemon=True).start()
    try:
        return answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        return f"the Hub did not answer within {ANSWER_SECONDS} seconds."


def _ask(name: str, revision: str | None, kind: str) -> Any:
    """Return the Hub's info of a repository, or the sentence that says why there is none."""
    from huggingface_hub import HfApi, errors

    api = HfApi()
    try:
        info = api.repo_info(name, revision=revision, repo_type=kind, timeout=CONNECT_SECONDS)
        if getattr(info, "gated", False):
            api.auth_check(name, repo_type=kind)
    except errors.HFValidationError:
        return "there is no such folder, and a Hub id reads OWNER/NAME."
    except errors.GatedRepoError:
        return f"its authors ask for consent: accept at {api.endpoint}/{name}, then log in with `hf auth login`."
    except errors.RepositoryNotFoundError:
        return f"the Hub has no {kind} of that name (or it is private: log in with `hf auth login`)."
    except errors.RevisionNotFoundError:
        return f"it has no revision {revision!r} on the Hub."
    except errors.OfflineModeIsEnabled:
        return "it is not in the local cache, and HF_HUB_OFFLINE forbids to fetch it."
    except (OSError, errors.HTTPError) as fault:
        return f"the Hub cannot be reached ({str(fault).splitlines()[0] if str(fault) else type(fault).__name__})."
    if kind == "model" and not {file.rfilename for file in info.siblings or ()} & _MODEL_FILES:
        return "it holds no config.json on the Hub, so it is not a model that transformers reads."
    return info


def _cached_folder(name: str, revision: str | None) -> str | None:
    """Return the local cache's snapshot of a model, where config, tokenizer and all weights are in it."""
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, "config.json", revision=revision)
    except errors.HFValidationError:
        return None
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    has_tokenizer = any((folder / file).is_file() for file in _TOKENIZER_FILES)
    return str(folder) if has_tokenizer and _has_weights(folder) else None


def _has_weights(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return all(os.path.isfile(folder / shard) for shard in shards)
