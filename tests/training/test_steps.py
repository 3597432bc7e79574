"""A step cut into parts for processes and memory: every record once, one draw, the losses of the whole."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import tiny
import torch
from torch.utils.data import DataLoader

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.engine.moving import Parcel, changed, moved
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
    collators = [StepCollator(model.processor, config, shapes, rank, num_processes) for rank in range(num_processes)]
    shares = []
    for collate in collators:
        shares.append([parcel.unpacked("cpu") for parcel in collate(records)])
    return shares


@pytest.mark.parametrize("num_records", [1, 5, 12, 13, 16])
@pytest.mark.parametrize(("num_processes", "num_parts"), [(1, 1), (1, 4), (2, 2), (4, 2)])
def test_each_record_is_in_one_part_and_all_processes_have_as_many(model, records, num_records, num_processes,
                                                                   num_parts):
    step = (records * 2)[:num_records]
    config = TrainingConfig(batch_size=16, gradient_accumulation_steps=num_parts)
    shares = parts_of_all(model, config, step, num_processes)
    all_parts = list(itertools.chain.from_iterable(shares))
    ids = list(itertools.chain.from_iterable(part["record_ids"] for part in all_parts))
    assert sorted(ids) == sorted(record.id for record in step)
    assert {len(parts) for parts in shares} == {-(-num_records * num_parts // 16)}
    assert all(len(part["record_ids"]) <= 16 // (num_processes * num_parts) for part in all_parts)


@pytest.mark.parametrize("is_padded", [False, True])
def test_parts_weighed_by_their_tokens_and_scores_have_the_losses_of_the_whole(model, records, is_padded):
    """Five processes share thirteen records two at a time, so that two of them have nothing in the second round."""
    config = TrainingConfig(batch_size=20, gradient_accumulation_steps=2, answer_tokens=16)
    shapes = shapes_of(records, model.processor, config.answer_tokens) if is_padded else None
    parts = list(itertools.chain.from_iterable(parts_of_all(model, config, records, 5, shapes)))
    assert len(parts) == 10 and sum(not part["record_ids"] for part in parts) == 2
    whole = model.processor.collate(records, config.answer_tokens)
    numbers = torch.stack([counts(part) for part in parts])
    assert numbers.sum(0).tolist() == counts(whole).tolist()
    with torch.no_grad():
        wanted, found = model(whole), [model(part) for part in parts]
    for place, name in enumerate(("answer_loss", "reranking_loss")):
        mean = sum(getattr(losses, name) * number[place] for losses, number in zip(found, numbers, strict=True))
        torch.testing.assert_close(mean / numbers[:, place].sum(), getattr(wanted, name), atol=1e-5, rtol=1e-5)


def tensors(batch):
    """All tensors of a batch, in all its parts."""
    found = []

    def noted(tensor):
        found.append(tensor)
        return tensor

    changed(batch, noted)
    return found


@pytest.mark.parametrize("is_padded", [False, True])
def test_a_batch_travels_in_one_tensor_and_arrives_as_it_was(model, records, is_padded):
    """To another device, and by a process that prepares it; every number format is among its tensors."""
    config = TrainingConfig(batch_size=16, readout_loss_weight=1.0)
    shapes = shapes_of(records, model.processor, config.answer_tokens) if is_padded else None
    collate = StepCollator(model.processor, config, shapes)
    parcel, = collate(records)
    assert {tensor.device.type for tensor in tensors(parcel.batch)} == {"meta"}
    batch = model.processor.collate(records, config.answer_tokens, 2, True, shapes, 16)
    loader = DataLoader(records, 16, collate_fn=collate, num_workers=1)
    for found in (parcel.unpacked("cpu"), next(iter(loader))[0].unpacked("cpu")):
        assert found["record_ids"] == [record.id for record in records]
        assert len(tensors(found)) == len(tensors(batch)) > 20
        for one, other in zip(tensors(found), tensors(batch), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
            assert one.storage_offset() * one.element_size() % 64 == 0
        assert len({tensor.untyped_storage().data_ptr() for tensor in tensors(found) if tensor.numel()}) == 1
        assert found["documents"].reads.are_last == batch["documents"].reads.are_last
    assert {tensor.dtype for tensor in tensors(batch)} == {torch.int64, torch.float32, torch.bool}
    for name in ("answer_loss", "reranking_loss", "readout_loss"):
        with torch.no_grad():
            assert getattr(model(found), name).equal(getattr(model(batch), name))


def test_a_parcel_is_pinned_as_a_whole_and_goes_tensor_by_tensor_where_numbers_are_held_otherwise(model, records,
                                                                                                 monkeypatch):
    """Pinning takes a GPU, so it puts the tensor elsewhere here; a loader pins what has such a method by calling it."""
    batch = model.processor.collate(records)
    assert {tensor.device.type for tensor in tensors(moved(batch, "meta"))} == {"meta"}
    arrived = Parcel.of(batch).unpacked("meta")
    assert {tensor.device.type for tensor in tensors(arrived)} == {"meta"} and arrived["num_memory_tokens"] == 2
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.to("meta"))
    assert Parcel.of(batch).pin_memory().values.device.type == "meta"
