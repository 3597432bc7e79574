"""HotpotQA (Yang et al., arXiv:1809.09600): questions that need two Wikipedia introductions, among ten.

Gold are the passages that hold the supporting facts. Answers are stated there, or are yes or no.
"""

from __future__ import annotations

from html import unescape
from typing import Any

from scaledown.data.qa.checks import each, fields, label, pairs, plain_text, whole_number
from scaledown.data.qa.layouts.row_fields import as_pairs, clean_query, distinct_answers
from scaledown.data.qa.question import Gold, Layout, QADataset, QAQuestion, Unusable, same_rows
from scaledown.prompt.passages import Paragraph
from scaledown.prompt.sentences import Span

_FIELDS = fields({"_id|id": label, "question": plain_text, "answer?": plain_text,
                  "supporting_facts?": pairs("title", plain_text, "sent_id", whole_number),
                  "context": pairs("title", plain_text, "sentences", each(plain_text))})


def question(row: dict[str, Any]) -> QAQuestion:
    """Read one row, official or the Hub's.

    Raises:
        Unusable: if a supporting fact is not in the question's paragraphs, as happens in ``fullwiki``.
    """
    if row.get("answer") is None or not row.get("supporting_facts"):
        raise Unusable("it has no answer or no supporting facts (test set)")

    paragraphs, sentences = [], []
    numbers: dict[str, int] = {}  # of the first paragraph with each title
    for title, texts in as_pairs(row["context"], "title", "sentences"):
        text, spans = _join_sentences([unescape(text) for text in texts])
        numbers.setdefault(title, len(paragraphs))
        paragraphs.append(Paragraph(article=f"hotpot_qa/{title}", title=unescape(title), text=text))
        sentences.append(spans)

    # A supporting fact is a paragraph's title and the number of a sentence in it.
    gold = []
    for title, sentence in as_pairs(row["supporting_facts"], "title", "sent_id"):
        number = numbers.get(title)
        if number is None or not 0 <= sentence < len(sentences[number]):
            raise Unusable("a supporting fact is not among its paragraphs")
        gold.append(Gold(number, sentences[number][sentence]))

    return QAQuestion(str(row["_id"] if "_id" in row else row["id"]), clean_query(row["question"]),
                      distinct_answers([row["answer"]]), tuple(paragraphs), tuple(gold))


def _join_sentences(sentences: list[str]) -> tuple[str, list[Span]]:
    """Return the text of a paragraph, and the characters of each sentence in it."""
    text, spans = "", []
    for sentence in sentences:
        # Most sentences begin with their space.
        if text and not text[-1].isspace() and not sentence[:1].isspace():
            text += " "
        spans.append((len(text), len(text) + len(sentence)))
        text += sentence
    return text, spans


def _is_hotpotqa(head: dict[str, Any]) -> bool:
    """Return whether a row is HotpotQA's, also one of the test set, which has neither answer nor supporting facts."""
    if "question" not in head or "context" not in head:
        return False

    # SQuAD's rows have these fields too, but their context is one text.
    return "supporting_facts" in head or isinstance(head["context"], list | dict)


_LAYOUT = Layout("HotpotQA's JSON, a list of {_id, question, answer, supporting_facts, context}",
                 _is_hotpotqa, _FIELDS, same_rows, question,
                 questions_a_record=4, buffered_rows=20_000)
HOTPOT_QA = QADataset("hotpot_qa", hub_name="hotpotqa/hotpot_qa", hub_config="distractor",
                      folders=("hotpot_qa", "hotpotqa"), layouts=(_LAYOUT,))
