"""The generator's base in 4 or 8 bits: adapter and compressor learn, and the checkpoint answers as the model did."""

from __future__ import annotations

import importlib.util

import pytest
import tiny
import torch
from torch import nn

import train
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.loading import pretrained
from scaledown.models.model import ScaleDownModel
from scaledown.training import run

SETTINGS = TrainingConfig(batch_size=4, max_steps=2, logging_steps=1, warmup_ratio=0.0, learning_rate_generator=1e-3,
                          learning_rate_compressor=1e-3)
NEEDS_BITSANDBYTES = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None,
                                        reason="bitsandbytes, which is optional, is not installed")


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """Of sizes that bitsandbytes computes with 4 bits on every CPU: multiples of 32 rows and of 64 columns."""
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"), layers=3, hidden_size=64, intermediate_size=64,
                                 head_dim=16)


def new_model(generator, **settings):
    return run.build_model(ScaleDownConfig(generator_model=generator, num_memory_tokens=2, lora_dropout=0.0,
                                           **settings), "cpu", seed=1)


@NEEDS_BITSANDBYTES
@pytest.mark.parametrize(("flag", "dtype", "kept_bytes"), [("load_in_4bit", torch.uint8, 1 / 2),
                                                           ("load_in_8bit", torch.int8, 1)])
def test_a_quantised_generator_trains_saves_and_answers(generator, tmp_path, flag, dtype, kept_bytes):
    records = list(synthetic_records(8, seed=5))
    plain, model = new_model(generator), new_model(generator, **{flag: True})
    weight = model.generator.base.base_model.layers[0].mlp.up_proj.base_layer.weight
    num_weights = plain.generator.base.base_model.layers[0].mlp.up_proj.base_layer.weight.numel()
    assert weight.dtype == dtype and weight.numel() * weight.element_size() == num_weights * kept_bytes
    layer, own = model.compressor.body.layers[0].mlp.up_proj, plain.compressor.body.layers[0].mlp.up_proj
    assert type(layer) is nn.Linear and layer.weight.equal(own.weight), "what is trained is a whole copy"
    before = {name: each.clone() for name, each in model.named_parameters() if each.requires_grad}

    def losses_of(trained, name):
        log = run.train(trained, SETTINGS, records, tmp_path / name)
        return [row["loss"] for row in log if "loss" in row]

    losses, wanted = losses_of(model, "run"), losses_of(plain, "plain")
    assert losses == pytest.approx(wanted, rel=0.1) and losses != wanted
    moved = {name for name, each in model.named_parameters() if each.requires_grad and not each.equal(before[name])}
    assert any("lora" in name for name in moved) and any(name.startswith("compressor") for name in moved)

    asked = ([records[0].query], [list(records[0].documents)])
    loaded = ScaleDownModel.from_pretrained(tmp_path / "run" / run.FINAL)
    assert loaded.config == model.config
    assert loaded.answer(*asked, max_new_tokens=8) == model.answer(*asked, max_new_tokens=8)
    merged = model.merge()
    assert {type(part) for part in merged.modules() if isinstance(part, nn.Linear)} == {nn.Linear}


def test_what_cannot_be_quantised_is_refused(generator, monkeypatch):
    with pytest.raises(ValueError, match="--load_in_4bit and --load_in_8bit contradict"):
        ScaleDownConfig(load_in_4bit=True, load_in_8bit=True)
    config = ScaleDownConfig(generator_model=generator, load_in_8bit=True)
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ValueError, match="--load_in_8bit works on cpu and cuda, not on mps"):
        pretrained.quantisation(config, torch.float32, torch.device("mps"))
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--load_in_8bit needs bitsandbytes: pip install bitsandbytes"):
        new_model(generator, load_in_8bit=True)


def test_a_start_from_another_precision_is_refused(generator, tmp_path, capsys):
    new_model(generator).save_pretrained(tmp_path / "whole")
    (tmp_path / "data.json").write_text('[{"query": "q", "documents": ["d"], "answer": "a"}]')
    assert train.main(["--train_data", str(tmp_path / "data.json"), "--generator_model", generator, "--device", "cpu",
                       "--num_memory_tokens", "2", "--load_in_4bit", "--init_compressor", str(tmp_path / "whole"),
                       "--output_dir", str(tmp_path / "out")]) == 2
    assert "--load_in_4bit is True but False there" in capsys.readouterr().err
