"""The settings of transformers' Trainer for a run of ours, on one device in each process."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from transformers import TrainingArguments

from scaledown import processes
from scaledown.config import TrainingConfig
from scaledown.models.model import ScaleDownModel
from scaledown.training import devices

GPU_WORKERS = 2
"""Processes that tokenise ahead of a GPU. On a CPU they would take its cores, and could save less than 1% of a step: 8
questions of the demo take 9 ms to prepare, and a second of one core to train on."""
AUTOCAST_NAMES = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""Number formats of the arithmetic, as accelerate's files name them."""


class OneDeviceArguments(TrainingArguments):
    """The Trainer's settings for a process with one device; its own share each batch out among all GPUs they see."""

    @property
    def n_gpu(self) -> int:
        """The number of GPUs that a step runs on: one, or none."""
        return min(1, super().n_gpu)


def training_arguments(config: TrainingConfig, model: ScaleDownModel, output_dir: Path | str,
                       may_leave_out: bool = True) -> TrainingArguments:
    """Return the Trainer's settings for ``config``, on the model's device.

    Args:
        may_leave_out: whether a step may have trained weights without a gradient.

    Raises:
        ValueError: if the global batch cannot be divided evenly among processes and accumulation steps, or the Trainer
            cannot train on that device, or not in the model's number format.
    """
    devices.check_trains_in(model.dtype, model.device)
    num_micro_batches = processes.count() * config.gradient_accumulation_steps
    if config.batch_size % num_micro_batches:
        raise ValueError(f"--batch_size {config.batch_size} cannot be shared among {processes.count()} processes with "
                         f"--gradient_accumulation_steps {config.gradient_accumulation_steps}: make it a multiple "
                         f"of {num_micro_batches}")

    is_on_gpu = model.device.type == "cuda"
    workers = config.num_workers
    if workers is None:
        workers = GPU_WORKERS if is_on_gpu else 0

    # Several processes have found their devices together (processes.join).
    is_alone = processes.count() == 1
    # A process gets its share of a step at once and splits it into micro-batches itself (_step_in_parts), so the
    # Trainer accumulates nothing.
    with devices.found_by_accelerate(model.device) if is_alone else nullcontext():
        arguments = OneDeviceArguments(
            dataloader_num_workers=workers, dataloader_persistent_workers=workers > 0,
            output_dir=str(output_dir), use_cpu=model.device.type == "cpu",
            per_device_train_batch_size=config.batch_size // processes.count(), num_train_epochs=config.num_epochs,
            max_steps=config.max_steps or -1, learning_rate=config.learning_rate_generator,
            lr_scheduler_type="linear", warmup_steps=config.warmup_ratio, max_grad_norm=config.max_grad_norm,
            logging_steps=config.logging_steps, logging_nan_inf_filter=False, save_steps=config.save_steps,
            seed=config.seed, report_to=config.report_to, disable_tqdm=True, remove_unused_columns=False,
            dataloader_pin_memory=is_on_gpu, fp16=model.dtype == torch.float16,
            ddp_find_unused_parameters=may_leave_out)

    # A launch file may name another one, in which the Trainer would compute the whole step.
    if arguments.mixed_precision not in ("no", AUTOCAST_NAMES[model.dtype]):
        processes.warn(f"mixed_precision {arguments.mixed_precision} of accelerate's file is left out: --dtype "
                       f"decides, and here it is {str(model.dtype).removeprefix('torch.')}")
    arguments.mixed_precision = "fp16" if arguments.fp16 else "no"

    # The Trainer moves a model that is elsewhere.
    devices.check_same(arguments.device, model=model.device)
    return arguments
