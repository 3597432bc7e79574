"""--compile: the step as one graph, forward and backward, with the losses of the step that is not compiled."""

from __future__ import annotations

import os

import pytest
import tiny
import torch

import train
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.training import devices, run

LONG = os.environ.get("RELIABILITY") == "full"
COMPILER = "inductor" if LONG else "aot_eager"
"""What CPUs and CUDA really use takes a minute; the short form has its graphs of both passes, run as they are."""


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"), layers=1)


def test_a_compiled_run_has_the_losses_of_one_that_is_not(generator, tmp_path, monkeypatch):
    monkeypatch.setitem(devices._COMPILERS, "cpu", COMPILER)
    torch._dynamo.reset()
    logs, others = [], torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for is_compiled in (False, True):
        config = ScaleDownConfig(generator_model=generator, num_memory_tokens=2, lora_dropout=0.0,
                                 enable_reranking=True)
        settings = TrainingConfig(batch_size=4, max_steps=3, logging_steps=1, warmup_ratio=0.0, compile=is_compiled,
                                  learning_rate_generator=1e-3, learning_rate_compressor=1e-3)
        log = run.train(run.build_model(config, "cpu", seed=1), settings, list(synthetic_records(10, seed=5)),
                        tmp_path / str(is_compiled))
        logs.append([[row["answer_loss"], row["reranking_loss"]] for row in log if "answer_loss" in row])
    assert len(logs[0]) == 3
    for row, other in zip(*logs, strict=True):
        assert other == pytest.approx(row, rel=1e-5)
    # torch 2.11 compiles again at the second step; from 2.13 on the first graph serves all steps.
    num_graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"] - others
    assert num_graphs == 1 or (num_graphs == 2 and torch.__version__ < "2.13")


@pytest.mark.parametrize(("flags", "has_compiler", "message"), [
    (["--num_memory_tokens", "2", "--train_memory_tokens", "1", "2"], True,
     "--compile needs batches of one shape: --train_memory_tokens 1 2 would give batches of 2 shapes"),
    ([], False, "--compile on a CPU needs a C++ compiler")])
def test_what_cannot_be_compiled_is_refused_at_once(generator, tmp_path, monkeypatch, capsys, flags, has_compiler,
                                                    message):
    monkeypatch.setattr(devices.shutil, "which", lambda name: "g++" if has_compiler else None)
    write_records(tmp_path / "data.json", list(synthetic_records(2, seed=5)))
    assert train.main(["--train_data", str(tmp_path / "data.json"), "--generator_model", generator, "--device", "cpu",
                       "--compile", *flags, "--output_dir", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
