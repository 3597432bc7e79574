"""The five-minute check of an installation: trains compressors a little on the embedded data, and tests what came out.

    python test_training.py --test_both
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scaledown import ScaleDownConfig, ScaleDownModel, cli
from scaledown.config import COMPRESSOR_TYPES, EMBEDDED, TrainingConfig
from scaledown.data.records import Record
from scaledown.data.world.synthetic import synthetic_records
from scaledown.training import demo, run
from scaledown.training.devices import DEVICES

STEPS = 40
TOLERANCE = 1e-4
Check = tuple[str, Callable[[], bool]]


def build_parser() -> argparse.ArgumentParser:
    """The script's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compressor_type", choices=COMPRESSOR_TYPES, default="n_layers", help="[n_layers]")
    parser.add_argument("--test_both", action="store_true", help="test every compressor type")
    parser.add_argument("--num_examples", type=int, default=10, help="records to train on [10]")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to run [auto]")
    return parser


def checks(compressor_type: str, num_examples: int, device: str, folder: Path) -> Iterator[Check]:
    """The checks of one compressor, in order: each builds on those before it."""
    records = list(synthetic_records(num_examples))
    config = ScaleDownConfig(generator_model=EMBEDDED, compressor_type=compressor_type, **demo.MODEL[compressor_type])
    model = run.build_model(config, device, seed=42)
    base = {name: weight.clone() for name, weight in model.generator.named_parameters() if not weight.requires_grad}
    history: list[float] = []

    def trains() -> bool:
        settings = demo.training(compressor_type, enable_reranking=False) | {
            "batch_size": min(4, num_examples), "max_steps": STEPS, "logging_steps": 1}
        log = run.train(model, TrainingConfig(**settings), records, folder / "run")
        history.extend(row["answer_loss"] for row in log if "answer_loss" in row)
        return len(history) == STEPS and all(map(math.isfinite, history))

    yield f"trains {STEPS} steps", trains
    yield "the loss falls", lambda: sum(history[-5:]) < 0.8 * sum(history[:5])
    yield "the generator's own weights are untouched", lambda: all(
        weight.equal(base[name]) for name, weight in model.generator.named_parameters() if name in base)
    yield "save and load give the same answers", lambda: _answers(
        ScaleDownModel.from_pretrained(folder / "run" / run.FINAL, device=model.device, dtype=model.dtype),
        records) == _answers(model, records)
    yield "batch size and padding change no answer", lambda: (
        _answers(model, records, batch_size=1) == _answers(model, records, batch_size=len(records)))
    yield "neighbours and padding change no embedding", lambda: _is_alone_as_in_a_batch(model, records)
    yield "no documents at all still give an answer", lambda: len(model.answer(["Who?"], [[]], max_new_tokens=4)) == 1


def _answers(model: ScaleDownModel, records: Sequence[Record], batch_size: int = 4) -> list[str]:
    return model.answer([record.query for record in records], [record.documents for record in records],
                        max_new_tokens=8, batch_size=batch_size)


def _is_alone_as_in_a_batch(model: ScaleDownModel, records: Sequence[Record]) -> bool:
    together = model.compress([record.query for record in records], [record.documents for record in records])
    for number, record in enumerate(records):
        alone = model.compress([record.query], [record.documents]).embeddings[0]
        if not alone.allclose(together.embeddings[number, :len(alone)], atol=TOLERANCE, rtol=TOLERANCE):
            return False
    return True


def run_checks(compressor_type: str, num_examples: int, device: str) -> list[tuple[str, bool, float]]:
    """Run the checks of one compressor, printing each as it ends: what, whether it holds, and its seconds."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name, holds in checks(compressor_type, num_examples, device, Path(folder)):
            started = time.perf_counter()
            is_right = holds()
            results.append((name, is_right, time.perf_counter() - started))
            print(f"{compressor_type:>10}  {'ok' if is_right else 'FAILED':<6}  {results[-1][2]:6.1f} s  {name}",
                  flush=True)
    return results


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Check one compressor, or all; 1 if anything is wrong."""
    args = build_parser().parse_args(argv)
    if args.num_examples < 2:
        raise ValueError(f"--num_examples must be at least 2, got {args.num_examples}")
    compressor_types = COMPRESSOR_TYPES if args.test_both else (args.compressor_type,)
    results = [result for each in compressor_types for result in run_checks(each, args.num_examples, args.device)]
    failed = [name for name, is_right, _ in results if not is_right]
    print(f"{len(results) - len(failed)} of {len(results)} checks hold, in {sum(row[2] for row in results):.0f} s"
          + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
