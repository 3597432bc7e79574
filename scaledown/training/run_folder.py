"""One folder for one run: claimed before anything is computed, so that no run overwrites another.

A resumed run must have the inputs that it had before. They are compared by content, not by name: each input is named by
its flag and its file, and has a fingerprint; None stands for one that this start does not read.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from scaledown import processes
from scaledown.config import EMBEDDED, ScaleDownConfig
from scaledown.data.records import Record
from scaledown.data.storage import fingerprints
from scaledown.data.storage.run_information import run_information
from scaledown.files import make_folder, parse_json, write_json
from scaledown.hub import on_disk
from scaledown.models.loading import checkpoint, generator_files, pretrained
from scaledown.models.model import ScaleDownModel
from scaledown.settings import RETIRED
from scaledown.training import checkpoints
from scaledown.training.presets.run_settings import MAY_CHANGE_ON_RESUME, RUN_FILE

SETTINGS = "settings"
INPUTS = "inputs"
LOCK_FILE = ".lock"
PRETRAINING = "pretraining"
"""Folder of a run's first stage, which has checkpoints of its own."""
PARTS = ("checkpoints", "final", "runs", PRETRAINING)
Inputs = Mapping[str, str | None]
TEXT_FILES = (".json", ".jinja", ".txt", ".model", ".py")
"""Files of a model's folder beside its weights: its config, its tokenizer and its chat template."""


@contextmanager
def claimed(folder: Path | str, run: Mapping[str, Any], overwrite: bool = False,
            resume: bool = False) -> Iterator[Path | None]:
    """Claim ``folder`` for a run while it lasts, and write ``config.json`` into it.

    Of several processes one does so, and the others wait for it.

    Args:
        folder: created if needed.
        run: the content of ``config.json``; ``run["settings"]`` holds every setting by name, ``run["inputs"]`` the
            inputs of the run (:func:`inputs_of_run` and those after it).
        overwrite: remove another run that is there.
        resume: continue the run that is there.

    Yields:
        The last complete checkpoint to continue from, or None for a new run.

    Raises:
        ValueError: if another run is there and neither flag was given, or both were; if there is nothing to resume, or
            the run to resume had other settings or inputs; if the folder cannot be created, or a run is active in it.
    """
    folder = Path(folder)
    with ExitStack() as lock:
        # The lock is held until the run leaves this context.
        processes.once(lambda: _claim(folder, run, overwrite, resume, lock))
        yield checkpoints.last(folder) if resume else None


def _claim(folder: Path, run: Mapping[str, Any], overwrite: bool, resume: bool, lock: ExitStack) -> None:
    # Refuse first, before anything is written.
    if resume and overwrite:
        raise ValueError("--resume goes on with the run in --output_dir and --overwrite removes it: give one of them")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir {folder}: is a file; give a folder")

    is_taken = (folder / RUN_FILE).exists() or any(checkpoints.complete(folder))
    if is_taken and not (overwrite or resume):
        raise ValueError(f"--output_dir {folder} holds another run: give --resume to go on with it, --overwrite to "
                         "replace it, or another folder")
    if resume:
        _check_same(folder, run)
    else:
        make_folder(folder)

    # Then lock, and only then remove or write.
    lock.enter_context(_lock(folder))
    if resume:
        return
    if overwrite and is_taken:
        remove_run(folder)
    write_json(folder / RUN_FILE, run)


def _lock(folder: Path) -> AcquireReturnProxy:
    """Lock ``folder`` until the returned context is left, or this process ends, even by a kill."""
    try:
        return FileLock(folder / LOCK_FILE).acquire(timeout=0)
    except Timeout:
        raise ValueError(f"--output_dir {folder}: another run is at work in it; wait for its end, or give another "
                         "folder") from None


def remove_run(folder: Path) -> None:
    """Remove a run's checkpoints and its config; results are overwritten one by one."""
    parts = [folder / name for name in PARTS]
    for path in (*checkpoints.named(folder), folder / checkpoints.DRAFT, *parts):
        shutil.rmtree(path, ignore_errors=True)

    # Last, so that a folder with a config is known as taken until then.
    (folder / RUN_FILE).unlink(missing_ok=True)


def _recorded(folder: Path) -> tuple[dict[str, Any], Inputs | None]:
    """Return the settings and the inputs that the run in ``folder`` recorded; older versions recorded no inputs."""
    path = folder / RUN_FILE
    try:
        earlier = parse_json(path.read_text(encoding="utf-8"))
        settings, read = earlier[SETTINGS], earlier.get(INPUTS)
        if not isinstance(settings, dict):
            raise ValueError(f"{SETTINGS} is no object")
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"--resume: no run in {folder} (it has no {RUN_FILE})") from None
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ValueError(f"--resume: {path} is damaged; start again with --overwrite") from None
    return settings, read


