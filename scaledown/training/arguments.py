"""What a run's settings mean to transformers' Trainer, and which of them go together on a device."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainingArguments

from scaledown import processes
from scaledown.config import TrainingConfig
from scaledown.models.model import ScaleDownModel
from scaledown.training.devices import check_compiler, wants_one_shape

GPU_WORKERS = 2
"""Processes that tokenise ahead of a GPU; on a CPU they would only take its cores."""


def pads_to_max(config: TrainingConfig, model: ScaleDownModel) -> bool:
    """Whether all batches get one shape: where ``--pad_to_max`` says so, else where the device or a compiler needs it.

    Raises:
        ValueError: where they cannot have one, or cannot be compiled.
    """
    needing = next((flag for flag in ("compile", "shard") if getattr(config, flag)), None)
    wants = needing is not None or wants_one_shape(model.device)
    if config.shard and (config.compile or model.config.load_in_4bit or model.config.load_in_8bit):
        raise ValueError("--shard goes neither with --compile nor with --load_in_4bit or --load_in_8bit")
    if not (wants if config.pad_to_max is None else config.pad_to_max):
        if needing is not None:
            raise ValueError(f"--{needing} and --no-pad_to_max contradict each other: batches must have one shape")
        return False
    if config.compile:
        check_compiler(model.device)
    if len(choices := model.config.memory_token_choices) > 1:
        raise ValueError(f"--pad_to_max: --train_memory_tokens {' '.join(map(str, choices))} would give batches of "
                         f"{len(choices)} shapes; train one number of memory tokens")
    return True


def training_arguments(config: TrainingConfig, model: ScaleDownModel, output_dir: Path | str) -> TrainingArguments:
    """The Trainer's own settings for ``config``.

    Raises:
        ValueError: where the global batch cannot be shared evenly among processes and accumulation steps.
    """
    parts = processes.count() * config.gradient_accumulation_steps
    if config.batch_size % parts:
        raise ValueError(f"--batch_size {config.batch_size} cannot be shared among {processes.count()} processes with "
                         f"--gradient_accumulation_steps {config.gradient_accumulation_steps}: make it a multiple "
                         f"of {parts}")
    workers = config.num_workers if config.num_workers is not None else GPU_WORKERS * (model.device.type == "cuda")
    return TrainingArguments(
        dataloader_num_workers=workers, dataloader_persistent_workers=workers > 0,
        output_dir=str(output_dir), use_cpu=model.device.type == "cpu",
        per_device_train_batch_size=config.batch_size // processes.count(), num_train_epochs=config.num_epochs,
        max_steps=config.max_steps or -1, learning_rate=config.learning_rate_generator,
        lr_scheduler_type="linear", warmup_steps=config.warmup_ratio, max_grad_norm=config.max_grad_norm,
        logging_steps=config.logging_steps, logging_nan_inf_filter=False, save_steps=config.save_steps,
        seed=config.seed, report_to=["tensorboard"], remove_unused_columns=False,
        dataloader_pin_memory=model.device.type == "cuda", ddp_find_unused_parameters=True)
