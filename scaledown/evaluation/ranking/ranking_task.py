"""Ranking tasks: queries, the candidates of each in the order given, and the relevance of these.

They come from records, from a BEIR folder, or from separate files of corpus, queries and qrels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scaledown.data.answers import holds_answer, is_found_in_text, padded
from scaledown.data.pipeline.retrieval import BM25
from scaledown.data.pipeline.trec import Qrels
from scaledown.data.records import Record
from scaledown.data.storage.lines import Faults, is_text, json_lines, shown, text_lines
from scaledown.data.storage.tables import Heading, heading_of, table_rows
from scaledown.progress import Bar
from scaledown.prompt import titled

Texts = dict[str, str]

ID_NAMES = ("id", "_id", "pid", "qid", "docid", "doc_id", "docno", "passage_id", "query_id", "query-id", "corpus-id",
            "question_id")
TEXT_NAMES = ("text", "contents", "passage", "body", "query", "question")
TITLE_NAMES = ("title",)


@dataclass(frozen=True)
class RankingTask:
    """Queries by id, the candidates of each (id to text) in the order given, and grades by query and document."""

    queries: Texts
    candidates: Mapping[str, Texts]
    qrels: Qrels

    @property
    def num_candidates(self) -> float:
        """The mean number of candidates of a query."""
        return sum(map(len, self.candidates.values())) / len(self.queries)


@dataclass(frozen=True)
class Collection:
    """A corpus with its queries and relevance judgements, before any retrieval."""

    queries: Texts
    corpus: Texts
    qrels: Qrels

    def task(self, candidates: Mapping[str, Sequence[str]]) -> RankingTask:
        """Return the task of ranking the given document ids of each query.

        Raises:
            ValueError: if an id is not in the corpus.
        """
        # A query without candidates stays in the task: it counts as one that nothing was found for.
        texts: dict[str, Texts] = {}
        unknown: list[str] = []
        for query in self.queries:
            ids = candidates.get(query, ())
            unknown += [f"{document} (query {query})" for document in ids if document not in self.corpus]
            texts[query] = {document: self.corpus[document] for document in ids if document in self.corpus}

        if unknown:
            raise ValueError(f"{len(unknown)} candidates are not in the corpus, such as {', '.join(unknown[:3])}; "
                             "expected the corpus that they were found in")
        return RankingTask(self.queries, texts, self.qrels)

    def judged(self) -> RankingTask:
        """Return the task of ranking the judged documents, in the order of the qrels: for pools such as NovelEval's."""
        return self.task({query: list(grades) for query, grades in self.qrels.items()})

    def found_by_bm25(self, num_candidates: int) -> RankingTask:
        """Return the task of ranking the first ``num_candidates`` by BM25."""
        # A hit's index is a place in the list of texts, and so in the list of ids.
        ids = list(self.corpus)
        index = BM25(list(self.corpus.values()))

        candidates = {}
        for query, text in Bar(self.queries.items(), desc="searching, BM25", unit="query", leave=False):
            [hits] = index.search([text], num_candidates)
            candidates[query] = [ids[hit.index] for hit in hits]
        return self.task(candidates)


def of_records(records: Sequence[Record], qrels: Qrels | None = None) -> RankingTask:
    """Return the task of ranking each record's documents.

    Without ``qrels`` the documents that hold a gold answer count as relevant.

    Raises:
        ValueError: if a record has two documents of one id, or the qrels judge none of the records.
    """
    qrels = _holding_answers(records) if qrels is None else qrels
    ambiguous = [record.id for record in records if len(set(document_ids(record))) < len(record.documents)]
    if ambiguous:
        raise ValueError(f"{len(ambiguous)} records have two documents of one id in document_ids, such as "
                         f"{', '.join(ambiguous[:3])}; expected one id each")

    # Qrels may judge only some of the records.
    judged = [record for record in records if record.id in qrels]
    if not judged:
        raise ValueError(f"the qrels judge none of the {len(records)} records; expected their ids as queries, such as "
                         f"{records[0].id!r}")

    queries = {record.id: record.query for record in judged}
    candidates = {record.id: dict(zip(document_ids(record), record.documents, strict=True)) for record in judged}
    return RankingTask(queries, candidates, {record.id: qrels[record.id] for record in judged})


def _holding_answers(records: Sequence[Record]) -> Qrels:
    """Return grade 1 for each document that holds a gold answer, as whole words, and 0 for the others."""
    qrels: Qrels = {}
    for record in records:
        # Without an answer that is text, such as for a yes or a no, no document counts as relevant.
        answers = [padded(answer) for answer in record.references if is_found_in_text(answer)]
        documents = zip(document_ids(record), record.documents, strict=True)
        qrels[record.id] = {name: int(holds_answer(padded(document), answers)) for name, document in documents}
    return qrels