def _check_same(folder: Path, run: Mapping[str, Any]) -> None:
    settings, read = _recorded(folder)

    # Through JSON, as the earlier settings: a tuple becomes a list.
    now = json.loads(json.dumps(run[SETTINGS]))
    differing = []
    for name in sorted({*settings, *now} - MAY_CHANGE_ON_RESUME):
        # A setting that is gone: all runs are now as with its default.
        if name in RETIRED and settings.get(name) == RETIRED[name]:
            continue
        if name in RETIRED:
            differing.append(f"--{name} was {settings.get(name)!r} (gone: every run is now as with its default, "
                             f"{RETIRED[name]!r})")
        elif settings.get(name) != now.get(name):
            differing.append(f"--{name} was {settings.get(name)!r}, is {now.get(name)!r}")

    # Older versions did not record the inputs of a run.
    changed = _changed(read, run[INPUTS]) if read is not None and INPUTS in run else []

    others = []
    if differing:
        others.append(f"other settings: {'; '.join(differing)}")
    if changed:
        others.append(f"other inputs: {'; '.join(changed)}")
    if others:
        raise ValueError(f"--resume: the run in {folder} had {'. It had '.join(others)}. Go on with what it had, or "
                         "start anew in another --output_dir")


def information(args: argparse.Namespace, model: ScaleDownModel, records: Sequence[Record],
                eval_data: Path | None, eval_records: Sequence[Record]) -> dict[str, Any]:
    """Return what ``config.json`` says of a training run: versions, device, command line, settings and inputs.

    Args:
        args: the settings of the run.
        model: as it was built, with everything resolved that the settings leave open.
        records: those of ``--train_data``. Generated records are no input: they follow from the seed, a setting.
        eval_data: the file of ``eval_records``, named by a flag or not.
        eval_records: to measure with.
    """
    # The model's own settings win: they have the revisions and layers in use.
    settings = vars(args) | dataclasses.asdict(model.config)
    inputs = {**inputs_of_run(model.config, args.init_compressor),
              **inputs_of_records("--train_data", args.train_data, records),
              **inputs_of_records("--eval_data", eval_data, eval_records)}
    numbers = {"training": len(records), "evaluation": len(eval_records)}
    return {**run_information(args.seed, model.device, sys.argv, settings), "records": numbers, INPUTS: inputs}


def inputs_of_run(config: ScaleDownConfig, init_compressor: str | None = None) -> dict[str, str | None]:
    """Return the inputs that a model is built from.

    A model of the Hub is not among them: its commit is one of the run's settings.

    Args:
        config: of the built model, with everything resolved.
        init_compressor: the checkpoint that it started from.
    """
    inputs = inputs_of_model("--generator_model", config.generator_model, config.generator_revision)
    if init_compressor is not None:
        inputs |= inputs_of_checkpoint("--init_compressor", init_compressor)
    elif config.compressor_model not in (None, EMBEDDED):
        inputs |= inputs_of_model("--compressor_model", config.compressor_model, config.compressor_revision)
    return inputs


def inputs_of_model(flag: str, name: str, revision: str | None) -> dict[str, str | None]:
    """Return a model in a local folder as an input; nothing for one of the Hub."""
    folder = None if revision else on_disk(name)
    return {} if folder is None else {f"{flag} {name}": _of_folder(folder, generator_files.weight_files(folder))}


def inputs_of_checkpoint(flag: str, name: str) -> dict[str, str | None]:
    """Return a checkpoint as an input: a folder, a Hub id, or one that ships."""
    folder = checkpoint.find(name)
    return {f"{flag} {name}": _of_folder(folder, sorted(folder.glob("*.safetensors")))}


def inputs_of_records(flag: str, path: Path | str | None, records: Sequence[Record]) -> dict[str, str | None]:
    """Return records read from a file as an input; nothing if there is no file."""
    if path is None:
        return {}
    return {f"{flag} {path}": fingerprints.of_each(record.to_dict() for record in records)}


def inputs_of_evaluation(config: ScaleDownConfig, name: str, eval_data: str | None,
                         records: Sequence[Record]) -> dict[str, str | None]:
    """Return the inputs of a command that measures ``--checkpoint`` on ``--eval_data``.

    Args:
        config: of the checkpoint.
        name: of the checkpoint.
        eval_data: the file of ``records``; None for questions of the demo world, which come from the settings.
    """
    return (inputs_of_run(config) | inputs_of_checkpoint("--checkpoint", name)
            | inputs_of_records("--eval_data", eval_data, records))


def inputs_of_texts(flag: str, source: str, texts: Iterable[str] | None) -> dict[str, str | None]:
    """Return texts of a file or the Hub as an input; None if an earlier start has done all that needs them."""
    return {f"{flag} {source}": None if texts is None else fingerprints.of_each(texts)}


def _changed(then: Inputs, now: Inputs) -> list[str]:
    """Return the differences between two starts' inputs, in words."""
    # Inputs that this start does not read cannot be compared.
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
    text_files = []
    for place in (folder, folder / pretrained.TOKENIZER_FOLDER, folder / pretrained.COMPRESSOR_FOLDER):
        text_files += [path for path in sorted(place.glob("*")) if path.suffix in TEXT_FILES and path.is_file()]

    of_weights = generator_files.fingerprint([path for path in weights if path.is_file()])
    names = [str(path.relative_to(folder)) for path in text_files]
    return fingerprints.of_values([of_weights, names, fingerprints.of_files(text_files)])
