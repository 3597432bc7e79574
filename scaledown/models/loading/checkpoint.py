"""A checkpoint on disk, in safetensors: what was trained and no more. The generator's base is named, not copied.

    config.json              ScaleDownConfig, with the number of layers and the revisions that were really used
    compressor.safetensors   the compressor, if there is one: layers or model, memory and rerank tokens, heads
    generator.safetensors    LoRA and the separator token
    tokenizer/               the generator's tokenizer and chat template
    compressor/              config and tokenizer of the compressor's own model (modernbert and llm)
    generator_files.json     a fingerprint of the base's files, and of the model's that a compressor's LoRA lies on:
                             the weights here fit no others
    training.json            the number of steps and scores that it was trained on
    README.md                the model card
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import HfApi, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scaledown.files import disk_faults, make_folder, parse_json
from scaledown.hub import SHIPPED_CHECKPOINTS, locate
from scaledown.hub.connection import current_token
from scaledown.models.compressors.base import Compressor
from scaledown.models.compressors.no_compressor import NoCompressor
from scaledown.models.loading import generator_files, model_card, training_progress
from scaledown.models.loading.parameters import trained
from scaledown.models.loading.pretrained import COMPRESSOR_FOLDER, TOKENIZER_FOLDER
from scaledown.models.processor import Processor

CONFIG_FILE = "config.json"
COMPRESSOR_FILE = "compressor.safetensors"
GENERATOR_FILE = "generator.safetensors"
OWN_FILES = (COMPRESSOR_FILE, GENERATOR_FILE, generator_files.FILE, training_progress.FILE)
OWN_FOLDERS = (TOKENIZER_FOLDER, COMPRESSOR_FOLDER)
"""What a checkpoint that replaces another one must not leave of it."""
SHOWN_SHAPES = 3


def find(name: str, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint: a local one, one that ships (by name), or a download from the Hub.

    Raises:
        ValueError: if there is none.
    """
    if name in SHIPPED_CHECKPOINTS:
        folder = SHIPPED_CHECKPOINTS[name]
        if not (folder / CONFIG_FILE).is_file():
            raise ValueError(f"'{name}': no trained checkpoint ships with this copy of the project ({folder}); "
                             "train one: python train_with_evaluation.py")
        return folder

    # Taken as it is: what is missing in it is named when its files are read.
    if Path(name).is_dir():
        return Path(name)

    shipped = f"Checkpoints that ship: {', '.join(SHIPPED_CHECKPOINTS)}."
    path = Path(locate(name, revision, what_works=f"Give a folder that training wrote. {shipped}"))
    # A folder if it is in the local cache or begins with ~, else still the Hub id.
    return path if path.is_dir() else Path(snapshot_download(name, revision=revision, token=current_token()))


def save(folder: Path, compressor: Compressor | NoCompressor, generator: nn.Module, processor: Processor) -> None:
    """Write the weights and tokenizers of a checkpoint."""
    if stored(compressor):
        save_weights(compressor, folder / COMPRESSOR_FILE)
    save_weights(generator, folder / GENERATOR_FILE)
    processor.save(folder / TOKENIZER_FOLDER, folder / COMPRESSOR_FOLDER)
    if compressor.model_config is not None:
        compressor.model_config.save_pretrained(folder / COMPRESSOR_FOLDER)


def load(folder: Path, compressor: nn.Module, generator: nn.Module) -> None:
    """Load what :func:`save` wrote into the compressor and generator of a model of the same shape.

    Raises:
        ValueError: if a file is missing, damaged or of another model.
    """
    # A model that reads text has no compressor with weights.
    if stored(compressor):
        load_weights(compressor, folder / COMPRESSOR_FILE)
    load_weights(generator, folder / GENERATOR_FILE)


def upload(folder: Path, repo_id: str, private: bool | None = None, token: str | None = None) -> None:
    """Upload a checkpoint's folder to the Hub as ``repo_id``, created if needed; a model card that is there stays.

    Args:
        folder: the checkpoint's.
        repo_id: of the model on the Hub.
        private: whether a new one is private [as the owner has set for new ones].
        token: of the user [that of ``hf auth login``].
    """
    # Whoever reads the card there can copy its example.
    card = folder / model_card.FILE
    card.write_text(card.read_text(encoding="utf-8").replace(model_card.PLACE, repo_id), encoding="utf-8")

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    # A card that is there may have been written by hand.
    left_out = [model_card.FILE] if api.file_exists(repo_id, model_card.FILE) else None
    api.upload_folder(repo_id=repo_id, folder_path=folder, ignore_patterns=left_out)