def document_ids(record: Record) -> tuple[str, ...]:
    """Return a record's document ids, or places from 0 on if it has none."""
    return record.document_ids or tuple(map(str, range(len(record.documents))))


def collection(queries: Texts, corpus: Texts, qrels: Qrels) -> Collection:
    """Return the collection of the judged queries; others are left out.

    Raises:
        ValueError: if a judged query has no text.
    """
    missing = [query for query in qrels if query not in queries]
    if missing:
        raise ValueError(f"{len(missing)} queries of the qrels have no text, such as {', '.join(missing[:3])}; "
                         "expected the queries that the qrels judge")
    return Collection({query: queries[query] for query in qrels}, corpus, qrels)


def read_texts(path: Path) -> Texts:
    """Read texts by id: lines of ``id TAB text``, BEIR's JSONL of ``_id``, ``text`` and perhaps ``title``, or a table.

    A table is a TSV or CSV under a heading that names the columns, such as DPR's ``id TAB text TAB title``. A title is
    put before its text with a full stop, as in passages.

    Raises:
        ValueError: if there is no such file, nothing in it, or lines that are malformed or repeat an id; they are
            named by their number, and the first 20 shown.
    """
    faults, texts, line_of = Faults(path, "lines"), {}, {}

    # Repeated ids are gathered among the faults of single lines, so that one error tells all.
    entries = _of_json(path, faults) if path.suffix in (".jsonl", ".json") else _of_lines(path, faults)
    for number, name, text in entries:
        if name in texts:
            faults.add(f"line {number}", f"id {name!r} is already on line {line_of[name]}")
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

        # A line with several wrong fields has several faults.
        wrong = [field for field in fields if not is_text(fields[field])]
        for field in wrong:
            faults.add(f"line {number}", f"{field} must be text, got {shown(fields[field])}")
        if not wrong:
            yield number, name, titled(title, text)


def _of_lines(path: Path, faults: Faults) -> Iterator[tuple[int, str, str]]:
    lines = text_lines(path)
    first_line = next(lines, None)
    if first_line is None:
        return

    # The first line tells a table from lines of id and text; it goes back in front, since it may be content.
    lines = itertools.chain([first_line], lines)
    heading = heading_of(first_line[1], ID_NAMES, TEXT_NAMES, TITLE_NAMES)
    yield from _of_tabs(path, lines, faults) if heading is None else _of_table(path, lines, heading, faults)


def _of_table(path: Path, lines: Iterator[tuple[int, str]], heading: Heading,
              faults: Faults) -> Iterator[tuple[int, str, str]]:
    id_name, text_name = _column_of(heading, ID_NAMES), _column_of(heading, TEXT_NAMES)
    title_name = _column_of(heading, TITLE_NAMES)
    if id_name is None or text_name is None:
        raise ValueError(f"{path}: its heading is {heading.shown()}; expected columns for the id "
                         f"({', '.join(ID_NAMES)}) and the text ({', '.join(TEXT_NAMES)})")
    for number, values in table_rows(lines, heading, faults):
        name, text = values[id_name].strip(), values[text_name].strip()
        title = values.get(title_name, "").strip()  # the only column that may be missing
        if name and text:
            yield number, name, titled(title, text)
        else:
            faults.add(f"line {number}", f"expected a text for {id_name} and for {text_name}")


def _column_of(heading: Heading, names: Sequence[str]) -> str | None:
    """Return the first of ``names`` that the heading has."""
    return next((name for name in names if name in heading.names), None)


def _of_tabs(path: Path, lines: Iterator[tuple[int, str]], faults: Faults) -> Iterator[tuple[int, str, str]]:
    widths = set()
    for number, line in lines:
        widths.add(line.count("\t") + 1)
        name, tab, text = line.partition("\t")
        if not tab or not name.strip() or not text.strip():
            faults.add(f"line {number}", f"{line[:60]!r}; expected an id, a tab and a text")
            continue
        yield number, name.strip(), text.strip()

    # More columns on every line than two look like a table: which of them is the text is anyone's guess.
    if len(widths) == 1 and (width := widths.pop()) > 2:
        raise ValueError(f"{path}: every line has {width} columns, and no heading says what they are; expected an id, "
                         "a tab and a text, or a first line such as id TAB text TAB title")
