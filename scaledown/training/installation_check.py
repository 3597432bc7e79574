"""Checks that an installation works: a compressor is trained a little on the demo's data, and then tested."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scaledown.config import EMBEDDED, ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.model import ScaleDownModel
from scaledown.training import run
from scaledown.training.presets import demo

STEPS = 40
TOLERANCE = 1e-4
Check = tuple[str, Callable[[], bool]]


def run_checks(compressor_type: str, num_examples: int, device: str) -> Iterator[tuple[str, bool, float]]:
    """Run the checks of one compressor, and yield for each its name, whether it holds, and its seconds.

    Args:
        compressor_type: the compressor to train.
        num_examples: records of the demo to train on.
        device: a value of ``--device``.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, holds in _checks(compressor_type, num_examples, device, Path(folder)):
            start = time.perf_counter()
            yield name, holds(), time.perf_counter() - start


def _checks(compressor_type: str, num_examples: int, device: str, folder: Path) -> Iterator[Check]:
    """Yield the checks in their order; each builds on what those before it did."""
    records = list(synthetic_records(num_examples))
    config = ScaleDownConfig(generator_model=EMBEDDED, compressor_type=compressor_type, **demo.MODEL[compressor_type])
    model = run.build_model(config, device, seed=42)
    # Copies, to compare the generator with after the training.
    frozen = {name: weight.clone() for name, weight in model.generator.named_parameters() if not weight.requires_grad}
    losses: list[float] = []

    def trains() -> bool:
        settings = demo.training(compressor_type, enable_reranking=False) | {
            "batch_size": min(4, num_examples), "max_steps": STEPS, "logging_steps": 1}
        # Every step is logged, so each has a loss to look at.
        log = run.train(model, TrainingConfig(**settings), records, folder / "run")
        losses.extend(entry["answer_loss"] for entry in log if "answer_loss" in entry)
        return len(losses) == STEPS and all(map(math.isfinite, losses))

    def loss_falls() -> bool:
        # Means of five steps, since one batch is easier than another.
        return sum(losses[-5:]) < 0.8 * sum(losses[:5])

    def generator_is_untouched() -> bool:
        weights = dict(model.generator.named_parameters())
        return all(weights[name].equal(weight) for name, weight in frozen.items())

    def saved_model_answers_alike() -> bool:
        saved = ScaleDownModel.from_pretrained(folder / "run" / run.FINAL, device=model.device, dtype=model.dtype)
        return _answers(saved, records) == _answers(model, records)

    def batch_size_changes_nothing() -> bool:
        return _answers(model, records, batch_size=1) == _answers(model, records, batch_size=len(records))

    yield f"trains {STEPS} steps", trains
    yield "the loss falls", loss_falls
    yield "the generator's own weights are untouched", generator_is_untouched
    yield "save and load give the same answers", saved_model_answers_alike
    yield "batch size and padding change no answer", batch_size_changes_nothing
    yield "neighbours and padding change no embedding", lambda: _is_alone_as_in_a_batch(model, records)
    yield "no documents at all still give an answer", lambda: len(model.answer(["Who?"], [[]], max_new_tokens=4)) == 1


def _answers(model: ScaleDownModel, records: Sequence[Record], batch_size: int = 4) -> list[str]:
    questions, documents = [record.query for record in records], [record.documents for record in records]
    return model.answer(questions, documents, max_new_tokens=8, batch_size=batch_size)


def _is_alone_as_in_a_batch(model: ScaleDownModel, records: Sequence[Record]) -> bool:
    """Return whether the memory of a question is the same with the others in its batch and without."""
    questions, documents = [record.query for record in records], [record.documents for record in records]
    together = model.compress(questions, documents).embeddings  # (B, K, L, D)
    for number, record in enumerate(records):
        alone = model.compress([record.query], [record.documents]).embeddings[0]  # (K of this question, L, D)
        if not alone.allclose(together[number, :len(alone)], atol=TOLERANCE, rtol=TOLERANCE):
            return False
    return True
