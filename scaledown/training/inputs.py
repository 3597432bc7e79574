"""What a run reads, by what it holds and not by its name: a run that goes on must find the same again.

Each input is named by its flag and its file, and has a fingerprint; None stands for one that this start does not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from scaledown.config import EMBEDDED, ScaleDownConfig
from scaledown.data.records import Record
from scaledown.data.storage import fingerprints
from scaledown.hub import on_disk
from scaledown.models import checkpoint, generator_files, loading

Inputs = Mapping[str, str | None]
TEXT_FILES = (".json", ".jinja", ".txt", ".model", ".py")
"""Beside its weights, what a model's folder says: its config, its tokenizer and its chat template."""


def of_run(config: ScaleDownConfig, init_compressor: str | None = None) -> dict[str, str | None]:
    """The inputs that a model is built from.

    A model of the Hub is not among them: its commit is one of the run's settings.

    Args:
        config: the built model's, with nothing left open.
        init_compressor: the checkpoint that it started from.
    """
    found = of_model("--generator_model", config.generator_model, config.generator_revision)
    if init_compressor is not None:
        found |= of_checkpoint("--init_compressor", init_compressor)
    elif config.compressor_model not in (None, EMBEDDED):
        found |= of_model("--compressor_model", config.compressor_model, config.compressor_revision)
    return found


def of_model(flag: str, name: str, revision: str | None) -> dict[str, str | None]:
    """A model in a local folder; nothing for one of the Hub."""
    folder = None if revision else on_disk(name)
    return {} if folder is None else {f"{flag} {name}": _of_folder(folder, generator_files.weight_files(folder))}


def of_checkpoint(flag: str, name: str) -> dict[str, str | None]:
    """A checkpoint: a folder, a Hub id, or one that ships."""
    folder = checkpoint.find(name)
    return {f"{flag} {name}": _of_folder(folder, sorted(folder.glob("*.safetensors")))}


def of_records(flag: str, path: Path | str | None, records: Sequence[Record]) -> dict[str, str | None]:
    """Records read from a file; nothing where there is no file."""
    if path is None:
        return {}
    return {f"{flag} {path}": fingerprints.of_each(record.to_dict() for record in records)}


def of_texts(flag: str, source: str, texts: Iterable[str] | None) -> dict[str, str | None]:
    """Texts read from a file or the Hub; None where an earlier start has made all that is made of them."""
    return {f"{flag} {source}": None if texts is None else fingerprints.of_each(texts)}


def differences(then: Inputs, now: Inputs) -> list[str]:
    """What a run reads now that it did not read then, in words."""
    not_read = {name for name, fingerprint in now.items() if fingerprint is None}
    faults = []
    for name in sorted({*then, *now} - not_read):
        if name not in now:
            faults.append(f"{name} is not there any more")
        elif name not in then:
            faults.append(f"{name} was not there")
        elif None not in (then[name], now[name]) and then[name] != now[name]:
            faults.append(f"{name} has changed")
    return faults


def _of_folder(folder: Path, weights: list[Path]) -> str:
    places = (folder, folder / loading.TOKENIZER_FOLDER, folder / loading.COMPRESSOR_FOLDER)
    texts = [path for place in places for path in sorted(place.glob("*"))
             if path.suffix in TEXT_FILES and path.is_file()]
    values = [generator_files.fingerprint([path for path in weights if path.is_file()]),
                         [str(path.relative_to(folder)) for path in texts], fingerprints.of_files(texts)]
    return fingerprints.of_values(values)
