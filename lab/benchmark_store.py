"""Measure a store of documents on disk.

That is how fast it fills and opens, and whether its answers are those of reading anew. A number of short documents is
read and written. Then the store is opened again, and questions of the demo world are answered from their documents:
read anew, from a store in memory, and from stores on disk in each number format. A checkpoint that reads the query
first is taken with the order turned round. It was not trained for that, so its answers mean little, but those from a
store must still be the same.

    python -m lab.benchmark_store --checkpoint embedded
    python -m lab.benchmark_store --checkpoint smollm2 --num_documents 200 --eval_examples 20
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaledown import cli, hub
from scaledown.data.records import Record
from scaledown.data.storage.run_information import run_information
from scaledown.data.world.synthetic import synthetic_records
from scaledown.files import make_folder, write_json
from scaledown.settings import positive, require

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel
    from scaledown.models.serving.store import Store

RESULTS_FILE, FILLED_FOLDER = "store.json", "filled"
DOCUMENTS_AT_ONCE = 2048
ANEW, IN_MEMORY = "read anew", "in memory"


def build_parser() -> cli.Parser:
    """Return the parser of the command's flags."""
    parser = cli.new_parser(__doc__, "lab.benchmark_store", "[--checkpoint NAME] [--FLAG VALUE ...]")
    cli.add_checkpoint(parser)
    parser.add_argument("--num_documents", type=int, default=100_000, metavar="N",
                        help="documents to fill the store with [100000]")
    parser.add_argument("--eval_examples", type=int, default=300, metavar="N", group="data",
                        help="questions to answer [300]")
    parser.add_argument("--output_dir", default="benchmark_store", metavar="FOLDER",
                        help=f"gets {RESULTS_FILE} and the stores, in place of those of an earlier run "
                             "[benchmark_store]")
    cli.add_device(parser)
    cli.add_seed(parser, "seed of the demo world")
    return parser


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Fill, open and answer; print the figures and write them."""
    args = build_parser().parse_args(argv)
    require(positive(args, "num_documents", "eval_examples"))
    folder = Path(args.output_dir)
    if folder.exists() and any(folder.iterdir()) and not (folder / RESULTS_FILE).exists():
        raise ValueError(f"--output_dir {folder}: not empty, and no folder of this command; give another")
    hub.check_checkpoint(args.checkpoint)
    make_folder(folder)
    # First, so that a run that is stopped leaves a folder that the next one takes for its own.
    write_json(folder / RESULTS_FILE, {})

    # Only now, so that --help and mistakes need not wait for torch.
    from scaledown import ScaleDownModel
    from scaledown.training.devices import resolve_device

    cli.tell(f"loading {args.checkpoint} ...")
    model = ScaleDownModel.from_pretrained(args.checkpoint, device=resolve_device(args.device))
    if model.config.input_order != "document_first":
        model.config = model.processor.config = dataclasses.replace(model.config, input_order="document_first")
    records = list(synthetic_records(args.eval_examples, args.seed, "eval"))

    figures: dict[str, Any] = {"filling": filling(model, folder / FILLED_FOLDER, args.num_documents)}
    figures["opening"] = opening(model, folder / FILLED_FOLDER, args.num_documents)
    for name, values in figures.items():
        print(f"{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in values.items()))
    figures["answers"] = answering(model, folder, records)
    for name, values in figures["answers"].items():
        print(f"{name}: {values['same']} of {len(records)} answers ({values['different answers']} different ones) are "
              f"those of reading anew, {values['bytes']:,} bytes, compressed in {values['seconds']:.2f} s")

    run = run_information(args.seed, model.device, sys.argv, vars(args))
    write_json(folder / RESULTS_FILE, {"run": run, **figures})
    print(f"results: {folder / RESULTS_FILE}")
    return 0


def short_documents(number: int) -> Iterator[list[str]]:
    """Yield as many short documents, no two of them alike, some thousands at a time."""
    for start in range(0, number, DOCUMENTS_AT_ONCE):
        yield [f"House {each} is near the river." for each in range(start, min(start + DOCUMENTS_AT_ONCE, number))]


def filling(model: ScaleDownModel, folder: Path, num_documents: int) -> dict[str, float]:
    """Read and write all documents; return what that takes."""
    from scaledown.models.serving.disk.disk_store import DiskStore
    from scaledown.progress import Bar

    shutil.rmtree(folder, ignore_errors=True)
    store, start = DiskStore(folder), time.perf_counter()
    with Bar(total=num_documents, desc="filling", unit="document") as bar:
        for texts in short_documents(num_documents):
            model.read_documents(texts, store, batch_size=256)
            bar.update(len(texts))
    seconds = time.perf_counter() - start
    store.close()
    return {"seconds": seconds, "documents a second": num_documents / seconds}


def opening(model: ScaleDownModel, folder: Path, num_documents: int) -> dict[str, float]:
    """Open the store, and answer from its last documents as from documents that are read anew.

    Raises:
        ValueError: if the two answers differ.
    """
    from scaledown.models.serving.disk.disk_store import DiskStore

    texts = [f"House {number} is near the river." for number in range(num_documents)][-5:]
    question = "What is near the river?"
    # The count comes last: it takes time that grows with the store.
    start = time.perf_counter()
    store = DiskStore(folder)
    opened = time.perf_counter()
    memory = model.compress(question, texts, store=store)
    compressed = time.perf_counter()
    counted = len(store)

    found = model.answer(question, memory=memory, max_new_tokens=16)
    anew = model.answer(question, texts, max_new_tokens=16)
    if found != anew or counted != num_documents:
        raise ValueError(f"{folder}: {counted:,} documents answer {found!r}; {num_documents:,} read anew {anew!r}")
    return {"seconds": opened - start, "seconds of the first question": compressed - opened, "documents": counted,
            "bytes": store.num_bytes}


def answering(model: ScaleDownModel, folder: Path, records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Answer all questions from each store; return how many answers are those of reading anew, sizes and times."""
    from scaledown.models.serving.disk.disk_store import NUMBER_FORMATS, DiskStore

    texts = list(itertools.chain.from_iterable(record.documents for record in records))
    stores: dict[str, Store | None] = {ANEW: None, IN_MEMORY: model.read_documents(texts)}
    for name in NUMBER_FORMATS:
        shutil.rmtree(folder / name, ignore_errors=True)
        store = DiskStore(folder / name, number_format=name)
        model.read_documents(texts, store)
        store.close()
        # Opened again, so that nothing is left in memory.
        stores[name] = DiskStore(folder / name)

    questions, documents = [record.query for record in records], [list(record.documents) for record in records]
    results, anew = {}, []
    for name, store in stores.items():
        start = time.perf_counter()
        memory = model.compress(questions, documents, store=store)
        seconds = time.perf_counter() - start
        answers = model.answer(questions, memory=memory, max_new_tokens=16)
        anew = anew or answers
        same = sum(one == other for one, other in zip(answers, anew, strict=True))
        results[name] = {"same": same, "different answers": len(set(answers)), "seconds": seconds,
                         "bytes": 0 if store is None else store.num_bytes}
    return results


if __name__ == "__main__":
    sys.exit(main())
