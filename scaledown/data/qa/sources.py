"""The sources of a QA dataset's questions: the Hub, or official files on disk.

The layout of files is recognised by their content. Whatever they are, they become rows and the layout that reads them.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from scaledown import hub
from scaledown.data.qa.layouts import DATASETS
from scaledown.data.qa.question import Layout
from scaledown.data.qa.reading import PlacedRows, Source, numbered, rows_without_faults, stream_rows
from scaledown.data.storage.lines import Faults, json_values, kind_of, text_lines
from scaledown.files import parse_json

SPLIT_NAMES = {"train": r"train", "validation": r"validation|valid|val|dev", "test": r"test"}
KILT_KEYS = {"input", "output"}
SOURCE_SUFFIXES = (".json", ".jsonl", ".jsonl.gz", ".parquet")


class Unfit(ValueError):
    """A file that holds no questions of the dataset; others of its folder may."""


def open_hub(dataset: str, split: str, seed: int) -> Source:
    """Stream one split of a dataset from the Hub, its files in an order drawn by ``seed``.

    Raises:
        ValueError: if the Hub cannot be reached, within seconds, or the rows are not in the known layout.
    """
    name = DATASETS[dataset].hub_name
    hub.locate(name, kind="dataset")
    place = f"{name} ({split}) on the Hub"
    rows = numbered(stream_rows(place, seed, path=name, name=DATASETS[dataset].hub_config, split=split))
    return _of_rows(dataset, rows, Faults(place, "rows"), to_the_end=False)


def open_local(dataset: str, split: str, path: Path, rng: random.Random) -> Source:
    """Open a file, or a folder's files of one split (all but test files, if none is named for the split).

    Files of the folder that hold no questions of the dataset are named in the source's ``left_out``.

    Raises:
        ValueError: if there is no such file, its layout is not one of the dataset's, or it has faults, which are named
            together.
    """
    if path.is_file():
        return _open([path], dataset)
    if not path.is_dir():
        raise ValueError(f"--source {path}: no such file or folder")

    # TriviaQA's evidence is text that its questions point to, and no questions itself.
    files = [file for file in sorted(path.rglob("*"))
             if file.name.endswith(SOURCE_SUFFIXES) and "evidence" not in file.relative_to(path).parts]
    of_split = [file for file in files if _is_named(file.relative_to(path), split)]
    rest = [file for file in files if file not in of_split and not _is_named(file.relative_to(path), "test")]

    # Files without a split in their names are the fallback, and the description then says so.
    left_out: list[str] = []
    for group, note in ((of_split, ""), (rest, f" (no file of split {split} could be used)")):
        sources = _open_all(group, dataset, left_out)
        if sources:
            return _merge(sources, note, rng, left_out)
    raise ValueError("\n  ".join([f"--source {path}: nothing in it is a {split} file of --dataset {dataset}; "
                                  f"expected {_expected(dataset)}", *left_out]))


def _is_named(path: Path, split: str) -> bool:
    """Return whether a file or one of its folders is named after the split: ``dev-v1.1.json``, ``train/0.parquet``."""
    return re.search(rf"(?<![a-z])(?:{SPLIT_NAMES[split]})(?![a-z])", path.as_posix().lower()) is not None


def _open_all(files: list[Path], dataset: str, left_out: list[str]) -> list[Source]:
    """Open what can be opened, parquet files together; the reasons why others cannot go to ``left_out``."""
    parquet = [file for file in files if file.suffix == ".parquet"]
    groups = [parquet] if parquet else []
    groups += [[file] for file in files if file not in parquet]

    sources = []
    for group in groups:
        try:
            sources.append(_open(group, dataset))
        except Unfit as reason:
            left_out.append(str(reason))
    return sources


def _merge(sources: list[Source], note: str, rng: random.Random, left_out: list[str]) -> Source:
    """Return one source of all files that share the first one's layout."""
    layout = sources[0].layout
    same_layout = [source for source in sources if source.layout is layout]
    other_layouts = [f"{source.description}: its layout is {source.layout.name}, not that of {sources[0].description}"
                     for source in sources if source.layout is not layout]

    # Lists become one list, which can be shuffled as a whole; streams are read file by file, in an order drawn here.
    rng.shuffle(same_layout)
    rows: Iterable[Any] = itertools.chain.from_iterable(source.rows for source in same_layout)
    if all(isinstance(source.rows, list) for source in same_layout):
        rows = list(rows)
    description = ", ".join(sorted(source.description for source in same_layout)) + note
    return Source(layout, rows, description, (*left_out, *other_layouts))


