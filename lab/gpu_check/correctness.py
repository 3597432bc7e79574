"""The same answers and the same training as on the CPU."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from lab.gpu_check.report import Check
from scaledown import ScaleDownModel
from scaledown.config import EMBEDDED, EMBEDDED_MODERNBERT, ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record
from scaledown.data.world.synthetic import synthetic_records
from scaledown.training import run

CPU = torch.device("cpu")
DTYPES = ("float32", "bfloat16")


def answers(check: Check) -> None:
    """Compare memory and answers of the checkpoints that ship with the CPU's in float32."""
    records = list(synthetic_records(4 if check.is_rehearsal else 60, seed=12345))
    asked = [record.query for record in records], [list(record.documents) for record in records]

    for name in (EMBEDDED, EMBEDDED_MODERNBERT):
        reference = ScaleDownModel.from_pretrained(name, device=CPU, dtype="float32")
        expected_memory = reference.compress(*asked).pairs()                      # (P, L, D)
        expected = reference.answer(*asked, max_new_tokens=12)

        for dtype in DTYPES:
            for only_answers in (False, True):
                model = ScaleDownModel.from_pretrained(name, device=check.device, dtype=dtype)
                if only_answers:
                    model.for_answering()
                memory = model.compress(*asked).pairs().float().cpu()
                error = (memory - expected_memory).norm() / expected_memory.norm()
                found = model.answer(*asked, max_new_tokens=12)
                num_same = sum(own == other for own, other in zip(found, expected, strict=True))
                check.add("answers", f"{name}, {dtype}{', for_answering' if only_answers else ''}",
                          f"memory differs by {error:.1e}, {num_same} of {len(records)} answers are the CPU's")


def training(check: Check) -> None:
    """Train for some steps here and on the CPU: the losses, what the host waits for, and the saved checkpoint."""
    num_steps = 2 if check.is_rehearsal else 20
    # Most CPUs are slow in bfloat16.
    dtypes = DTYPES[:1] if check.is_rehearsal else DTYPES
    records = list(synthetic_records(8 * num_steps, seed=5))

    for kind in ("n_layers", "modernbert"):
        expected, _ = _losses(check, kind, CPU, "float32", num_steps, records)
        for dtype in dtypes:
            found, waits = _losses(check, kind, check.device, dtype, num_steps, records)
            worst = max(abs(own - other) / other for own, other in zip(found, expected, strict=True))
            check.add("training", f"{kind}, {dtype}, {num_steps} steps",
                      f"losses within {worst:.1e} of the CPU's (expected: 1e-4, in bfloat16 2e-2); the host waits "
                      f"{sum(waits.values()) / num_steps:.1f} times a step: {_most_common(waits)}")


def _losses(check: Check, kind: str, device: torch.device, dtype: str, num_steps: int,
            records: list[Record]) -> tuple[list[float], Counter[str]]:
    """Return the loss of each step, and the places that made the host wait, with how often each did."""
    config = ScaleDownConfig(generator_model=EMBEDDED, compressor_type=kind, lora_dropout=0.0)
    model = run.build_model(config, device, seed=1, dtype=dtype)
    settings = TrainingConfig(batch_size=8, max_steps=num_steps, logging_steps=1, save_steps=10_000, num_workers=0)

    # torch warns of each call that makes the host wait for the GPU.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            log = run.train(model, settings, records, Path(folder))
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        if model.device.type != device.type:
            raise RuntimeError(f"the trainer moved the model from {device} to {model.device}")
        _check_saved(model, Path(folder) / run.FINAL, records)

    waits = Counter(f"{Path(each.filename).name}:{each.lineno}" for each in seen
                    if "synchronizing" in str(each.message))
    return [entry["loss"] for entry in log if "loss" in entry], waits


def _check_saved(model: ScaleDownModel, folder: Path, records: list[Record]) -> None:
    """Check that the model that was saved into ``folder`` has the loss of ``model``."""
    again = ScaleDownModel.from_pretrained(folder, device=model.device, dtype=model.dtype)
    found = []
    for each in (model, again):
        each.eval()
        with torch.no_grad():
            found.append(each(each.processor.collate(records[:4])).answer_loss.item())
    if abs(found[0] - found[1]) > 1e-3 * found[0]:
        raise RuntimeError(f"saved and loaded, the model has a loss of {found[1]}, not {found[0]}")


def _most_common(waits: Counter[str]) -> Any:
    return ", ".join(f"{place} ({number})" for place, number in waits.most_common(6)) or "nowhere"
