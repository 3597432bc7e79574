"""Ctrl-C in the middle of a step: the step ends, a checkpoint is saved, and going on from it changes nothing."""

from __future__ import annotations

import signal
import threading

import pytest
import tiny
import torch
from safetensors.torch import load_file

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.model import ScaleDownModel
from scaledown.training import run
from scaledown.training.steps.callbacks import Interrupt

SETTINGS = {"batch_size": 2, "max_steps": 6, "logging_steps": 1, "save_steps": 5, "learning_rate_generator": 1e-3}


@pytest.fixture(autouse=True)
def an_interrupt_that_is_heard():
    """A shell that starts the tests in the background lets Ctrl-C be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"))


def train(generator, folder, optimizer, resume_from=None):
    """Train with dropout, so that the random state must be the right one too."""
    model = run.build_model(ScaleDownConfig(generator_model=generator, num_memory_tokens=2, lora_dropout=0.3), "cpu",
                            seed=1)
    run.train(model, TrainingConfig(**SETTINGS, optimizer=optimizer), list(synthetic_records(8, seed=5)), folder,
              resume_from)


def interrupt_in_step(monkeypatch, step, times=1):
    """Press Ctrl-C after the forward pass of a step, when dropout has drawn and no gradient is there."""
    forward, calls = ScaleDownModel.forward, []

    def pressed(self, batch):
        losses = forward(self, batch)
        calls.append(1)
        for _ in range(times if len(calls) == step else 0):
            signal.raise_signal(signal.SIGINT)
        return losses

    monkeypatch.setattr(ScaleDownModel, "forward", pressed)


@pytest.mark.parametrize("optimizer", tiny.OF_TORCH)
def test_an_interrupted_run_ends_as_an_undisturbed_one(optimizer, generator, tmp_path, monkeypatch, capsys):
    train(generator, tmp_path / "whole", optimizer)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_in_step(patch, 3)
        train(generator, tmp_path / "stopped", optimizer)
    assert "saved at step 3: --resume goes on from there" in capsys.readouterr().out
    assert not (tmp_path / "stopped" / "final").exists()
    train(generator, tmp_path / "stopped", optimizer, tmp_path / "stopped" / "checkpoint-3")
    for name in ("compressor", "generator"):
        one, other = (load_file(tmp_path / each / "final" / f"{name}.safetensors") for each in ("whole", "stopped"))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_second_interrupt_ends_the_run_at_once(generator, tmp_path, monkeypatch):
    interrupt_in_step(monkeypatch, 2, times=2)
    with pytest.raises(KeyboardInterrupt):
        train(generator, tmp_path, "adamw")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not list(tmp_path.glob("checkpoint-*"))


def test_in_another_thread_signals_are_left_alone():
    before, entered = signal.getsignal(signal.SIGINT), []

    def enter():
        with Interrupt() as interrupt:
            entered.append((interrupt.is_asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [(False, before)]


def test_an_ignored_interrupt_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert not interrupt.is_asked and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
