"""Measure how robust quality is: python -m scaledown.evaluation.robustness --checkpoint embedded

The same questions are answered with more documents, with the right one at other places, among documents that look like
it, with longer documents, and with fewer memory tokens, beside the generator on full text and on text cut to the same
budget. Then the command looks into the memory: which document tokens its embeddings resemble, and which words of the
vocabulary. Every point is saved as it is measured, so that --resume continues a run that was killed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scaledown import cli, processes
from scaledown.config import EMBEDDED, EvaluationConfig, TrainingConfig
from scaledown.data.records import Record, read_records
from scaledown.data.world.synthetic import Difficulty, synthetic_records
from scaledown.evaluation.evaluator import evaluate_system
from scaledown.evaluation.figures.drawing import Figures
from scaledown.evaluation.figures.needle import look_into_memory, plot_needle
from scaledown.evaluation.robustness.sweeps import Case, Setting, cases, settings
from scaledown.evaluation.robustness.sweeps_figure import plot_robustness
from scaledown.files import write_json
from scaledown.models.model import ScaleDownModel
from scaledown.run_information import run_information
from scaledown.training import run_folder
from scaledown.training.devices import DEVICES, dtype_for, keep_freed_memory, resolve_device

EMBEDDED_WORLD = Difficulty((5, 5), (3, 6), hard_share=1.0, two_hop_share=0.0)
RESULTS_FILE, NEEDLE_FILE = "robustness.json", "needle.json"
Rows = list[dict[str, Any]]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's flags."""
    parser = argparse.ArgumentParser(prog="python -m scaledown.evaluation.robustness", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=EMBEDDED, help="a folder, a Hub id, or 'embedded' [embedded]")
    parser.add_argument("--eval_data", help="records, one of whose documents holds the answer [the embedded world's]")
    parser.add_argument("--output_dir", default="./robustness", help="gets figures and numbers [./robustness]")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="device to run on [auto]")
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed, help=f"of all draws [{TrainingConfig.seed}]")
    parser.add_argument("--resume", action="store_true", help="continue the run in --output_dir")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --output_dir")
    cli.add_flags(parser, EvaluationConfig, but=("timed_queries",), eval_examples=200)
    return parser


def load_records(args: argparse.Namespace) -> Sequence[Record]:
    """Load the records that provide the questions asked at every point."""
    if args.eval_data is not None:
        return read_records(args.eval_data)

    # More than are asked, since a record is left out unless exactly one of its documents holds the answer.
    num_records = args.eval_examples + args.eval_examples // 4 + 20
    return list(synthetic_records(num_records, args.seed, split="eval", difficulty=EMBEDDED_WORLD))


def measure(model: ScaleDownModel, todo: Sequence[Setting], config: EvaluationConfig, seed: int, path: Path) -> Rows:
    """Measure every point that ``path`` does not hold yet; each is written there at once."""
    rows: Rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    done = {(row["sweep"], row["value"], row["system"]) for row in rows}

    points = []
    for setting in todo:
        for name, system in setting.systems.items():
            if (setting.sweep, setting.value, name) not in done:
                points.append((setting, name, system))

    for setting, name, system in tqdm(points, desc="points measured", unit="point", disable=processes.rank() > 0):
        result = evaluate_system(model, system, setting.records, config, seed, progress=False)
        rows.append({"sweep": setting.sweep, "value": setting.value, "system": name, **result.summary()})
        # The whole file is rewritten at each point: it is small, and answering takes far longer.
        if processes.rank() == 0:
            write_json(path, rows)
    return rows


def draw(folder: Path, model: ScaleDownModel, asked: Sequence[Case], rows: Rows) -> list[str]:
    """Draw the sweeps, look into the memory and draw that; return the names of all files of the run."""
    figures, files = Figures(folder), [RESULTS_FILE]
    if processes.rank() == 0:
        figures.draw("robustness.png", plot_robustness, rows)

    # None if no document contains its answer literally, of which a warning was printed.
    likeness = figures.attempt("needle.png", look_into_memory, model,
                              [(case.record, case.gold) for case in asked])
    if likeness is not None and processes.rank() == 0:
        write_json(folder / NEEDLE_FILE, likeness)
        files.append(NEEDLE_FILE)
        figures.draw("needle.png", plot_needle, likeness)

    return [*figures.drawn, *files]


def table(rows: Rows) -> str:
    """Return exact match at every point, for the terminal."""
    lines = []
    for row in rows:
        low, high = row["exact_match_ci95"]
        lines.append(f"{row['sweep']:<18}{row['value']:>7g}  {row['system']:<15}{row['exact_match_avg']:.3f} "
                     f"[{low:.3f}, {high:.3f}]")

    return "\n".join(lines)


def measure_all(model: ScaleDownModel, asked: Sequence[Case], config: EvaluationConfig, args: argparse.Namespace,
                folder: Path) -> None:
    """Measure every point, look into the memory, and print the names of the files."""

    def count_tokens(text: str) -> int:
        return len(model.processor.tokenizer(text, add_special_tokens=False).input_ids)

    # The sweeps fit the model: its budgets of memory tokens, and documents up to the longest that it reads.
    todo = settings(asked, model.config.memory_token_choices, model.config.document_tokens, count_tokens)
    print(f"{args.checkpoint} on {model.device}: {len(asked)} questions at {len(todo)} points; results go to {folder}")

    rows = measure(model, todo, config, args.seed, folder / RESULTS_FILE)
    written = draw(folder, model, asked, rows)
    print(f"{table(rows)}\n\n{folder}: {', '.join(written)}")


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, draw, and print the names of the files."""
    args = build_parser().parse_args(argv)
    config, device, folder = cli.config_from(args, EvaluationConfig), resolve_device(args.device), Path(args.output_dir)
    records = load_records(args)
    asked = cases(records, args.eval_examples, args.seed)
    if device.type == "cpu":
        keep_freed_memory()

    model = ScaleDownModel.from_pretrained(args.checkpoint, device=device, dtype=dtype_for(device))
    information = run_information(args.seed, device, sys.argv, vars(args))
    # With --resume the model and the questions must be the same as before.
    information[run_folder.INPUTS] = (run_folder.inputs_of_run(model.config)
                                      | run_folder.inputs_of_checkpoint("--checkpoint", args.checkpoint)
                                      | run_folder.inputs_of_records("--eval_data", args.eval_data, records))

    with run_folder.claimed(folder, information, args.overwrite, args.resume):
        if args.overwrite:
            (folder / RESULTS_FILE).unlink(missing_ok=True)
        measure_all(model, asked, config, args, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
