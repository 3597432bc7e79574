"""The demo, trained for real: the main job's lessons, and how many questions it answers before and after."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from lab.gpu_check.report import Check
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.model import ScaleDownModel
from scaledown.training import run
from scaledown.training.presets import machines

SEED = 42
STEPS, REHEARSED_STEPS = 600, 2


def trained(check: Check) -> None:
    """Train the demo's N-Layers compressor on its first lessons; count exact answers before and after."""
    # The preset's settings, those of the model and those of the training apart.
    settings = machines.settings(machines.DEMO, "n_layers", enable_reranking=False)
    model_settings = {name: value for name, value in settings.items() if name in ScaleDownConfig.__dataclass_fields__}
    training_settings = {name: value for name, value in settings.items() if name in TrainingConfig.__dataclass_fields__}
    num_steps = REHEARSED_STEPS if check.is_rehearsal else STEPS
    config = TrainingConfig(**training_settings | {"max_steps": num_steps, "seed": SEED, "save_steps": 10_000})

    model = run.build_model(ScaleDownConfig(**model_settings), check.device, SEED)
    questions = list(synthetic_records(4 if check.is_rehearsal else 200, seed=777))
    before = _right(model, questions)

    records = machines.demo.lessons(SEED)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run.train(model, config, records, Path(folder), in_order=True)
    took = time.perf_counter() - start

    check.add("demo", f"{num_steps} steps of {config.batch_size} questions in {took:.0f} s",
              f"{num_steps * config.batch_size / took:.0f} questions a second; exact answers {before} -> "
              f"{_right(model, questions)} of {len(questions)}")


def _right(model: ScaleDownModel, records: list[Record]) -> int:
    answers = model.answer([record.query for record in records], [record.documents for record in records],
                           max_new_tokens=16, batch_size=32)
    return sum(answer == record.answer for answer, record in zip(answers, records, strict=True))
