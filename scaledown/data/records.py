"""Records: a question, its documents and its answer, read and written as JSON or JSONL.

A file is read and checked whole before any record is returned, and its faults are reported together, so that a file of
ten thousand records can be mended in one go.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaledown.data.answers import holds_answer, is_found_in_text, padded
from scaledown.data.storage.lines import Faults, is_text, json_values, kind_of, shown
from scaledown.files import disk_faults, finish_replacements, parse_json, whole_file, whole_files
from scaledown.prompt import titled


@dataclass(frozen=True)
class Record:
    """A question, the documents to answer it from, and the answer.

    ``answer`` is the text that the generator is trained on (a teacher's or the gold one); ``answers`` are the gold
    aliases that the metrics compare with. ``reranking_scores`` (raw logits of a cross-encoder), ``document_ids`` and
    ``titles`` have one entry a document, or are None.
    """

    id: str
    query: str
    documents: tuple[str, ...]
    answer: str
    answers: tuple[str, ...] = ()
    reranking_scores: tuple[float, ...] | None = None
    document_ids: tuple[str, ...] | None = None
    titles: tuple[str, ...] | None = None

    @property
    def references(self) -> tuple[str, ...]:
        """The texts that a prediction is compared with: the gold aliases, or the answer if there are none."""
        return self.answers or (self.answer,)

    @property
    def stated_answers(self) -> tuple[str, ...]:
        """For each document, the first of the answer and its aliases that it states word for word, or ""."""
        padded_answers = {answer: padded(answer) for answer in (self.answer, *self.answers) if is_found_in_text(answer)}

        stated = []
        for document in self.documents:
            text = padded(document)
            stated.append(next((answer for answer, words in padded_answers.items() if holds_answer(text, [words])), ""))
        return tuple(stated)

    @property
    def documents_with_titles(self) -> list[str | dict[str, str]]:
        """The documents as models take them: one that begins with its title as title and text, others as texts.

        So each passage of a long document can have the title in front.
        """
        documents: list[str | dict[str, str]] = []
        for document, title in zip(self.documents, self.titles or [""] * len(self.documents), strict=True):
            text = document.removeprefix(f"{titled(title, '')} ")
            # Put together again, it must be the same text.
            begins_with_title = title and titled(title, text) == document
            documents.append({"title": title, "text": text} if begins_with_title else document)
        return documents

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a JSON object, without optional fields that are empty."""
        values = {}
        for name in KNOWN:
            value = getattr(self, name)
            if name in ("id", *REQUIRED) or value not in (None, ()):
                values[name] = list(value) if isinstance(value, tuple) else value  # JSON has lists
        return values


REQUIRED = ("query", "documents", "answer")
PER_DOCUMENT = ("reranking_scores", "document_ids", "titles")
KNOWN = tuple(field.name for field in dataclasses.fields(Record))


def eval_path(path: Path | str) -> Path:
    """Return the path of the evaluation half of the records at ``path``: ``X_eval.json`` beside ``X.json``.

    If a replacement of both was interrupted, it is finished first, so that the file there belongs to ``path``.

    Raises:
        ValueError: if the path names no file.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise ValueError(f"{path}: expected the name of a file of records, such as data.json")
    finish_replacements(path.parent)
    return path.with_name(f"{path.stem}_eval{path.suffix}")


def read_records(path: Path | str) -> list[Record]:
    """Read the records of a JSON list or a JSONL file.

    A record without an ``id`` is given its number in the file.

    Raises:
        ValueError: if the file is missing, unreadable or empty, or any record in it has a fault. All faults are
            named together, each by record or line and by field; the first 20 are shown and the rest counted.
    """
    path = Path(path)
    finish_replacements(path.parent)
    faults = Faults(path, "records")
    entries = _parse(path, _read_text(path), faults)
    if not entries and not faults.number:
        raise ValueError(f"{path}: no records in it; expected a JSON list or JSONL of {{query, documents, answer}}")

    # ``place`` names a record in messages ("record 3", "line 7"); ``place_of`` has that of each id.
    records: list[Record] = []
    place_of: dict[str, str] = {}
    for number, (place, values) in enumerate(entries, start=1):
        record_faults = list(_record_faults(values))
        for fault in record_faults:
            faults.add(place, fault)
        if record_faults:
            continue

        record = _build(values, number)
        if record.id in place_of:
            faults.add(place, f"id {record.id!r} is taken by {place_of[record.id]}; expected one of its own")
        place_of.setdefault(record.id, place)
        records.append(record)

    faults.raise_any()
    return records


def write_records(path: Path | str, records: Iterable[Record]) -> None:
    """Write ``records`` to ``path``: JSONL if it ends in ``.jsonl``, else a JSON list, one record a line.

    They are written as they come, to a temporary file that is renamed at the end, so that no reader ever sees half
    a file, and only one of them needs to be in memory.

    Raises:
        ValueError: if the folder cannot be written to, or a record could not be read again: a field of it is no text,
            or holds half a surrogate pair.
    """
    path = Path(path)
    with whole_file(path) as draft:
        _write_draft(draft, path, records)


def write_records_together(files: Mapping[Path, Iterable[Record]]) -> None:
    """Write files of records that belong together, in one folder: all of them replace the old ones, or none does.

    Raises:
        ValueError: as :func:`write_records`.
    """
    with whole_files(list(files)) as drafts:
        for draft, (path, records) in zip(drafts, files.items(), strict=True):
            _write_draft(draft, path, records)


def _write_draft(draft: Path, path: Path, records: Iterable[Record]) -> None:
    """Write ``records`` to ``draft``, which is to become ``path``; messages name ``path``."""
    start, separator, end = ("", "\n", "\n") if path.suffix == ".jsonl" else ("[\n", ",\n", "\n]\n")
    with disk_faults(path), draft.open("w", encoding="utf-8") as file:
        file.write(start)
        for number, record in enumerate(records, start=1):
            # The same checks as in reading: a teacher's answer, for one, may be anything.
            values = record.to_dict()
            faults = Faults(path, "records")
            for fault in _record_faults(values):
                faults.add(f"record {number} (id {record.id!r})", fault)
            faults.raise_any()

            if number > 1:
                file.write(separator)
            file.write(json.dumps(values, ensure_ascii=False))
        file.write(end)


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; expected a JSON list or JSONL of records") from None
    except OSError as fault:
        raise ValueError(f"{path}: cannot be read ({fault.strerror}); expected a JSON or JSONL file") from None

    # utf-8-sig: editors on Windows put a byte order mark in front.
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        # A line is easier to find than a byte.
        line = content[: fault.start].count(b"\n") + 1
        raise ValueError(f"{path}: line {line} is not UTF-8 (byte {content[fault.start]:#04x})") from None


def _parse(path: Path, text: str, faults: Faults) -> list[tuple[str, Any]]:
    """Return the JSON values in ``text``, each with its place; lines that hold none are added to ``faults``."""
    # The content decides: a .jsonl file may hold a list, and a .json file JSON lines.
    if text.strip() and (path.suffix != ".jsonl" or text.lstrip().startswith("[")):
        try:
            values = parse_json(text)
        except json.JSONDecodeError as fault:
            if fault.msg != "Extra data":
                raise ValueError(f"{path}: not valid JSON (line {fault.lineno}: {fault.msg})") from None
        else:
            values = values if isinstance(values, list) else [values]
            return [(f"record {number}", value) for number, value in enumerate(values, start=1)]

    # "Extra data" behind a first value: JSON lines. One damaged line does not hide the others.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return [(f"line {number}", value) for number, value in json_values(lines, faults)]


def _record_faults(values: Any) -> Iterator[str]:
    """Yield everything that is wrong with one record."""
    if not isinstance(values, dict):
        yield f"expected an object with {', '.join(REQUIRED)}, got {kind_of(values)}"
        return

    for name in REQUIRED:
        if values.get(name) is None:
            yield f"{name} is missing; expected {_EXPECTED[name][0]}"

    documents = values.get("documents")
    for name, value in values.items():
        if name not in KNOWN:
            yield f"{name!r} is not a field of a record; expected one of {', '.join(KNOWN)}"
        elif value is None:
            continue  # as if it were missing
        elif got := _wrong(name, value):
            yield f"{name} must be {_EXPECTED[name][0]}; got {got}"
        elif name in PER_DOCUMENT and isinstance(documents, list) and len(value) != len(documents):
            yield f"{name} has {len(value)} entries; expected {len(documents)}, one a document"


def _is_filled(value: Any) -> bool:
    return is_text(value) and bool(value.strip())


def _is_score(value: Any) -> bool:
    """Return whether ``value`` is a number that a float can hold."""
    # JSON can hold an integer of 400 digits, which is finite, but fits no float. NaN compares false.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "id": ("text that is not blank", _is_filled),
    "query": ("text that is not blank", _is_filled),
    "documents": ("a list of texts, none blank", _is_filled),
    "answer": ("text that is not blank", _is_filled),
    "answers": ("a list of texts, none blank", _is_filled),
    "reranking_scores": ("a list of finite numbers", _is_score),
    "document_ids": ("a list of texts, none blank", _is_filled),
    "titles": ("a list of texts", is_text),
}


def _wrong(name: str, value: Any) -> str | None:
    """Return a description of the value that is not what the field expects, or None if all is well."""
    expected, is_right = _EXPECTED[name]

    if not expected.startswith("a list"):
        return None if is_right(value) else shown(value)
    if not isinstance(value, list):
        return shown(value)

    # Of a list, the first wrong entry.
    for number, entry in enumerate(value, start=1):
        if not is_right(entry):
            return f"{shown(entry)} at entry {number}"
    return None


def _build(values: dict[str, Any], number: int) -> Record:
    """Return a record from values without faults; ``number`` stands in for a missing id."""
    fields: dict[str, Any] = {"id": str(number)}
    for name, value in values.items():
        if value is not None:  # null counts as missing
            fields[name] = tuple(value) if isinstance(value, list) else value
    return Record(**fields)
