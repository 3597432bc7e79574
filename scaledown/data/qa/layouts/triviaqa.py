"""TriviaQA (Joshi et al., arXiv:1705.03551): trivia with Wikipedia articles and web pages gathered as evidence.

Nobody marked the place of an answer. Gold is the line of the evidence that BM25 ranks highest for the question, of
those that hold an alias of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scaledown.data.answers import answer_spans, holds_answer, padded
from scaledown.data.pipeline.retrieval import BM25
from scaledown.data.qa.checks import each, fields, label, objects, plain_text
from scaledown.data.qa.layouts.row_fields import as_objects, clean_query, distinct_answers
from scaledown.data.qa.question import Gold, Layout, QADataset, QAQuestion, Unusable, has_keys, same_rows
from scaledown.prompt.passages import Paragraph

_PAGES = each(fields({"Title": plain_text, "Filename?": plain_text}))
_ANSWER = fields({"Value?": plain_text, "Aliases?": each(plain_text)})
_QUESTION = fields({"QuestionId": label, "Question": plain_text, "Answer?": _ANSWER, "EntityPages?": _PAGES,
                    "SearchResults?": _PAGES})
_OFFICIAL_FIELDS = fields({"Data": each(_QUESTION)})
_ROW_FIELDS = fields({
    "question_id": label, "question": plain_text, "answer": fields({"value?": plain_text, "aliases": each(plain_text)}),
    "entity_pages": objects({"title": plain_text, "filename": plain_text, "wiki_context": plain_text}),
    "search_results": objects({"title": plain_text, "filename": plain_text, "search_context": plain_text})})

_LINE = re.compile(r"[^\n]+")


def official_rows(content: dict[str, Any], place: str) -> list[dict[str, Any]]:
    """Return the questions of a file in ``qa/``, in the shape of the Hub's rows, but with paths instead of texts.

    Raises:
        ValueError: if it is the test set, which has no answers, or there is no ``evidence`` folder.
    """
    if not any(row.get("Answer") for row in content["Data"]):
        raise ValueError("it has no answers (TriviaQA's test set); use a train or dev file")
    evidence = _evidence_folder(Path(place))

    rows = []
    for entry in content["Data"]:
        pages = []
        for key, folder in (("EntityPages", "wikipedia"), ("SearchResults", "web")):
            for page in entry.get(key) or []:
                if page.get("Filename"):
                    pages.append((folder, page["Title"], page["Filename"], evidence / folder / page["Filename"]))

        answer = entry.get("Answer") or {}  # single questions may lack one
        rows.append({"question_id": entry["QuestionId"], "question": entry["Question"],
                     "answer": {"value": answer.get("Value"), "aliases": answer.get("Aliases") or []},
                     "evidence": pages})
    return rows


def question(row: dict[str, Any]) -> QAQuestion:
    """Read one row, official or the Hub's, and find the gold line in its evidence.

    Raises:
        Unusable: if the evidence is missing, or no line of it holds the answer or an alias.
    """
    if row["answer"].get("value") in (None, "", "<unk>"):
        raise Unusable("it has no answer (test set)")
    answers = distinct_answers([row["answer"]["value"], *row["answer"]["aliases"]])
    query = clean_query(row["question"])

    paragraphs = tuple(_evidence(row))
    if not paragraphs:
        raise Unusable("its evidence is missing")
    return QAQuestion(str(row["question_id"]), query, answers, paragraphs, (_gold(query, answers, paragraphs),))


def _gold(query: str, answers: tuple[str, ...], paragraphs: tuple[Paragraph, ...]) -> Gold:
    """Return the place of the answer in the line that answers the question best by BM25.

    Raises:
        Unusable: if no line holds the answer or an alias.
    """
    lines: list[tuple[int, re.Match[str]]] = []  # each with the number of its paragraph
    for number, paragraph in enumerate(paragraphs):
        lines += [(number, match) for match in _LINE.finditer(paragraph.text)]

    padded_answers = [padded(answer) for answer in answers]
    has_answer = [holds_answer(padded(match.group()), padded_answers) for _, match in lines]
    if not any(has_answer):
        raise Unusable("no line of its evidence holds the answer")

    # All lines are ranked, since the best of those that hold the answer may come far down.
    ranked = BM25([match.group() for _, match in lines]).search([query], len(lines))[0]
    number, line = next(lines[hit.index] for hit in ranked if has_answer[hit.index])
    start, end = answer_spans(line.group(), answers)[0]
    return Gold(number, (line.start() + start, line.start() + end))  # in characters of the paragraph


def _evidence(row: dict[str, Any]) -> Iterator[Paragraph]:
    """Yield each page of a question's evidence, as one paragraph of many lines."""
    # An official row has paths of files, of which some may not have been unpacked.
    for folder, title, name, path in row.get("evidence", ()):
        if path.is_file():
            yield _page(folder, title, name, path.read_text(encoding="utf-8", errors="replace"))

    # A row of the Hub has the texts.
    for key, folder, text in (("entity_pages", "wikipedia", "wiki_context"),
                              ("search_results", "web", "search_context")):
        for page in as_objects(row.get(key, ()), "title", "filename", text):
            yield _page(folder, page["title"], page["filename"], page[text])


def _page(folder: str, title: str, name: str, text: str) -> Paragraph:
    return Paragraph(article=f"trivia_qa/{folder}/{name}", title=title.removesuffix("...").strip(), text=text)


def _evidence_folder(path: Path) -> Path:
    """Return the evidence folder of a file in ``qa/``; the unfiltered set shares the one of ``triviaqa-rc``.

    Raises:
        ValueError: if there is none.
    """
    for folder in (path.parent, path.parent.parent):
        for candidate in (folder / "evidence", folder / "triviaqa-rc" / "evidence"):
            if candidate.is_dir():
                return candidate
    raise ValueError("no evidence folder near it; expected TriviaQA's qa/ and evidence/ side by side")


_OFFICIAL = Layout("TriviaQA's folder with qa/*.json ({Data: [...]}) and evidence/", has_keys("Data"),
                   _OFFICIAL_FIELDS, official_rows, question, questions_a_record=1.5, buffered_rows=0,
                   is_whole_file=True)
_ON_THE_HUB = Layout("TriviaQA's rows on the Hub (question, answer, entity_pages, search_results)",
                     has_keys("question", "answer", "entity_pages", "search_results"), _ROW_FIELDS, same_rows,
                     question, questions_a_record=1.5, buffered_rows=200)
TRIVIA_QA = QADataset("trivia_qa", hub_name="mandarjoshi/trivia_qa", hub_config="rc",
                      folders=("trivia_qa", "triviaqa"), layouts=(_OFFICIAL, _ON_THE_HUB))
