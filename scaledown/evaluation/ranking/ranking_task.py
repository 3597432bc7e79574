"""What a ranking is measured on: queries, the candidates of each in the order given, and which of them are relevant.

From records, from a BEIR folder, or from a corpus, queries and qrels of one's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from scaledown.data.answers import holds_answer, is_found_in_text, padded
from scaledown.data.pipeline.retrieval import BM25
from scaledown.data.pipeline.trec import Qrels
from scaledown.data.records import Record
from scaledown.data.storage.lines import Faults, json_lines, text_lines
from scaledown.data.storage.tables import Heading, heading_of, table_rows
from scaledown.data.storage.values import is_text, shown

Texts = dict[str, str]

ID_NAMES = ("id", "_id", "pid", "qid", "docid", "doc_id", "docno", "passage_id", "query_id", "query-id", "corpus-id",
            "question_id")
TEXT_NAMES = ("text", "contents", "passage", "body", "query", "question")
TITLE_NAMES = ("title",)


@dataclass(frozen=True)
class RankingTask:
    """Queries by id; the candidates of each, id to text, in the order given; grades by query and document."""

    queries: Texts
    candidates: Mapping[str, Texts]
    qrels: Qrels

    @property
    def num_candidates(self) -> float:
        """Mean candidates of a query."""
        return sum(map(len, self.candidates.values())) / len(self.queries)


@dataclass(frozen=True)
class Collection:
    """A corpus with its queries and what is relevant to them, before anything was retrieved."""

    queries: Texts
    corpus: Texts
    qrels: Qrels

    def task(self, candidates: Mapping[str, Sequence[str]]) -> RankingTask:
        """The task of ranking the given document ids.

        Raises:
            ValueError: where an id is in no document of the corpus, or no query is left.
        """
        unknown = [f"{document} (query {query})" for query in self.queries for document in candidates.get(query, ())
                   if document not in self.corpus]
        if unknown:
            raise ValueError(f"{len(unknown)} candidates are not in the corpus, such as {', '.join(unknown[:3])}; "
                             "expected the corpus that they were found in")
        return RankingTask(self.queries, {query: {each: self.corpus[each] for each in candidates.get(query, ())}
                                          for query in self.queries}, self.qrels)

    def judged(self) -> RankingTask:
        """Rank the documents that were judged, in the order of the qrels: for pools such as NovelEval's."""
        return self.task({query: list(grades) for query, grades in self.qrels.items()})

    def found_by_bm25(self, num_candidates: int) -> RankingTask:
        """Rank the first ``num_candidates`` by BM25."""
        names = list(self.corpus)
        index = BM25(list(self.corpus.values()))
        bar = tqdm(self.queries.items(), desc="searching, BM25", unit="query", leave=False)
        return self.task({name: [names[hit.index] for hit in index.search([query], num_candidates)[0]]
                          for name, query in bar})


def of_records(records: Sequence[Record], qrels: Qrels | None = None) -> RankingTask:
    """Rank each record's documents; without ``qrels`` those that hold a gold answer count as relevant.

    Raises:
        ValueError: where a record names two documents alike, or the qrels know none of the records.
    """
    qrels = _holding_answers(records) if qrels is None else qrels
    if doubled := [record.id for record in records if len(set(document_ids(record))) < len(record.documents)]:
        raise ValueError(f"{len(doubled)} records have two documents of one id in document_ids, such as "
                         f"{', '.join(doubled[:3])}; expected one id each")
    kept = [record for record in records if record.id in qrels]
    if not kept:
        raise ValueError(f"the qrels judge none of the {len(records)} records; expected their ids as queries, such as "
                         f"{records[0].id!r}")
    return RankingTask({record.id: record.query for record in kept},
                       {record.id: dict(zip(document_ids(record), record.documents, strict=True)) for record in kept},
                       {record.id: qrels[record.id] for record in kept})


def _holding_answers(records: Sequence[Record]) -> Qrels:
    """Grade 1 for each document that holds a gold answer, as whole words."""
    found: Qrels = {}
    for record in records:
        answers = [padded(answer) for answer in record.references if is_found_in_text(answer)]
        found[record.id] = {name: int(holds_answer(padded(document), answers))
                            for name, document in zip(document_ids(record), record.documents, strict=True)}
    return found


