"""--shard with what it does not go with. That shared models train as whole ones is held in test_processes.py."""

from __future__ import annotations

import types

import pytest
import tiny
import torch

import train
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.training import batches, run


@pytest.mark.parametrize(("flags", "message"), [
    (["--compile"], "--shard does not go with --compile; of the presets"),
    (["--preset", "gpu_24gb"], "with --load_in_4bit, nor with --compressor_lora_rank 16 (compressor and generator may"),
    (["--train_memory_tokens", "1", "2"], "1 2 would give batches of 2 shapes"),
    (["--pretrain_steps", "1"], "--shard goes with one stage")])
def test_what_it_does_not_go_with_is_refused_at_once(tmp_path, capsys, monkeypatch, flags, message):
    # A checkpoint may have other numbers of memory tokens, so these are known once the model is loaded.
    if "--train_memory_tokens" not in flags:
        monkeypatch.setattr(run, "build_model", lambda *_: pytest.fail("loaded"))
    write_records(tmp_path / "data.json", list(synthetic_records(2, seed=5)))
    assert train.main(["--train_data", str(tmp_path / "data.json"), "--device", "cpu", "--num_memory_tokens", "2",
                       "--generator_model", tiny.generator_folder(tmp_path / "generator", layers=1), "--shard", *flags,
                       "--output_dir", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_optimizer_in_8_bits_cannot_step_sharded_weights():
    model = types.SimpleNamespace(config=ScaleDownConfig(), dtype=torch.float32)
    with pytest.raises(ValueError, match="--shard does not go with --optimizer adamw_8bit"):
        batches.pads_to_max(TrainingConfig(shard=True, optimizer="adamw_8bit"), model)


def test_scaled_gradients_are_not_sharded():
    model = types.SimpleNamespace(config=ScaleDownConfig(), dtype=torch.float16)
    with pytest.raises(ValueError, match="--shard does not go with --dtype float16"):
        batches.pads_to_max(TrainingConfig(shard=True), model)
