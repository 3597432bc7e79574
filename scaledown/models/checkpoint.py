"""A checkpoint on disk: what was trained and no more, in safetensors; the generator's base is named, not copied.

    config.json              ScaleDownConfig, with the number of layers and the revisions that were really used
    compressor.safetensors   the compressor: layers or model, memory and rerank rows, heads
    generator.safetensors    LoRA and the separator row
    tokenizer/               the generator's tokenizer and chat template
    compressor/              config and tokenizer of the compressor's own model (modernbert and llm)
    generator_files.json     what the base's files held, for it fits no other one
    training.json            steps and scores that it has learnt from
    README.md                the model card
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scaledown.config import EMBEDDED, EMBEDDED_MODERNBERT
from scaledown.hub import locate
from scaledown.models.compressors.base import Compressor
from scaledown.models.loading import COMPRESSOR_FOLDER, TOKENIZER_FOLDER
from scaledown.models.parameters import trained
from scaledown.models.processor import Processor

CONFIG_FILE = "config.json"
COMPRESSOR_FILE = "compressor.safetensors"
GENERATOR_FILE = "generator.safetensors"
SHIPPED = Path(__file__).parent / "embedded" / "checkpoint"
SHIPPED_BESIDE = {EMBEDDED_MODERNBERT: SHIPPED.with_name("modernbert_checkpoint")}


def find(name: str, revision: str | None = None) -> Path:
    """The folder of a checkpoint: a local one, one that ships (by name), or a Hub id's, downloaded.

    Raises:
        ValueError: where there is none.
    """
    if name == EMBEDDED:
        if not (SHIPPED / CONFIG_FILE).is_file():
            raise ValueError(f"'{EMBEDDED}': no trained checkpoint ships with this copy of the project ({SHIPPED}); "
                             "train one: python train_with_evaluation.py")
        return SHIPPED
    if name in SHIPPED_BESIDE:
        return SHIPPED_BESIDE[name]
    if Path(name).is_dir():
        return Path(name)
    try:
        path = Path(locate(name, revision))
    except ValueError as fault:
        raise ValueError(f"{fault} Checkpoints that ship: {', '.join((EMBEDDED, *SHIPPED_BESIDE))}.") from None
    return path if path.is_dir() else Path(snapshot_download(name, revision=revision))


def save(folder: Path, compressor: Compressor, generator: nn.Module, processor: Processor) -> None:
    """Write the weights and tokenizers of a checkpoint."""
    save_weights(compressor, folder / COMPRESSOR_FILE)
    save_weights(generator, folder / GENERATOR_FILE)
    processor.save(folder / TOKENIZER_FOLDER, folder / COMPRESSOR_FOLDER)
    if compressor.model_config is not None:
        compressor.model_config.save_pretrained(folder / COMPRESSOR_FOLDER)


def load(folder: Path, compressor: nn.Module, generator: nn.Module) -> None:
    """Read back what :func:`save` wrote, into the parts of a model of the same shape.

    Raises:
        ValueError: if a file is missing, damaged or of another model.
    """
    load_weights(compressor, folder / COMPRESSOR_FILE)
    load_weights(generator, folder / GENERATOR_FILE)


def stored(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return what was trained in ``module``, by the names that checkpoints have for it."""
    name_of = getattr(module, "stored_name", str)
    return {name_of(name): parameter for name, parameter in trained(module).items()}


def save_weights(module: nn.Module, path: Path) -> None:
    """Write what was trained in ``module``."""
    weights = {name: parameter.detach().cpu().contiguous() for name, parameter in stored(module).items()}
    save_file(weights, path, metadata={"format": "pt"})


def load_weights(module: nn.Module, path: Path) -> None:
    """Read back what :func:`save_weights` wrote, into a module of the same shape.

    Raises:
        ValueError: where the file is missing, cut short, or of another model; nothing is loaded then.
    """
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; the checkpoint is incomplete") from None
    except (SafetensorError, OSError) as fault:
        raise ValueError(f"{path}: damaged or cut short ({fault})") from None
    parameters = stored(module)
    if faults := _differences(weights, parameters):
        raise ValueError(f"{path}: does not belong to this model: {'; '.join(faults)}")
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)


def _differences(weights: dict[str, Tensor], parameters: dict[str, nn.Parameter]) -> list[str]:
    missing, unknown = sorted(set(parameters) - set(weights)), sorted(set(weights) - set(parameters))
    shapes = [f"{name} is {tuple(weights[name].shape)}, not {tuple(parameters[name].shape)}"
              for name in sorted(set(weights) & set(parameters)) if weights[name].shape != parameters[name].shape]
    faults = [f"{len(missing)} weights missing, such as {missing[0]}"] if missing else []
    return faults + ([f"{len(unknown)} unknown, such as {unknown[0]}"] if unknown else []) + shapes[:3]


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` whose files move into it at the end, so that none is half-written.

    ``config.json`` moves last: a folder that has one is complete.

    Raises:
        ValueError: where the disk cannot take the weights.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield draft
        folder.mkdir(exist_ok=True)
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        files = sorted(path for path in draft.rglob("*") if path.is_file())
        for path in sorted(files, key=lambda path: path == draft / CONFIG_FILE):
            target = folder / path.relative_to(draft)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    except SafetensorError as fault:
        raise ValueError(f"{folder}: the weights cannot be written ({fault})") from fault
    finally:
        shutil.rmtree(draft, ignore_errors=True)
