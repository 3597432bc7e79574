"""Batches of records of like length: every record once, the same order for the same seed and epoch, little padding."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tiny

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record
from scaledown.training import run
from scaledown.training.batches import LikeLengthSampler, prompt_sizes


def records(count: int) -> list[Record]:
    """Records with 1 to 6 documents, and queries of 1 to 20 words."""
    rng = random.Random(0)
    return [Record(id=str(number), query="who was it? " * rng.randint(1, 10),
                   documents=("Ada wrote it. " * rng.randint(1, 8),) * rng.randint(1, 6), answer="Ada")
            for number in range(count)]


def test_an_epoch_has_each_record_once_and_its_own_order() -> None:
    sampler = LikeLengthSampler(prompt_sizes(records(50), ScaleDownConfig(num_memory_tokens=2)), batch_size=4, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(50)) and list(sampler) == first
    sampler.set_epoch(1)
    assert sorted(sampler) == list(range(50)) and list(sampler) != first


def test_batches_are_of_like_length() -> None:
    sizes = prompt_sizes(records(400), ScaleDownConfig())
    order = list(LikeLengthSampler(sizes, batch_size=4, seed=1))
    in_order = [sizes[number] for number in order]
    largest = [max(in_order[start:start + 4]) for start in range(0, len(order), 4)]
    assert 1 - sum(sizes) / (4 * sum(largest)) < 0.05


@pytest.mark.parametrize(("kind", "bound"), [("n_layers", 0.05), ("modernbert", 0.9)])
def test_padding_is_measured_and_small_where_texts_are_packed(tmp_path: Path, kind: str, bound: float) -> None:
    settings = {"compressor_type": kind, "num_memory_tokens": 8, "lora_rank": 2, "mlp_width": 8}
    if kind == "modernbert":
        settings["compressor_model"] = tiny.encoder_folder(tmp_path / "encoder")
    config = ScaleDownConfig(generator_model=tiny.generator_folder(tmp_path / "generator"), **settings)
    training = TrainingConfig(batch_size=4, max_steps=10, logging_steps=10, learning_rate_generator=1e-6)
    log = run.train(run.build_model(config, "cpu", seed=1), training, records(160), tmp_path / "run")
    share, = (row["padding_share"] for row in log if "padding_share" in row)
    assert 0 <= share < bound


def test_workers_change_nothing(tmp_path: Path) -> None:
    config = ScaleDownConfig(generator_model=tiny.generator_folder(tmp_path / "generator"), num_memory_tokens=2)
    losses = []
    for workers in (0, 1):
        training = TrainingConfig(batch_size=4, max_steps=2, logging_steps=1, num_workers=workers)
        log = run.train(run.build_model(config, "cpu", seed=1), training, records(16), tmp_path / str(workers))
        losses.append([row["loss"] for row in log if "loss" in row])
    assert losses[0] == losses[1]
