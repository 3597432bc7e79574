"""The steps that every training script shares: a seeded model on its device, trained into a folder."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from scaledown import processes
from scaledown.config import SPLIT, ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record
from scaledown.models.losses import Losses, counts
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.inputs.long_documents import split_input
from scaledown.models.serving.inputs.user_input import read_input
from scaledown.progress import Bar
from scaledown.training import sharding
from scaledown.training.batches import pads_to_max, shapes_of
from scaledown.training.devices import keep_freed_memory, resolve_device, resolve_dtype
from scaledown.training.steps.callbacks import Interrupt
from scaledown.training.steps.step_lines import HELD_OUT
from scaledown.training.trainer import ScaleDownTrainer

FINAL = "final"
THRESHOLDS = {"keep_threshold": "the scores", "expand_threshold": "how sure answers are"}
"""Settings that python -m scaledown.evaluation.calibration finds, and what they judge."""
FREE_BESIDE_A_CHECKPOINT = {"enable_reranking", "train_memory_tokens", "keep_numbers", "memory_init",
                            "trust_remote_code", *THRESHOLDS}
"""Settings that a training may change, or that say nothing of a model that has its weights."""


def build_model(config: ScaleDownConfig, device: str | torch.device, seed: int, init_compressor: str | None = None,
                dtype: str = "auto") -> ScaleDownModel:
    """Return a new model on ``--device``, the same for the same seed; or one that starts from a checkpoint.

    It has no ``keep_threshold`` and no ``expand_threshold``: they are calibrated, and training changes what they judge.

    Args:
        config: the model's settings.
        device: a device, or a value of ``--device``.
        seed: of all new weights.
        init_compressor: a checkpoint of an earlier training (a folder, a Hub id, or "embedded"). If it has no reranking
            head and ``config`` asks for one, it gets a new one; a head that it has stays. ``train_memory_tokens``
            and ``keep_numbers`` of ``config`` replace its own.
        dtype: a value of ``--dtype``.

    Raises:
        ValueError: if the device or a model is not available, or if the checkpoint is of another model.
    """
    if isinstance(device, str):
        device = resolve_device(device)
    if device.type == "cpu":
        keep_freed_memory()
    torch_dtype = resolve_dtype(dtype, device)

    # Before any weight is drawn: also the new head of a checkpoint has random weights.
    set_seed(seed)
    if init_compressor is None:
        config = dataclasses.replace(config, **dict.fromkeys(THRESHOLDS))
        return ScaleDownModel(config, device=device, dtype=torch_dtype)

    model = ScaleDownModel.from_pretrained(init_compressor, device=device, dtype=torch_dtype)
    _check_same_model(config, model.config, init_compressor)
    if config.enable_reranking and not model.config.enable_reranking:
        model.enable_reranking()
    _drop_thresholds(model, init_compressor)
    if config.train_memory_tokens is not None:
        model.train_for(config.train_memory_tokens)
    if config.keep_numbers is not None:
        model.config = model.processor.config = dataclasses.replace(model.config, keep_numbers=config.keep_numbers)
    return model


def with_long_documents(model: ScaleDownModel, records: Sequence[Record],
                        long_documents: str | None) -> Sequence[Record]:
    """Return the records to train on: with "split" a long document becomes passages, as the model answers from it.

    Otherwise they stay as they are, and long documents are cut when they are read. That is the default: records made
    for training have documents of one passage, and with more a step would need more memory than was planned. A
    teacher's score is of a whole document, so passages of a split one have none, which counts as no score.
    """
    if long_documents != SPLIT:
        return records

    given = read_input([record.query for record in records], [record.documents_with_titles for record in records])
    texts, passages = split_input(model.processor, given, SPLIT)
    found = []
    for record, documents, of_record in zip(records, texts.documents, passages, strict=True):
        if len(documents) == len(record.documents):
            found.append(record)
            continue

        # What a record says of a document it says of each of its passages, but for the score.
        owners = [passage.document for passage in of_record]
        scores = None
        if record.reranking_scores:
            scores = tuple(record.reranking_scores[owner] if owners.count(owner) == 1 else math.nan
                           for owner in owners)
        ids = record.document_ids and tuple(record.document_ids[owner] for owner in owners)
        titles = record.titles and tuple(record.titles[owner] for owner in owners)
        found.append(dataclasses.replace(record, documents=tuple(documents), reranking_scores=scores,
                                         document_ids=ids, titles=titles))
    return found


def train(model: ScaleDownModel, config: TrainingConfig, records: Sequence[Any], folder: Path,
          resume_from: Path | None = None, evaluate: Callable[[], Mapping[str, float]] | None = None,
          eval_steps: int | None = None, in_order: bool = False, name: str | None = None) -> list[dict[str, Any]]:
    """Train ``model`` and save it as ``folder/final``; return the trainer's log, one entry for each logged step.

    On Ctrl-C a run of one process finishes its step, saves a checkpoint to resume from, and ends. ``name`` is that of
    the records, a file's or other, for the checkpoint's card.

    Raises:
        ValueError: if the settings do not fit the number of processes.
    """
    model.progress = model.progress.on(name)
    trainer = ScaleDownTrainer(model, config, records, folder, evaluate, eval_steps, in_order)
    interrupt = Interrupt()
    trainer.add_callback(interrupt)
    try:
        # Several processes would not all notice it in the same step; there Ctrl-C ends the run at once, as usual.
        with interrupt if trainer.args.world_size == 1 else nullcontext():
            if resume_from and trainer.load_if_finished(resume_from):
                processes.say(f"no step is left after {resume_from}")
            else:
                trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        # A run that was killed in its last check goes on from the checkpoint before it.
        if evaluate is not None and eval_steps and not interrupt.is_asked and not _is_checked(trainer):
            trainer.evaluate()
    finally:
        trainer.close_logs()
    if interrupt.is_asked:
        print(f"saved at step {trainer.state.global_step}: --resume goes on from there")
        raise KeyboardInterrupt

    # All processes take part in gathering the weights; one of them saves.
    trainer.note_progress()
    with sharding.whole_weights(trainer.model):
        if trainer.is_world_process_zero():
            model.save_pretrained(folder / FINAL)
        processes.wait()
    sharding.gather(trainer.model)
    return trainer.state.log_history


def last_check(log: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the losses of the latest held-out check in a trainer's log, by their names in :class:`Losses`."""
    found = {}
    for entry in log:
        checked = {name: entry[HELD_OUT + name] for name in Losses._fields if HELD_OUT + name in entry}
        found = checked or found
    return found


