"""The number of steps of a training, and what is wrong with it: told before the training, not found out after it."""

from __future__ import annotations

import math

from scaledown.config import TrainingConfig

FEW_STEPS = 100
"""A training of fewer optimizer steps hardly changes a model."""
CHECKS = 5
"""Held-out checks of a run whose ``--eval_steps`` is too large, with the value that the warning offers."""


def num_steps(num_records: int, config: TrainingConfig) -> int:
    """Return the number of optimizer steps, as transformers' Trainer counts them: the last batch may be small."""
    if config.max_steps is not None:
        return config.max_steps
    steps_an_epoch = math.ceil(num_records / config.batch_size)
    return math.ceil(config.num_epochs * steps_an_epoch)


def schedule_warnings(num_records: int, config: TrainingConfig, eval_steps: int | None = None,
                      steps_flag: str = "--max_steps") -> list[str]:
    """Return a warning for each part of the schedule that makes little sense, with numbers and what would help.

    Args:
        num_records: to train on.
        config: the settings of the training.
        eval_steps: steps between two held-out checks; None if there are none.
        steps_flag: the flag that set ``config.max_steps``.
    """
    steps = num_steps(num_records, config)
    warnings = []
    if steps < FEW_STEPS:
        warnings.append(_few_steps(steps, num_records, config, steps_flag))

    # The phases at the start of a training that should be over long before its end, and what is left undone.
    phases = (("--warmup_ratio", config.warmup_ratio, math.ceil(config.warmup_ratio * steps),
               "the learning rates never reach their peaks"),
              ("--compressor_warmup_steps", config.compressor_warmup_steps, config.compressor_warmup_steps,
               "the generator is not trained at all"),
              ("--readout_steps", config.readout_steps, config.readout_steps,
               "no step trains the generator to answer"))
    for flag, value, length, consequence in phases:
        if length >= steps:
            warnings.append(f"{flag} {value} lasts {_steps(length)}, and the training has {steps:,}: {consequence}. "
                            "A smaller value or a longer training helps")

    # A check always follows the last step; those before it show the way there.
    if eval_steps is not None and eval_steps >= steps:
        message = (f"--eval_steps {eval_steps} is not reached before the last step, {steps}: the only held-out check "
                   "comes at the end")
        if steps > 1:
            # The largest value that is reached CHECKS times, or that is reached at all.
            message += f". --eval_steps {max(1, (steps - 1) // CHECKS)} makes more"
        warnings.append(message)
    return warnings


def _few_steps(steps: int, num_records: int, config: TrainingConfig, steps_flag: str) -> str:
    """Return the warning of a short training."""
    lasts = f"only {_steps(steps)}: fewer than {FEW_STEPS} hardly change a model"
    if config.max_steps is not None:
        return f"{lasts}; a larger {steps_flag} than {steps} helps"

    # The arithmetic behind the number of steps, which a user can follow.
    epochs = "1 epoch" if config.num_epochs == 1 else f"{config.num_epochs:g} epochs"
    made_of = f"{num_records:,} records, {epochs}, --batch_size {config.batch_size}"

    ways = []
    if size := _batch_size_for(FEW_STEPS, num_records, config):
        ways.append(f"--batch_size {size}")
    steps_an_epoch = math.ceil(num_records / config.batch_size)
    # More of the epochs that are asked for, never fewer: a whole number of them.
    ways.append(f"--num_epochs {math.ceil(FEW_STEPS / steps_an_epoch)}")
    needed = _records_for(FEW_STEPS, config)
    return f"{lasts} ({made_of}); {', '.join(ways)} or {needed:,} records make it {FEW_STEPS} or more"


def _batch_size_for(steps: int, num_records: int, config: TrainingConfig) -> int | None:
    """Return the largest batch size with at least ``steps`` steps, a multiple of the micro-batches; None if none is."""
    # All steps of an epoch but the last are full, and the last has one record or more.
    others = max(1, _steps_an_epoch_for(steps, config) - 1)
    size = min(config.batch_size, (num_records - 1) // others)
    return size - size % config.gradient_accumulation_steps or None


def _records_for(steps: int, config: TrainingConfig) -> int:
    """Return the number of records from which on there are at least ``steps`` steps."""
    return (_steps_an_epoch_for(steps, config) - 1) * config.batch_size + 1


def _steps_an_epoch_for(steps: int, config: TrainingConfig) -> int:
    """Return the number of steps of an epoch from which on there are at least ``steps`` steps."""
    # Counted up from a little too few, since a product such as 1.1 * 90 is not exact.
    steps_an_epoch = max(1, math.floor((steps - 1) / config.num_epochs) - 1)
    while math.ceil(config.num_epochs * steps_an_epoch) < steps:
        steps_an_epoch += 1
    return steps_an_epoch


def _steps(number: int) -> str:
    return f"{number:,} optimizer step{'' if number == 1 else 's'}"
