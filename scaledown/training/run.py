"""The steps that every training script shares: a seeded model on its device, trained into a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from scaledown import processes
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.models.engine.fixed_shapes import Shapes
from scaledown.models.losses import Losses, counts
from scaledown.models.model import ScaleDownModel
from scaledown.training import sharding
from scaledown.training.batches import pads_to_max
from scaledown.training.callbacks import Interrupt
from scaledown.training.devices import keep_freed_memory, resolve_device, resolve_dtype
from scaledown.training.trainer import ScaleDownTrainer

FINAL = "final"


def build_model(config: ScaleDownConfig, device: str | torch.device, seed: int, init_compressor: str | None = None,
                dtype: str = "auto") -> ScaleDownModel:
    """Build a model to train on ``--device``: a new one, the same for the same seed, or the one of a checkpoint.

    It has no ``keep_threshold``, since that is calibrated on scores, which training changes.

    Args:
        config: of the model.
        device: a device, or a value of ``--device``.
        seed: of every new weight.
        init_compressor: a checkpoint (a folder, a Hub id, or "embedded") to start from. It gets a new reranking head if
            ``config`` asks for one and it has none. If ``config`` names numbers of memory tokens to train for, they
            replace its own.
        dtype: a value of ``--dtype``.

    Raises:
        ValueError: if there is no such device or model, or the checkpoint is of another model.
    """
    place = resolve_device(device) if isinstance(device, str) else device
    set_seed(seed)
    if place.type == "cpu":
        keep_freed_memory()

    if init_compressor is None:
        config = dataclasses.replace(config, keep_threshold=None)
        return ScaleDownModel(config, device=place, dtype=resolve_dtype(dtype, place))

    # The checkpoint's config holds, but for what a training may change.
    model = ScaleDownModel.from_pretrained(init_compressor, device=place, dtype=resolve_dtype(dtype, place))
    if config.enable_reranking and not model.config.enable_reranking:
        model.enable_reranking()
    _check_same_model(config, model.config, init_compressor)
    _drop_threshold(model, init_compressor)
    if config.train_memory_tokens is not None:
        model.train_for(config.train_memory_tokens)
    return model


def train(model: ScaleDownModel, config: TrainingConfig, records: Sequence[Any], folder: Path,
          resume_from: Path | None = None, evaluate: Callable[[], Mapping[str, float]] | None = None,
          eval_steps: int | None = None, in_order: bool = False) -> list[dict[str, Any]]:
    """Train ``model`` and save it as ``folder/final``; return the trainer's log, with one entry per logged step.

    Ctrl-C ends a run of one process after the current step, with a checkpoint to resume from.

    Raises:
        ValueError: if the settings do not fit the number of processes.
    """
    trainer = ScaleDownTrainer(model, config, records, folder, evaluate, eval_steps, in_order)
    interrupt = Interrupt()
    trainer.add_callback(interrupt)
    try:
        # Several processes would not all see it in the same step, so there Ctrl-C ends the run at once.
        with interrupt if trainer.args.world_size == 1 else nullcontext():
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    finally:
        trainer.close_logs()
    if interrupt.is_asked:
        print(f"saved at step {trainer.state.global_step}: --resume goes on from there")
        raise KeyboardInterrupt

    # Shards are gathered by all processes, and written by one.
    sharding.gather(trainer.model)
    trainer.note_progress()
    if trainer.is_world_process_zero():
        model.save_pretrained(folder / FINAL)
    processes.wait()
    return trainer.state.log_history


def mean_loss(model: ScaleDownModel, records: Sequence[Any], config: TrainingConfig,
              batch_size: int = 8) -> Callable[[], dict[str, float]]:
    """Return a function that measures the mean losses on ``records``, for the trainer to call.

    The means are over all tokens of answers, all documents with a teacher's score, and all tokens to read out; a loss
    without any is left out. Several processes share the records. Batches have one shape if those of the training do.
    """
    # All processes must call the same layers of a sharded model, so each measures all records.
    rank, count = (0, 1) if config.shard else (processes.rank(), processes.count())
    shapes = None
    if pads_to_max(config, model):
        shapes = Shapes.of_records(records, model.processor, config.answer_tokens)

    def measure() -> dict[str, float]:
        was_training = model.training
        model.eval()

        # Each batch counts by its number of tokens or documents, so that the result does not depend on batches.
        sums, numbers = torch.zeros(2, len(Losses._fields), dtype=torch.float64)
        with torch.no_grad():
            for start in range(rank * batch_size, len(records), count * batch_size):
                batch = model.processor.collate(records[start:start + batch_size], config.answer_tokens,
                                                with_readout=config.readout_loss_weight > 0, shapes=shapes,
                                                batch_size=batch_size)
                number = counts(batch)
                sums += number * torch.tensor([0.0 if part is None else part.item() for part in model(batch)])
                numbers += number

        model.train(was_training)
        totals, divisors = processes.summed(torch.stack([sums, numbers]).to(model.device, torch.float32)).tolist()
        return {name: total / divisor for name, total, divisor
                in zip(Losses._fields, totals, divisors, strict=True) if divisor}

    return measure


def _drop_threshold(model: ScaleDownModel, name: str) -> None:
    """Leave out the threshold of the checkpoint ``name``, if it has one."""
    if model.config.keep_threshold is None:
        return
    processes.say(f"the keep_threshold of {name}, {model.config.keep_threshold:.3f}, is left out: training changes the "
                  "scores; find it again with python -m scaledown.evaluation.calibration")
    model.config = model.processor.config = dataclasses.replace(model.config, keep_threshold=None)


def _check_same_model(wanted: ScaleDownConfig, found: ScaleDownConfig, name: str) -> None:
    """Refuse a checkpoint that differs from what was asked for; None asks for nothing."""
    differing = [f"--{field} is {getattr(wanted, field)!r} but {getattr(found, field)!r} there"
                 for field in ("generator_model", "compressor_type", "compressor_model", "num_layers",
                               "num_memory_tokens", "compression_rate", "input_order", "load_in_4bit", "load_in_8bit")
                 if getattr(wanted, field) not in (None, getattr(found, field))]
    if differing:
        raise ValueError(f"--init_compressor {name} is another model: {'; '.join(differing)}")