def mean_loss(model: ScaleDownModel, records: Sequence[Any], config: TrainingConfig,
              batch_size: int = 8) -> Callable[[], dict[str, float]]:
    """Return a function that measures the mean losses on ``records``; the trainer calls it as it goes.

    Each is the mean over all answer tokens, all documents with a teacher's score, or all tokens to read out; a loss
    with nothing to measure is left out. Several processes share the records. If the batches of the training have one
    shape, all of these have one, too.
    """
    # All processes must call the same parts of a sharded model, or their next steps would not match.
    rank, count = (0, 1) if config.shard else (processes.rank(), processes.count())
    shapes = None
    if pads_to_max(config, model):
        shapes = shapes_of(records, model.processor, config.answer_tokens)

    def measure() -> dict[str, float]:
        was_training = model.training
        model.eval()

        # Sums of losses, and the numbers of tokens or documents in them, in the order of Losses.
        sums, numbers = torch.zeros(2, len(Losses._fields), dtype=torch.float64)
        with torch.no_grad():
            # Process r of n takes batches r, r + n, r + 2n, ...
            starts = range(rank * batch_size, len(records), count * batch_size)
            for start in Bar(starts, "held-out check", unit="batch", leave=False, disable=processes.rank() > 0):
                batch = model.processor.collate(records[start:start + batch_size], config.answer_tokens,
                                                with_readout=config.readout_loss_weight > 0, shapes=shapes,
                                                batch_size=batch_size)
                number = counts(batch)                                                              # (3,)
                # The model gives means over a batch.
                sums += number * torch.tensor([0.0 if part is None else part.item() for part in model(batch)])
                numbers += number
        model.train(was_training)

        # In float32: not all devices have float64.
        totals, divisors = processes.summed(torch.stack([sums, numbers]).to(model.device, torch.float32)).tolist()
        return {name: total / divisor for name, total, divisor
                in zip(Losses._fields, totals, divisors, strict=True) if divisor}

    return measure


def _is_checked(trainer: ScaleDownTrainer) -> bool:
    """Return whether the log has a held-out check of the weights as they are now."""
    for entry in trainer.state.log_history:
        if entry["step"] == trainer.state.global_step and any(name.startswith(HELD_OUT) for name in entry):
            return True
    return False


def _drop_thresholds(model: ScaleDownModel, name: str) -> None:
    """Remove the thresholds of the checkpoint ``name``, if it has any."""
    for threshold, judged in THRESHOLDS.items():
        value = getattr(model.config, threshold)
        if value is not None:
            processes.say(f"the {threshold} of {name}, {value:.3f}, is left out: training changes {judged}; find it "
                          "again with python -m scaledown.evaluation.calibration")
    model.config = model.processor.config = dataclasses.replace(model.config, **dict.fromkeys(THRESHOLDS))


def _check_same_model(asked: ScaleDownConfig, config: ScaleDownConfig, name: str) -> None:
    """Check that the settings asked for are those of the checkpoint ``name``; those left open (None) fit any."""
    differing = []
    for field in sorted({field.name for field in dataclasses.fields(config)} - FREE_BESIDE_A_CHECKPOINT):
        wanted, found = getattr(asked, field), getattr(config, field)
        if wanted is not None and not _is_same(wanted, found):
            differing.append(f"--{field} is {wanted!r} but {found!r} there")
    if differing:
        raise ValueError(f"--init_compressor {name} is another model: {'; '.join(differing)}")


def _is_same(wanted: Any, found: Any) -> bool:
    """Return whether two values of a setting are equal, or are two names of one folder."""
    if not (isinstance(wanted, str) and isinstance(found, str)):
        return wanted == found
    return os.path.realpath(os.path.expanduser(wanted)) == os.path.realpath(found)