def document_ids(record: Record) -> tuple[str, ...]:
    """A record's document ids; places from 0 on where it has none."""
    return record.document_ids or tuple(map(str, range(len(record.documents))))


def collection(queries: Texts, corpus: Texts, qrels: Qrels) -> Collection:
    """Only the queries that were judged count.

    Raises:
        ValueError: where a judged query has no text.
    """
    if missing := [query for query in qrels if query not in queries]:
        raise ValueError(f"{len(missing)} queries of the qrels have no text, such as {', '.join(missing[:3])}; "
                         "expected the queries that the qrels judge")
    return Collection({query: queries[query] for query in qrels}, corpus, qrels)


def read_texts(path: Path) -> Texts:
    """Read texts by id: lines of ``id TAB text``, BEIR's JSONL of ``_id``, ``text`` and perhaps ``title``, or a table.

    A table is a TSV or CSV under a heading that names the columns, such as DPR's ``id TAB text TAB title``. A title
    stands before its text, with a full stop, as in passages.

    Raises:
        ValueError: if there is no such file, nothing in it, or lines that are malformed or repeat an id; all are
            named by their number, the first 20 shown.
    """
    faults, texts, line_of = Faults(path, "lines"), {}, {}
    entries = _of_json(path, faults) if path.suffix in (".jsonl", ".json") else _of_lines(path, faults)
    for number, name, text in entries:
        if name in texts:
            faults.add(f"line {number}", f"id {name!r} stands on line {line_of[name]} already")
        texts.setdefault(name, text)
        line_of.setdefault(name, number)
    faults.raise_any()
    if not texts:
        raise ValueError(f"{path}: nothing in it; expected one text a line")
    return texts


def _of_json(path: Path, faults: Faults) -> Iterator[tuple[int, str, str]]:
    for number, value in json_lines(path, faults):
        name, text, title = value.get("_id"), value.get("text"), value.get("title") or ""
        fields = {"_id": name, "text": text, "title": title}
        if wrong := [field for field in fields if not is_text(fields[field])]:
            for field in wrong:
                faults.add(f"line {number}", f"{field} must be text, got {shown(fields[field])}")
            continue
        yield number, name, _titled(title, text)


def _of_lines(path: Path, faults: Faults) -> Iterator[tuple[int, str, str]]:
    lines = text_lines(path)
    first = next(lines, None)
    if first is None:
        return
    lines = itertools.chain([first], lines)
    heading = heading_of(first[1], ID_NAMES, TEXT_NAMES, TITLE_NAMES)
    yield from _of_tabs(path, lines, faults) if heading is None else _of_table(path, lines, heading, faults)


def _of_table(path: Path, lines: Iterator[tuple[int, str]], heading: Heading,
              faults: Faults) -> Iterator[tuple[int, str, str]]:
    id_name, text_name, title_name = (next((name for name in names if name in heading.names), None)
                                      for names in (ID_NAMES, TEXT_NAMES, TITLE_NAMES))
    if id_name is None or text_name is None:
        raise ValueError(f"{path}: its heading is {heading.shown()}; expected columns for the id "
                         f"({', '.join(ID_NAMES)}) and the text ({', '.join(TEXT_NAMES)})")
    for number, values in table_rows(lines, heading, faults):
        name, text, title = (values.get(each, "").strip() for each in (id_name, text_name, title_name))
        if name and text:
            yield number, name, _titled(title, text)
        else:
            faults.add(f"line {number}", f"expected a text for {id_name} and for {text_name}")


def _of_tabs(path: Path, lines: Iterator[tuple[int, str]], faults: Faults) -> Iterator[tuple[int, str, str]]:
    widths = set()
    for number, line in lines:
        widths.add(line.count("\t") + 1)
        name, tab, text = line.partition("\t")
        if not tab or not name.strip() or not text.strip():
            faults.add(f"line {number}", f"{line[:60]!r}; expected an id, a tab and a text")
            continue
        yield number, name.strip(), text.strip()
    if len(widths) == 1 and (width := widths.pop()) > 2:
        raise ValueError(f"{path}: every line has {width} columns, and no heading says what they are; expected an id, "
                         "a tab and a text, or a first line such as id TAB text TAB title")


def _titled(title: str, text: str) -> str:
    return f"{title}. {text}" if title.strip() else text
