"""DDP looks for weights without a gradient if there may be some, and only then."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch
from torch import nn

from scaledown.config import COMPRESSORS, NO_COMPRESSOR, ScaleDownConfig, TrainingConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.loading import parameters
from scaledown.training import run
from scaledown.training.steps import unused_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny.generator_folder(folder / "generator", layers=2)
    tiny.encoder_folder(folder / "encoder")
    return folder


@pytest.fixture(scope="module")
def records():
    return list(synthetic_records(3, seed=5))


def new_model(folder, kind="n_layers", **settings):
    of_kind = {"modernbert": {"compressor_model": str(folder / "encoder")},
               "llm": {"compressor_model": str(folder / "generator")}}.get(kind, {})
    if kind != NO_COMPRESSOR:
        of_kind |= {"num_memory_tokens": 2, "enable_reranking": True}
    config = ScaleDownConfig(generator_model=str(folder / "generator"), compressor_type=kind, **of_kind, **settings)
    return run.build_model(config, "cpu", seed=1)


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_records_with_documents_give_every_trained_weight_a_gradient(folder, records, kind):
    """As the backward pass itself has it; the look changes neither gradients nor the random state."""
    model = new_model(folder, kind).train()
    before = torch.get_rng_state()
    unscored = [dataclasses.replace(record, reranking_scores=None) for record in records]
    assert not unused_weights.may_be(model, TrainingConfig(), unscored)
    assert model.training and torch.get_rng_state().equal(before)
    weights = parameters.trained(model)
    assert all(weight.grad is None for weight in weights.values())
    tiny.total(model(model.processor.collate(unscored))).backward()
    assert [name for name, weight in weights.items() if weight.grad is None] == []


def test_a_record_without_documents_and_a_resting_generator_leave_weights_out(folder, records):
    model, empty = new_model(folder), dataclasses.replace(records[0], documents=(), reranking_scores=None)
    assert unused_weights.may_be(model, TrainingConfig(), [*records, empty])
    assert unused_weights.may_be(model, TrainingConfig(readout_loss_weight=1.0, readout_steps=1), records)
    assert not unused_weights.may_be(model, TrainingConfig(compressor_warmup_steps=1), records)
    assert not unused_weights.may_be(new_model(folder, NO_COMPRESSOR), TrainingConfig(), [*records, empty])


def test_a_weight_that_a_family_does_not_use_is_found(folder, records):
    model = new_model(folder)
    model.compressor.extra = nn.Linear(2, 2, bias=False)
    assert unused_weights.by_a_record(model, records[0]) == ["compressor.extra.weight"]
    assert unused_weights.may_be(model, TrainingConfig(), records)


def test_no_pass_is_made_where_it_would_be_compiled(folder, records, monkeypatch):
    monkeypatch.setattr(unused_weights, "wants_one_shape", lambda device: True)
    monkeypatch.setattr(unused_weights, "by_a_record", None)
    assert unused_weights.may_be(new_model(folder), TrainingConfig(), records)
