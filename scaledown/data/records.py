"""Records: one question with its documents and its answer. Reading and writing them as JSON or JSONL.

A file is read whole before a single record is handed out, and all its faults are reported together: whoever made a
file of ten thousand records learns in one go what to mend.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaledown.data.answers import is_found_in_text, padded
from scaledown.data.storage.lines import SHOWN_FAULTS
from scaledown.data.storage.values import is_text, kind, shown
from scaledown.files import finish_replacements, parse_json, whole_file, whole_files


@dataclass(frozen=True)
class Record:
    """A question, the documents to answer it from, and the answer.

    ``answer`` is what the generator learns to say (a teacher's or the gold one); ``answers`` are the gold aliases that
    the metrics compare with. ``reranking_scores`` (raw logits of a cross-encoder), ``document_ids`` and ``titles``
    have one entry a document, or are None.
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
        """What a prediction is compared with: the gold aliases, or the answer where there are none."""
        return self.answers or (self.answer,)

    @property
    def stated_answers(self) -> tuple[str, ...]:
        """For each document the first of the answer and its aliases that it states in so many words, or ""."""
        wanted = {answer: padded(answer) for answer in (self.answer, *self.answers) if is_found_in_text(answer)}
        texts = map(padded, self.documents)
        return tuple(next((answer for answer, words in wanted.items() if words in text), "") for text in texts)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON has it: optional fields that say nothing are left out."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
                if name in ("id", *REQUIRED) or value not in (None, ())}


REQUIRED = ("query", "documents", "answer")
PER_DOCUMENT = ("reranking_scores", "document_ids", "titles")
KNOWN = tuple(field.name for field in dataclasses.fields(Record))


def eval_path(path: Path | str) -> Path:
    """Return where the evaluation half of the records at ``path`` lies: ``X_eval.json`` beside ``X.json``.

    If a replacement of both was cut off, it is finished first, so that what lies there belongs to ``path``.

    Raises:
        ValueError: for a path that names no file.
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
        ValueError: where the file is missing, unreadable or empty, or any record in it has a fault. All faults are
            named together, each by record or line and by field; the first 20 are shown and the rest counted.
    """
    path = Path(path)
    finish_replacements(path.parent)
    found, faults = _parse(path, _read_text(path))
    if not found and not faults:
        raise ValueError(f"{path}: no records in it; expected a JSON list or JSONL of {{query, documents, answer}}")
    records: list[Record] = []
    seen: dict[str, str] = {}
    for number, (place, values) in enumerate(found, start=1):
        if record_faults := list(_faults(values)):
            faults += [(place, fault) for fault in record_faults]
            continue
        record = _build(values, number)
        if record.id in seen:
            faults.append((place, f"id {record.id!r} is taken by {seen[record.id]}; expected one of its own"))
        seen.setdefault(record.id, place)
        records.append(record)
    if faults:
        raise ValueError(_report(path, faults))
    return records


def write_records(path: Path | str, records: Iterable[Record]) -> None:
    """Write ``records`` to ``path``: JSONL where it ends in ``.jsonl``, else a JSON list, one record a line.

    They are written as they come, to a temporary file that is renamed at the end, so that no reader ever sees half
    a file, and no more than one of them needs to be in memory.

    Raises:
        ValueError: if the folder cannot be written to, or a record could not be read again: a field of it is no text,
            or holds half a surrogate pair.
    """
    path = Path(path)
    before, between, after = ("", "\n", "\n") if path.suffix == ".jsonl" else ("[\n", ",\n", "\n]\n")
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.write(before)
        for number, record in enumerate(records, start=1):
            values = record.to_dict()
            if faults := list(_faults(values)):
                raise ValueError(_report(path, [(f"record {number} (id {record.id!r})", fault) for fault in faults]))
            file.write(between * (number > 1) + json.dumps(values, ensure_ascii=False))
        file.write(after)


def write_records_together(files: Mapping[Path, Iterable[Record]]) -> None:
    """Write files of records that belong together, in one folder: all of them take the places of old ones, or none.

    Raises:
        ValueError: as :func:`write_records`.
    """
    with whole_files(list(files)) as drafts:
        for draft, records in zip(drafts, files.values(), strict=True):
            write_records(draft, records)


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; expected a JSON list or JSONL of records") from None
    except OSError as fault:
        raise ValueError(f"{path}: cannot be read ({fault.strerror}); expected a JSON or JSONL file") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content[: fault.start].count(b"\n") + 1
        raise ValueError(f"{path}: line {line} is not UTF-8 (byte {content[fault.start]:#04x})") from None


def _parse(path: Path, text: str) -> tuple[list[tuple[str, Any]], list[tuple[str, str]]]:
    """The values in ``text`` and the lines that hold none, each with its place."""
    if text.strip() and (path.suffix != ".jsonl" or text.lstrip().startswith("[")):
        try:
            values = parse_json(text)
        except json.JSONDecodeError as fault:
            if fault.msg != "Extra data":
                raise ValueError(f"{path}: not valid JSON (line {fault.lineno}: {fault.msg})") from None
        else:
            values = values if isinstance(values, list) else [values]
            return [(f"record {number}", value) for number, value in enumerate(values, start=1)], []
    found, faults = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append((f"line {number}", parse_json(line)))
        except json.JSONDecodeError as fault:
            faults.append((f"line {number}", f"not valid JSON (column {fault.colno}: {fault.msg})"))
    return found, faults


def _faults(values: Any) -> Iterator[str]:
    """Everything that is wrong with one record."""
    if not isinstance(values, dict):
        yield f"expected an object with {', '.join(REQUIRED)}, got {kind(values)}"
        return
    for name in REQUIRED:
        if values.get(name) is None:
            yield f"{name} is missing; expected {_EXPECTED[name][0]}"
    for name, value in values.items():
        if name not in KNOWN:
            yield f"{name!r} is not a field of a record; expected one of {', '.join(KNOWN)}"
        elif value is not None and (got := _wrong(name, value)):
            yield f"{name} must be {_EXPECTED[name][0]}; got {got}"
        elif name in PER_DOCUMENT and isinstance(values.get("documents"), list) and value is not None:
            if len(value) != len(values["documents"]):
                yield f"{name} has {len(value)} entries; expected {len(values['documents'])}, one a document"


def _is_filled(value: Any) -> bool:
    return is_text(value) and bool(value.strip())


def _is_score(value: Any) -> bool:
    # An integer of 400 digits is finite, but no float holds it; nan compares false.
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
    """What stands where something else was expected, or None where all is well."""
    expected, is_right = _EXPECTED[name]
    if not expected.startswith("a list"):
        return None if is_right(value) else shown(value)
    if not isinstance(value, list):
        return shown(value)
    wrong = next((place for place, entry in enumerate(value) if not is_right(entry)), None)
    return None if wrong is None else f"{shown(value[wrong])} at entry {wrong + 1}"


def _build(values: dict[str, Any], number: int) -> Record:
    given = {name: tuple(value) if isinstance(value, list) else value
             for name, value in values.items() if value is not None}
    return Record(**({"id": str(number)} | given))


def _report(path: Path, faults: list[tuple[str, str]]) -> str:
    lines = [f"  {place}: {fault}" for place, fault in faults[:SHOWN_FAULTS]]
    if len(faults) > SHOWN_FAULTS:
        lines.append(f"  and {len(faults) - SHOWN_FAULTS} more")
    return "\n".join([f"{path}: {len(faults)} fault{'s' * (len(faults) != 1)} in its records", *lines])
