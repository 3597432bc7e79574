"""The arithmetic of a training's steps, and the warnings before it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from transformers import TrainingArguments

from scaledown.config import TrainingConfig
from scaledown.training.steps import schedule
from scaledown.training.steps.schedule import FEW_STEPS, num_steps, schedule_warnings


@pytest.mark.parametrize(("num_records", "settings", "steps"), [
    (500, {}, 4), (512, {}, 4), (513, {}, 5), (500, {"batch_size": 4}, 125), (500, {"num_epochs": 3}, 12),
    (100, {"batch_size": 3, "num_epochs": 1.5}, 51), (1, {"num_epochs": 0.1}, 1), (500, {"max_steps": 7}, 7)])
def test_steps_are_counted_as_the_trainer_counts_them(num_records, settings, steps):
    assert num_steps(num_records, TrainingConfig(**settings)) == steps


def test_four_steps_are_told_with_their_arithmetic_and_what_would_help():
    warning, = schedule_warnings(500, TrainingConfig())
    assert warning == ("only 4 optimizer steps: fewer than 100 hardly change a model (500 records, 1 epoch, "
                       "--batch_size 128); --batch_size 5, --num_epochs 25 or 12,673 records make it 100 or more")


@pytest.mark.parametrize(("num_records", "settings"), [
    (500, {}), (40, {"batch_size": 4}), (7, {"batch_size": 8, "gradient_accumulation_steps": 4, "num_epochs": 2.5}),
    (333, {"batch_size": 6, "gradient_accumulation_steps": 2, "num_epochs": 1.1}), (99, {"batch_size": 1})])
def test_what_is_offered_is_enough_and_no_more_than_needed(num_records, settings):
    config = TrainingConfig(**settings)
    message = schedule_warnings(num_records, config)[0]
    # Without the commas in numbers; the records come last.
    offered = message.replace(",", "").partition("; ")[2].split()
    epochs, records = int(offered[offered.index("--num_epochs") + 1]), int(offered[offered.index("records") - 1])

    with_epochs = TrainingConfig(**settings | {"num_epochs": epochs})
    assert num_steps(num_records, with_epochs) >= FEW_STEPS
    assert num_steps(records, config) >= FEW_STEPS > num_steps(records - 1, config)
    # A batch that the training refuses is not offered.
    if "--batch_size" in offered:
        size = int(offered[offered.index("--batch_size") + 1])
        assert num_steps(num_records, TrainingConfig(**settings | {"batch_size": size})) >= FEW_STEPS
    else:
        smallest = TrainingConfig(**settings | {"batch_size": config.gradient_accumulation_steps})
        assert num_steps(num_records, smallest) < FEW_STEPS


@pytest.mark.parametrize("num_records", [500, 1_000_000])
def test_a_large_batch_is_not_counted_down_one_by_one(num_records, monkeypatch):
    sizes = []

    def ceil(number):
        sizes.append(number)
        return math.ceil(number)

    monkeypatch.setattr(schedule, "math", SimpleNamespace(ceil=ceil, floor=math.floor))
    warning = schedule_warnings(num_records, TrainingConfig(batch_size=200_000))[0]
    assert f"--batch_size {(num_records - 1) // 99}, " in warning and len(sizes) < 100


def test_the_flag_that_cuts_a_run_short_is_named():
    assert "; a larger --max_steps than 12 helps" in schedule_warnings(9999, TrainingConfig(max_steps=12))[0]
    assert "--pretrain_steps than 12" in schedule_warnings(9999, TrainingConfig(max_steps=12), None,
                                                           "--pretrain_steps")[0]


def test_a_long_training_with_checks_has_no_warning():
    assert schedule_warnings(14800, TrainingConfig(batch_size=8), eval_steps=100) == []
    assert schedule_warnings(12673, TrainingConfig(compressor_warmup_steps=99, readout_loss_weight=1.0,
                                                   readout_steps=99), eval_steps=99) == []


def test_a_held_out_check_that_comes_at_the_end_alone_is_told_with_a_value_that_makes_more():
    config = TrainingConfig(batch_size=4)
    warning, = schedule_warnings(500, config, eval_steps=125)
    assert ("--eval_steps 125 is not reached before the last step, 125: the only held-out check comes at the end"
            in warning)
    assert "--eval_steps 24 makes more" in warning
    assert schedule_warnings(500, config, eval_steps=124) == []
    # One step has no step before it.
    assert "makes more" not in schedule_warnings(1, TrainingConfig(max_steps=1), eval_steps=500)[-1]


@pytest.mark.parametrize(("settings", "flag"), [
    ({"max_steps": 150, "compressor_warmup_steps": 150}, "--compressor_warmup_steps 150 lasts 150 optimizer steps"),
    ({"max_steps": 150, "readout_steps": 200, "readout_loss_weight": 1.0}, "--readout_steps 200 lasts 200"),
    ({"max_steps": 150, "warmup_ratio": 0.999}, "--warmup_ratio 0.999 lasts 150")])
def test_a_warm_up_as_long_as_the_run_is_told(settings, flag):
    warning, = schedule_warnings(10, TrainingConfig(**settings))
    assert warning.startswith(flag)


@pytest.mark.parametrize("steps", [1, 4, 125])
def test_the_warm_up_is_as_long_as_the_trainers(steps, tmp_path):
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, warmup_steps=0.5)
    is_told = any("warmup" in warning for warning in schedule_warnings(1, TrainingConfig(max_steps=steps,
                                                                                         warmup_ratio=0.5)))
    assert is_told == (arguments.get_warmup_steps(steps) >= steps)
