"""Batches of one shape: the losses and gradients of ragged ones, one graph, and nothing compiled twice."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import tiny
import torch

import train
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.model import ScaleDownModel
from scaledown.training import batches, run
from scaledown.training.batches import shapes_of
from scaledown.training.devices import wants_one_shape

BATCH_SIZE, ANSWER_TOKENS = 4, 32


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def records():
    """Of 0 to 3 documents, some with scores; the last batch is short and has no document."""
    made = synthetic_records(22, seed=5)
    counts = [number % 4 if number < 20 else 0 for number in range(22)]
    return [dataclasses.replace(record, documents=record.documents[:count], document_ids=None, titles=None,
                                reranking_scores=[0.5, -1.0, 2.0][:count] if count == 2 else None)
            for record, count in zip(made, counts, strict=True)]


def new_model(generator, compressor_type="n_layers", **settings):
    own = {"compressor_model": "embedded"} if compressor_type == "modernbert" else {}
    config = ScaleDownConfig(generator_model=generator, num_memory_tokens=2, lora_dropout=0.0, mlp_width=16,
                             compressor_type=compressor_type, **own, **settings)
    torch.manual_seed(0)
    return ScaleDownModel(config).train()


def ragged_and_fixed(model, records):
    shapes = shapes_of(records, model.processor, ANSWER_TOKENS)
    for start in range(0, len(records), BATCH_SIZE):
        some = records[start:start + BATCH_SIZE]
        yield (model.processor.collate(some, ANSWER_TOKENS),
               model.processor.collate(some, ANSWER_TOKENS, shapes=shapes, batch_size=BATCH_SIZE))


def shape(batch):
    """Everything by which a device would tell two batches apart before it computes: all but the tensors' values."""
    if dataclasses.is_dataclass(batch):
        batch = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch) if field.compare}
    if isinstance(batch, dict):
        return tuple((name, shape(value)) for name, value in sorted(batch.items()) if name != "padding_share")
    return tuple(batch.shape) if isinstance(batch, torch.Tensor) else batch


def gradients(model, batch):
    model.zero_grad()
    losses = model(batch)
    tiny.total(losses).backward()
    return losses, {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize(("compressor_type", "input_order"), [
    ("n_layers", "query_first"), ("n_layers", "document_first"), ("modernbert", "query_first")])
def test_padding_changes_no_loss_and_no_gradient(generator, records, compressor_type, input_order):
    model = new_model(generator, compressor_type, enable_reranking=True, input_order=input_order)
    shapes = set()
    for ragged, fixed in ragged_and_fixed(model, records):
        losses, wanted = gradients(model, ragged)
        found_losses, found = gradients(model, fixed)
        for one, other in zip(found_losses, losses, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
        # Without documents a ragged batch leaves the compressor out; a fixed one has it read dummies, for nothing.
        has_documents = len(ragged["documents"].reads.at) > 0
        assert found.keys() == wanted.keys() or not has_documents
        assert not any(found[name].any() for name in found.keys() - wanted.keys())
        # Float32 rounds sums over more slots otherwise: 2e-5 of a tensor's largest was seen, 1e-14 in float64.
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-4 * gradient.abs().max().item(), rtol=0)
        shapes.add(shape(fixed))
    assert len(shapes) == 1


def test_the_share_of_padding_is_counted(generator, records):
    model = new_model(generator)
    _, fixed = next(ragged_and_fixed(model, [records[1]]))
    # One record in a batch of four that is as long as itself: three quarters are padding.
    assert fixed["padding_share"] == pytest.approx(0.75)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_the_step_is_one_graph_that_serves_every_batch(generator, records, gradient_checkpointing):
    """Forward and loss with ``fullgraph``; a second compilation, for another shape or length, would be an error."""
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model = new_model(generator)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable()
    step = torch.compile(model.forward, backend=counting, fullgraph=True, dynamic=False)
    batches = [fixed for _, fixed in ragged_and_fixed(model, records)]
    for batch in batches:
        del batch["padding_share"]
    model.generator.head()  # asked once, by the trainer
    first = step(batches[0]).answer_loss
    with torch.compiler.set_stance("fail_on_recompile"):
        for number in range(20):
            step(batches[number % len(batches)]).answer_loss.backward()
    assert len(graphs) == 1
    torch.testing.assert_close(first, model(batches[0]).answer_loss, atol=1e-6, rtol=1e-6)


def test_a_run_on_padded_batches_ends_with_the_same_losses(generator, records, tmp_path, monkeypatch):
    logs = []
    for pads_to_max in (False, True):
        monkeypatch.setattr(batches, "wants_one_shape", lambda device, wants=pads_to_max: wants)
        settings = TrainingConfig(batch_size=BATCH_SIZE, max_steps=7, logging_steps=1, warmup_ratio=0.0,
                                  learning_rate_compressor=1e-3, answer_tokens=ANSWER_TOKENS)
        log = run.train(new_model(generator), settings, records, tmp_path / str(pads_to_max))
        logs.append([row["answer_loss"] for row in log if "answer_loss" in row])
    assert len(logs[0]) == 7
    assert logs[1] == pytest.approx(logs[0], abs=1e-5)


def test_the_evaluation_loss_has_one_shape_too(generator, records, monkeypatch):
    model, shapes, found = new_model(generator, enable_reranking=True), set(), {}
    forward = ScaleDownModel.forward

    def watched(self, batch):
        shapes.add(shape(batch))
        return forward(self, batch)

    monkeypatch.setattr(ScaleDownModel, "forward", watched)
    for pads_to_max in (False, True):
        shapes.clear()
        monkeypatch.setattr(batches, "wants_one_shape", lambda device, wants=pads_to_max: wants)
        config = TrainingConfig(answer_tokens=ANSWER_TOKENS)
        found[pads_to_max] = run.mean_loss(model, records, config, BATCH_SIZE)()
    assert len(shapes) == 1
    assert found[True] == pytest.approx(found[False], rel=1e-5)


def test_batches_that_cannot_have_one_shape_are_refused_at_once(generator, records, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(batches, "wants_one_shape", lambda device: True)
    write_records(tmp_path / "data.json", records)
    assert train.main(["--train_data", str(tmp_path / "data.json"), "--generator_model", generator, "--device", "cpu",
                       "--output_dir", str(tmp_path / "out"), "--num_memory_tokens", "2",
                       "--train_memory_tokens", "1", "2"]) == 2
    assert "1 2 would give batches of 2 shapes" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_trainium_alone_wants_one_shape_by_itself():
    assert wants_one_shape(SimpleNamespace(type="neuron"))
    assert not any(wants_one_shape(torch.device(kind)) for kind in ("cpu", "cuda", "mps"))
