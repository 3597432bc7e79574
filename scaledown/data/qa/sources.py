"""Where a QA dataset's questions come from: the Hub, or official files on disk whose layout is seen from their content.

Whatever the files, they become rows, and the layout that reads them.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from scaledown import hub, json_text
from scaledown.data.qa import hotpotqa, natural_questions, squad, triviaqa
from scaledown.data.qa.reading import Source, reading

LAYOUTS = (squad.OFFICIAL, squad.ROWS, hotpotqa.ROWS, triviaqa.OFFICIAL, triviaqa.ROWS, natural_questions.PAGES,
           natural_questions.ROWS, natural_questions.QED, natural_questions.OPEN)
HUB_DATASETS = {
    "squad": ("rajpurkar/squad", None),
    "natural_questions": ("google-research-datasets/natural_questions", None),
    "trivia_qa": ("mandarjoshi/trivia_qa", "rc"),
    "hotpot_qa": ("hotpotqa/hotpot_qa", "distractor"),
}
SPLIT_NAMES = {"train": r"train", "validation": r"validation|valid|val|dev", "test": r"test"}
KILT_KEYS = {"input", "output"}
SUFFIXES = (".json", ".jsonl", ".jsonl.gz", ".parquet")


def open_hub(dataset: str, split: str, seed: int) -> Source:
    """Stream one split of a dataset from the Hub, its files in an order drawn by ``seed``.

    Raises:
        ValueError: within seconds where the Hub cannot be reached, or where the rows are not in the known layout.
    """
    name, config = HUB_DATASETS[dataset]
    hub.locate(name, kind="dataset")
    place = f"{name} ({split}) on the Hub"
    return _recognise(dataset, stream_rows(place, seed, path=name, name=config, split=split), place)


def open_local(dataset: str, split: str, path: Path, rng: random.Random) -> Source:
    """Open a file, or a folder's files of one split (all but test files, where none is named for the split).

    Raises:
        ValueError: where there is no such file, or its layout is not one of the dataset's.
    """
    if path.is_file():
        return _open([path], dataset)
    if not path.is_dir():
        raise ValueError(f"--source {path}: no such file or folder")
    files = [file for file in sorted(path.rglob("*"))
             if file.name.endswith(SUFFIXES) and "evidence" not in file.relative_to(path).parts]
    named = [file for file in files if _is_named(file.relative_to(path), split)]
    rest = [file for file in files if file not in named and not _is_named(file.relative_to(path), "test")]
    reasons: list[str] = []
    for chosen, note in ((named, ""), (rest, f" (no file of split {split} could be used)")):
        if sources := _open_all(chosen, dataset, reasons):
            return _merge(sources, note, rng)
    raise ValueError("\n  ".join([f"--source {path}: nothing in it is a {split} file of --dataset {dataset}; "
                                  f"expected {_expected(dataset)}", *reasons]))


def _is_named(path: Path, split: str) -> bool:
    return re.search(rf"(?<![a-z])(?:{SPLIT_NAMES[split]})(?![a-z])", path.as_posix().lower()) is not None


def _open_all(files: list[Path], dataset: str, reasons: list[str]) -> list[Source]:
    """Open what can be opened, parquet files together; why others cannot goes to ``reasons``."""
    parquet = [file for file in files if file.suffix == ".parquet"]
    sources = []
    for group in [*([parquet] if parquet else []), *([file] for file in files if file not in parquet)]:
        try:
            sources.append(_open(group, dataset))
        except ValueError as fault:
            reasons.append(str(fault))
    return sources


def _merge(sources: list[Source], note: str, rng: random.Random) -> Source:
    """One source of all files that share the first one's layout."""
    layout = sources[0].layout
    same = [source for source in sources if source.layout is layout]
    rng.shuffle(same)
    rows: Iterable[Any] = itertools.chain.from_iterable(source.rows for source in same)
    if all(isinstance(source.rows, list) for source in same):
        rows = list(rows)
    return Source(layout, rows, ", ".join(sorted(source.description for source in same)) + note)


def _open(files: list[Path], dataset: str) -> Source:
    place = str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} parquet files)"
    return _recognise(dataset, _content(files, place), place)


def _recognise(dataset: str, content: Any, place: str) -> Source:
    """Find the layout of an object or of rows by looking at the object, or at the first row."""
    head = content
    if not isinstance(content, dict):
        stream = iter(content)
        if (head := next(stream, None)) is None:
            raise ValueError(f"{place}: there is nothing in it")
        content = content if isinstance(content, list) else itertools.chain([head], stream)
    if isinstance(head, dict) and head.keys() >= KILT_KEYS:
        raise ValueError(f"{place}: KILT's questions come without passages; retrieve them: python -m "
                         f"scaledown.data.prepare_dataset --queries_file {place} --corpus_path "
                         "kilt_knowledgesource.json")
    fitting = [layout for layout in LAYOUTS if isinstance(head, dict) and layout.recognises(head)]
    if not fitting:
        keys = f"keys {', '.join(list(head)[:12])}" if isinstance(head, dict) else "its first row is no object"
        raise ValueError(f"{place}: not a layout that is known ({keys}); expected {_expected(dataset)}")
    layout = fitting[0]
    if layout.dataset != dataset:
        raise ValueError(f"{place}: this is {layout.name}; use --dataset {layout.dataset}")
    with reading(place, layout):
        return Source(layout, layout.rows(content, place), place)


def _expected(dataset: str) -> str:
    return " or ".join(layout.name for layout in LAYOUTS if layout.dataset == dataset)


def _content(files: list[Path], place: str) -> Any:
    """The object or list of a JSON file, or a stream of the rows of JSONL or parquet files."""
    path = files[0]
    if path.suffix == ".parquet":
        return stream_rows(place, 0, path="parquet", data_files=[str(file) for file in files], split="train")
    if path.suffix == ".json":
        try:
            return json_text.parse(path.read_text(encoding="utf-8-sig"))
        except json.JSONDecodeError as fault:
            if fault.msg != "Extra data":
                raise ValueError(f"{path}: not valid JSON (line {fault.lineno}: {fault.msg})") from None
        except UnicodeDecodeError as fault:
            raise ValueError(f"{path}: not UTF-8 ({fault})") from None
    return _lines(path)


def _lines(path: Path) -> Iterator[Any]:
    opener = gzip.open if path.name.endswith(".gz") else open
    number = 1
    with opener(path, "rt", encoding="utf-8-sig") as file:
        try:
            for line in file:
                if line.strip():
                    yield json_text.parse(line)
                number += 1
        except json.JSONDecodeError as fault:
            raise ValueError(f"{path}: line {number} is not valid JSON ({fault.msg})") from None
        except (UnicodeDecodeError, EOFError, OSError) as fault:
            raise ValueError(f"{path}: cannot be read after line {number - 1} ({fault})") from None


def stream_rows(place: str, seed: int, **options: Any) -> Iterator[Any]:
    """The rows of what ``datasets`` loads, its files in an order drawn by ``seed``."""
    import datasets
    from huggingface_hub import errors

    try:
        stream = datasets.load_dataset(streaming=True, **options)
        # Shard by shard: IterableDataset.shuffle reads many at a time, far more of the network than is needed here.
        for index in random.Random(seed).sample(range(stream.num_shards), stream.num_shards):
            yield from stream.shard(stream.num_shards, index)
    except (OSError, ValueError, errors.HTTPError) as fault:
        raise ValueError(f"{place}: cannot be read ({fault})") from fault
