"""SQuAD (Rajpurkar et al., arXiv:1606.05250): questions about one paragraph each, which holds the answer.

Version 2.0 (arXiv:1806.03822) has the same layout; its impossible questions are left out.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import unquote

from scaledown.data.qa.checks import each, fields, label, objects, plain_text, whole_number
from scaledown.data.qa.layouts.row_fields import as_objects, clean_query, distinct_answers
from scaledown.data.qa.question import Gold, Layout, QADataset, QAQuestion, Unusable, has_keys, same_rows
from scaledown.prompt.passages import Paragraph

_ANSWER = {"text": plain_text, "answer_start": whole_number}
_QUESTION = fields({"id": label, "question": plain_text, "answers": each(fields(_ANSWER))})
_PARAGRAPH = fields({"context": plain_text, "qas": each(_QUESTION)})
_ARTICLE = fields({"title": plain_text, "paragraphs": each(_PARAGRAPH)})
_OFFICIAL_FIELDS = fields({"data": each(_ARTICLE)})
_ROW_FIELDS = fields({"id": label, "title": plain_text, "context": plain_text, "question": plain_text,
                      "answers": objects(_ANSWER)})


def official_rows(content: dict[str, Any], place: str) -> list[dict[str, Any]]:
    """Return the questions of an official file, in the shape that the Hub's rows have."""
    rows = []
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for entry in paragraph["qas"]:
                # The Hub has answers by columns.
                answers = {"text": [answer["text"] for answer in entry["answers"]],
                           "answer_start": [answer["answer_start"] for answer in entry["answers"]]}
                rows.append({"id": entry["id"], "title": article["title"], "context": paragraph["context"],
                             "question": entry["question"], "answers": answers})
    return rows


def question(row: dict[str, Any]) -> QAQuestion:
    """Read one row; the answer to learn is the one that most annotators gave.

    Raises:
        Unusable: if the question is an impossible one, or the answer is not at its ``answer_start``.
    """
    answers = as_objects(row["answers"], *_ANSWER)
    if not answers:
        raise Unusable("it cannot be answered (SQuAD 2.0)")

    texts = [answer["text"] for answer in answers]
    answer, _ = Counter(texts).most_common(1)[0]  # of equally common ones the first
    start = answers[texts.index(answer)]["answer_start"]
    if start < 0 or row["context"][start:start + len(answer)] != answer:
        raise Unusable("its answer is not where answer_start says")

    # Titles are written as in a page's address: Beyonc%C3%A9_Knowles.
    title = unquote(row["title"]).replace("_", " ")
    paragraph = Paragraph(article=f"squad/{title}", title=title, text=row["context"])
    return QAQuestion(str(row["id"]), clean_query(row["question"]), distinct_answers([answer, *texts]), (paragraph,),
                      (Gold(0, (start, start + len(answer))),))


def _is_official(head: dict[str, Any]) -> bool:
    articles = head.get("data")
    if not isinstance(articles, list) or not articles:
        return False
    return isinstance(articles[0], dict) and "paragraphs" in articles[0]


_OFFICIAL = Layout("SQuAD's JSON ({data: [{title, paragraphs: [{context, qas}]}]})", _is_official, _OFFICIAL_FIELDS,
                   official_rows, question, questions_a_record=20, buffered_rows=0, is_whole_file=True)
_ON_THE_HUB = Layout("SQuAD's rows on the Hub (id, title, context, question, answers)",
                     has_keys("context", "question", "answers"), _ROW_FIELDS, same_rows, question,
                     questions_a_record=20, buffered_rows=100_000)
SQUAD = QADataset("squad", hub_name="rajpurkar/squad", hub_config=None, folders=("squad",),
                  layouts=(_OFFICIAL, _ON_THE_HUB))