def stored(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trained parameters of ``module`` by their names in checkpoints."""
    # Compressors rename some parameters; the generator's names are stored as they are.
    name_of = getattr(module, "stored_name", str)
    return {name_of(name): parameter for name, parameter in trained(module).items()}


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the trained parameters of ``module``."""
    weights = {name: parameter.detach().cpu().contiguous() for name, parameter in stored(module).items()}
    save_file(weights, path, metadata={"format": "pt"})


def load_weights(module: nn.Module, path: Path) -> None:
    """Load what :func:`save_weights` wrote into a module of the same shape.

    Raises:
        ValueError: if the file is missing, cut short, or of another model; then nothing is loaded.
    """
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; the checkpoint is incomplete") from None
    except (SafetensorError, OSError) as fault:
        raise ValueError(f"{path}: damaged or cut short ({fault})") from None

    # All weights are compared before the first one is copied.
    parameters = stored(module)
    if faults := _differences(weights, parameters):
        raise ValueError(f"{path}: does not belong to this model: {'; '.join(faults)}")

    # copy_ also moves the weights to the parameters' device and dtype.
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)


def _differences(weights: dict[str, Tensor], parameters: dict[str, nn.Parameter]) -> list[str]:
    """Return in words how a file's weights differ from a module's parameters in names and shapes."""
    faults = []
    if missing := sorted(parameters.keys() - weights.keys()):
        faults.append(f"{len(missing)} weights missing, such as {missing[0]}")
    if unknown := sorted(weights.keys() - parameters.keys()):
        faults.append(f"{len(unknown)} unknown, such as {unknown[0]}")

    # A model of another width differs in nearly all shapes: a few tell it.
    shapes = []
    for name in sorted(weights.keys() & parameters.keys()):
        stored_shape, shape = tuple(weights[name].shape), tuple(parameters[name].shape)
        if stored_shape != shape:
            shapes.append(f"{name} is {stored_shape}, not {shape}")
    return faults + shapes[:SHOWN_SHAPES]


@contextmanager
def whole_folder(folder: Path, is_checkpoint: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder`` whose files move there at the end, so that none is half-written.

    ``config.json`` moves last: a folder that has one is complete. A checkpoint replaces an old one as a whole; files
    of the user's own beside it stay.

    Raises:
        ValueError: as :func:`check_target`, or if the disk cannot take the weights.
    """
    check_target(folder, is_checkpoint)
    make_folder(folder.parent, "folder")
    try:
        with disk_faults(folder):
            # Beside the folder, hence on the same disk: there a file moves in one step.
            draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
            try:
                yield draft
                _move_into(folder, draft, is_checkpoint)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except SafetensorError as fault:
        raise ValueError(f"{folder}: the weights cannot be written ({fault})") from fault


def check_target(folder: Path, is_checkpoint: bool = False) -> None:
    """Refuse a folder whose model would be destroyed by what is to be written there, before it is made.

    Args:
        folder: need not exist.
        is_checkpoint: whether a checkpoint is to be written, which may replace another one.

    Raises:
        ValueError: if it is a file, or holds another model.
    """
    # os.path, because pathlib raises on a name that is too long.
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ValueError(f"{folder}: is a file, expected a folder; give another name")

    path = folder / CONFIG_FILE
    if not os.path.isfile(path):
        return
    if not is_checkpoint:
        raise ValueError(f"{folder}: holds a model already ({CONFIG_FILE}), which would be destroyed; give a new or "
                         "empty folder")

    # Only configs of other libraries, such as the generator's own, name a type. One that cannot be read names none.
    try:
        settings = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return
    if isinstance(settings, dict) and "model_type" in settings:
        raise ValueError(f"{folder}: holds another model (a {settings['model_type']}, by its {CONFIG_FILE}), which a "
                         "checkpoint would destroy; give a folder of its own")


def _move_into(folder: Path, draft: Path, is_checkpoint: bool) -> None:
    """Move the files of ``draft`` to ``folder``; of a checkpoint that was there no file stays."""
    # Without its old config.json the folder counts as incomplete until the new one is there.
    folder.mkdir(exist_ok=True)
    (folder / CONFIG_FILE).unlink(missing_ok=True)

    files = [path.relative_to(draft) for path in draft.rglob("*") if path.is_file()]
    if is_checkpoint:
        _remove_others(folder, files)

    # False sorts before True, so config.json comes last.
    for path in sorted(files, key=lambda path: (path == Path(CONFIG_FILE), path)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft / path, folder / path)


def _remove_others(folder: Path, files: Collection[Path]) -> None:
    """Remove the files of a checkpoint in ``folder`` that are not among ``files``, by their paths in it."""
    old_files = [folder / name for name in OWN_FILES]
    for name in OWN_FOLDERS:
        old_files += (folder / name).rglob("*")
    for path in old_files:
        if path.is_file() and path.relative_to(folder) not in files:
            path.unlink()

    # A folder of which nothing is left.
    for name in OWN_FOLDERS:
        if (folder / name).is_dir() and not any((folder / name).iterdir()):
            (folder / name).rmdir()
