"""Measure what it saves to read documents ahead.

A checkpoint trained with --input_order document_first reads documents before any question is known. At the question it
reads only the query and the memory tokens of each document, then the prompt. It is compared with itself on documents
that it has not read, and with the same generator on full text, up to the first token and to the whole answer. All take
turns in one process, with adapters folded in.

    python -m lab.benchmark_read_ahead --checkpoint smollm2 --eval_data squad_dev.json
    python -m lab.benchmark_read_ahead --checkpoint smollm2 --eval_data squad_dev.json --batch_sizes 1 8 32 --rounds 5
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaledown import cli
from scaledown.data.records import Record, read_records
from scaledown.data.storage.run_information import run_information
from scaledown.files import make_folder, write_json
from scaledown.settings import positive, require

if TYPE_CHECKING:
    from scaledown.evaluation.evaluator.timing import Spread
    from scaledown.models.model import ScaleDownModel
    from scaledown.models.serving.store import DocumentStore

FULL_TEXT, COMPRESSED, READ_AHEAD = "full text", "ScaleDown", "ScaleDown, read ahead"
SYSTEMS = (FULL_TEXT, COMPRESSED, READ_AHEAD)
PHASES = ("first_token", "whole_answer")
RESULTS_FILE = "read_ahead.json"


def build_parser() -> cli.Parser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "lab.benchmark_read_ahead",
                            "--checkpoint NAME --eval_data FILE [--FLAG VALUE ...]")
    # No default: the demo's checkpoint reads the query first.
    cli.add_checkpoint(parser, required=True)
    parser.add_argument("--eval_data", required=True, metavar="FILE", group="data",
                        help="questions with their documents, JSON or JSONL")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8], metavar="N",
                        help="questions at a time [1 8]")
    parser.add_argument("--answer_tokens", type=int, default=8, metavar="N",
                        help="tokens of an answer, the same of all systems [8]")
    parser.add_argument("--rounds", type=int, default=9, metavar="N",
                        help="times that each is measured, on other questions each time [9]")
    parser.add_argument("--output_dir", default="read_ahead", metavar="FOLDER",
                        help=f"gets {RESULTS_FILE} [read_ahead]")
    cli.add_device(parser)
    return parser


def checked_records(args: argparse.Namespace) -> list[Record]:
    """Return the records to answer.

    Raises:
        ValueError: if a number is not above 0, or there are too few records.
    """
    faults = positive(args, "answer_tokens", "rounds")
    faults += [f"--batch_sizes must be above 0, got {size}" for size in args.batch_sizes if size < 1]
    require(faults)

    # One more round warms up.
    num_needed = max(args.batch_sizes) * (args.rounds + 1)
    records = read_records(args.eval_data)
    if len(records) < num_needed:
        raise ValueError(f"--eval_data {args.eval_data}: {len(records)} records, but {args.rounds} rounds and one to "
                         f"warm up of --batch_sizes {max(args.batch_sizes)} need {num_needed}: give more, or fewer "
                         "--rounds")
    return records[:num_needed]


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the times, write them."""
    args = build_parser().parse_args(argv)
    records = checked_records(args)
    folder = Path(args.output_dir)
    make_folder(folder)

    # Only now, so that --help and mistakes need not wait for torch.
    from scaledown import ScaleDownModel
    from scaledown.evaluation.evaluator.timing import Spread, in_turns
    from scaledown.progress import Bar
    from scaledown.training.devices import resolve_device

    cli.tell(f"loading {args.checkpoint} ...")
    model = ScaleDownModel.from_pretrained(args.checkpoint, device=resolve_device(args.device)).for_answering()
    documents = list(itertools.chain.from_iterable(record.documents for record in records))
    store = model.read_documents(documents, show_progress_bar=True)
    jobs = {}
    for batch_size in args.batch_sizes:
        batches = [records[start:start + batch_size] for start in range(0, len(records), batch_size)]
        for system in SYSTEMS:
            jobs[batch_size, system] = job(model, system, batches, store, args.answer_tokens)

    with Bar(total=args.rounds + 1, desc="rounds over all systems", unit="round") as bar:
        times = in_turns(jobs, args.rounds, bar.update)

    medians = {}
    for key, seconds in times.items():
        medians[key] = {phase: Spread.of(seconds[phase]) for phase in PHASES}
    print(f"{args.checkpoint} on {model.device} in {model.dtype}, {len(documents) / len(records):.1f} documents a "
          f"question, answers of {args.answer_tokens} tokens: milliseconds of a batch, medians of {args.rounds} rounds")
    print(table(medians))
    write_json(folder / RESULTS_FILE, {"run": run_information(0, model.device, sys.argv, vars(args)),
                                       "rows": [as_row(*key, spreads) for key, spreads in medians.items()]})
    print(f"results: {folder / RESULTS_FILE}")
    return 0


def job(model: ScaleDownModel, system: str, batches: Sequence[Sequence[Record]], store: DocumentStore,
        answer_tokens: int) -> Callable[[], dict[str, float]]:
    """Return a call that answers the next batch and returns its seconds up to the first token, and to the last."""
    from scaledown.evaluation.evaluator.timing import seconds

    turns = itertools.cycle(batches)

    def answer(batch: Sequence[Record], num_tokens: int) -> None:
        questions, documents = [record.query for record in batch], [list(record.documents) for record in batch]
        if system == FULL_TEXT:
            # The adapter is folded in, as it would be in a generator that was trained on text.
            prompts = model.prefill_text(questions, documents, with_adapter=True)
        else:
            known = store if system == READ_AHEAD else None
            prompts = model.prefill(questions, model.compress(questions, documents, store=known))
        # No answer ends early: all systems say as many tokens.
        model.decode(prompts, num_tokens, min_new_tokens=num_tokens)

    def timed() -> dict[str, float]:
        batch = next(turns)
        return {"first_token": seconds(lambda: answer(batch, 1), model.device),
                "whole_answer": seconds(lambda: answer(batch, answer_tokens), model.device)}

    return timed


def table(medians: Mapping[tuple[int, str], Mapping[str, Spread]]) -> str:
    """Return the times as a table, each with how many times as fast as full text it is."""
    from scaledown.evaluation.figures.text_tables import console_table

    # Full text of the same batch size is what each is compared with.
    lines = []
    for (batch_size, system), spreads in medians.items():
        cells = [str(batch_size)]
        for phase in PHASES:
            own, of_text = spreads[phase].median, medians[batch_size, FULL_TEXT][phase].median
            cells += [f"{1e3 * own:,.0f}", f"{of_text / own:.2f}x"]
        lines.append([system, *cells])
    return console_table(["system", "batch", "first token", "speed", "whole answer", "speed"], lines)


def as_row(batch_size: int, system: str, spreads: Mapping[str, Spread]) -> dict[str, Any]:
    """Return one system's seconds as plain numbers."""
    return {"batch_size": batch_size, "system": system,
            **{phase: dataclasses.asdict(spread) for phase, spread in spreads.items()}}


if __name__ == "__main__":
    sys.exit(main())