def _open(files: list[Path], dataset: str) -> Source:
    """Open one file, or several parquet files as one.

    Raises:
        Unfit: if it holds no questions of the dataset.
        ValueError: if it cannot be read, or has faults.
    """
    path = files[0]
    if path.suffix == ".parquet":
        place = str(path) if len(files) == 1 else f"{path.parent} ({len(files)} parquet files)"
        rows = stream_rows(place, 0, path="parquet", data_files=[str(file) for file in files], split="train")
        return _of_rows(dataset, numbered(rows), Faults(place, "rows"), to_the_end=True)

    # A .json may hold JSONL: then its content is None.
    content = _json_content(path) if path.suffix == ".json" else None
    if content is None:
        faults = Faults(path, "lines")
        rows = ((f"line {number}", row) for number, row in json_values(text_lines(path), faults))
        return _of_rows(dataset, rows, faults, to_the_end=True)

    # One object is a whole file, or a single question.
    values = content if isinstance(content, list) else [content]
    rows = ((f"record {number}", row) for number, row in enumerate(values, start=1))
    source = _of_rows(dataset, rows, Faults(path, "records"), to_the_end=True)
    return replace(source, rows=list(source.rows))  # in memory already, so checked at once and shuffled as a whole


def _json_content(path: Path) -> dict[str, Any] | list[Any] | None:
    """Return the object or the list in a JSON file, or None if it holds several values, one a line.

    Raises:
        ValueError: if the file cannot be read, or holds something else.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as fault:
        # More text after a whole value: JSONL under the name of JSON, to be read line by line.
        if fault.msg == "Extra data":
            return None
        raise ValueError(f"{path}: not valid JSON (line {fault.lineno}: {fault.msg})") from None
    except UnicodeDecodeError as fault:
        raise ValueError(f"{path}: not UTF-8 ({fault})") from None
    except OSError as fault:
        raise ValueError(f"{path}: cannot be read ({fault.strerror})") from None

    if not isinstance(content, dict | list):
        raise ValueError(f"{path}: expected an object or a list of objects, got {kind_of(content)}")
    return content


def _of_rows(dataset: str, rows: PlacedRows, faults: Faults, to_the_end: bool) -> Source:
    """Return the questions of rows, whose layout the first one shows; each is checked as it is read.

    An official file that is one object is a single row.
    """
    rows, place = iter(rows), str(faults.path)
    head = next(rows, None)
    if head is None:
        faults.raise_any()  # there are lines, but none is valid
        raise Unfit(f"{place}: there is nothing in it")

    layout = _layout_of(dataset, head[1], place)
    faults.what += f", read as {layout.name}"
    if layout.is_whole_file:
        return _of_whole_file(layout, head[1], rows, faults)
    return _source(layout, rows_without_faults(itertools.chain([head], rows), layout.check, faults, to_the_end), place)


def _of_whole_file(layout: Layout, content: Any, further_rows: PlacedRows, faults: Faults) -> Source:
    """Return the questions of a file that is one object, with nothing behind it."""
    place = str(faults.path)
    if next(iter(further_rows), None) is not None:
        raise ValueError(f"{place}: several whole files in one; give each as a file of its own ({layout.name})")

    for field, fault in layout.check(content, ""):
        faults.add(field, fault)
    faults.raise_any()
    return _source(layout, content, place)


def _source(layout: Layout, content: Any, place: str) -> Source:
    try:
        return Source(layout, layout.rows(content, place), place)
    except ValueError as reason:
        raise Unfit(f"{place}: {reason}") from None


def _layout_of(dataset: str, head: Any, place: str) -> Layout:
    """Return the layout of a file that is the object ``head``, or that has it as its first row.

    Raises:
        Unfit: if it is unknown, or one of another dataset.
    """
    if isinstance(head, dict) and head.keys() >= KILT_KEYS:
        raise Unfit(f"{place}: KILT's questions come without passages; retrieve them: python -m "
                    f"scaledown.data.prepare_dataset --queries_file {place} --corpus_path kilt_knowledgesource.json")

    # All datasets are tried, so that a file of another one gets its right --dataset told.
    for known_dataset in DATASETS.values():
        for layout in known_dataset.layouts:
            if not isinstance(head, dict) or not layout.recognises(head):
                continue
            if known_dataset.name != dataset:
                raise Unfit(f"{place}: this is {layout.name}; use --dataset {known_dataset.name}")
            return layout

    keys = f"keys {', '.join(list(head)[:12])}" if isinstance(head, dict) else "its first row is no object"
    raise Unfit(f"{place}: not a known layout ({keys}); expected {_expected(dataset)}")


def _expected(dataset: str) -> str:
    return " or ".join(layout.name for layout in DATASETS[dataset].layouts)
