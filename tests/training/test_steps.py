"""A step cut into parts for processes and memory: every record once, one draw, the losses of the whole."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.engine.packing import moved
from scaledown.models.losses import counts
from scaledown.training import run
from scaledown.training.batches import StepCollator, shapes_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = ScaleDownConfig(generator_model=tiny.generator_folder(tmp_path_factory.mktemp("generator")),
                             num_memory_tokens=2, lora_dropout=0.0, enable_reranking=True)
    return run.build_model(config, "cpu", seed=1)


@pytest.fixture(scope="module")
def records():
    """Of 0 to 3 documents; every other one has no scores."""
    return [dataclasses.replace(record, documents=record.documents[:number % 4], document_ids=None, titles=None,
                                answer="Ada" + " and more" * number,
                                reranking_scores=[0.5, -1.0, 2.0][:number % 4] if number % 2 else None)
            for number, record in enumerate(synthetic_records(13, seed=5))]


def parts_of_all(model, config, records, num_processes, shapes=None):
    return [StepCollator(model.processor, config, shapes, rank, num_processes)(records)
            for rank in range(num_processes)]


@pytest.mark.parametrize("num_records", [1, 5, 12, 13, 16])
@pytest.mark.parametrize(("num_processes", "num_parts"), [(1, 1), (1, 4), (2, 2), (4, 2)])
def test_each_record_is_in_one_part_and_all_processes_have_as_many(model, records, num_records, num_processes,
                                                                   num_parts):
    step = (records * 2)[:num_records]
    config = TrainingConfig(batch_size=16, gradient_accumulation_steps=num_parts)
    shares = parts_of_all(model, config, step, num_processes)
    ids = [name for parts in shares for part in parts for name in part["record_ids"]]
    assert sorted(ids) == sorted(record.id for record in step)
    assert {len(parts) for parts in shares} == {-(-num_records * num_parts // 16)}
    assert all(len(part["record_ids"]) <= 16 // (num_processes * num_parts) for parts in shares for part in parts)


@pytest.mark.parametrize("is_padded", [False, True])
def test_parts_weighed_by_their_tokens_and_scores_have_the_losses_of_the_whole(model, records, is_padded):
    """Five processes share thirteen records two at a time, so that two of them have nothing in the second round."""
    config = TrainingConfig(batch_size=20, gradient_accumulation_steps=2, answer_tokens=16)
    shapes = shapes_of(records, model.processor, config.answer_tokens) if is_padded else None
    parts = [part for share in parts_of_all(model, config, records, 5, shapes) for part in share]
    assert len(parts) == 10 and sum(not part["record_ids"] for part in parts) == 2
    whole = model.processor.collate(records, config.answer_tokens)
    numbers = torch.stack([counts(part) for part in parts])
    assert numbers.sum(0).tolist() == counts(whole).tolist()
    with torch.no_grad():
        wanted, found = model(whole), [model(part) for part in parts]
    for place, name in enumerate(("answer_loss", "reranking_loss")):
        mean = sum(getattr(losses, name) * number[place] for losses, number in zip(found, numbers, strict=True))
        torch.testing.assert_close(mean / numbers[:, place].sum(), getattr(wanted, name), atol=1e-5, rtol=1e-5)


def devices(value):
    """The kinds of devices on which the tensors of a batch are, in all its parts."""
    if isinstance(value, torch.Tensor):
        return {value.device.type}
    parts = value.values() if isinstance(value, dict) else vars(value).values() if hasattr(value, "__dict__") else ()
    return set().union(*map(devices, parts))


def test_a_batch_is_moved_and_pinned_whole(model, records, monkeypatch):
    """Pinning takes a GPU, so it puts tensors elsewhere here; a loader pins what has such a method by calling it."""
    part, = StepCollator(model.processor, TrainingConfig(batch_size=16))(records)
    assert devices(moved(part, "meta")) == {"meta"} and devices(part) == {"cpu"}
    assert moved(part, "meta")["record_ids"] == [record.id for record in records]
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.to("meta"))
    pinned = part["documents"].pin_memory()
    assert devices(pinned) == {"meta"} and type(pinned) is type(part["documents"])
    assert pinned.reads.are_last == part["documents"].reads.are_last
