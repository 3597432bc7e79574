"""Natural Questions (Kwiatkowski et al., TACL 2019): what people asked a search engine, and a Wikipedia page each.

Gold is the paragraph (long answer) that holds a short answer, or that says yes or no. Tables are left out: cut to
plain text they cannot be read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

from scaledown.data.passages import Paragraph
from scaledown.data.qa.checks import Fault, fields, flag, label, objects, pairs, plain_text, whole_number
from scaledown.data.qa.layouts.detokenise import detokenise
from scaledown.data.qa.layouts.rows import as_objects, clean_query, distinct_answers
from scaledown.data.qa.question import Gold, Layout, Question, Unusable, has_keys, same_rows

YES_NO_LABELS = {0: "no", 1: "yes", "NO": "no", "YES": "yes"}
LONGEST_ANSWER_TOKENS = 5
NO_ANSWER = "it has no short answer"
_TABLE_TAGS = ("<table>", "<tr>")


def page_text(value: Any, place: str) -> Iterator[Fault]:
    """A page's tokens: in one text, with spaces between them, or as objects."""
    yield from (plain_text if isinstance(value, str) else TOKENS)(value, place)


TOKENS = objects({"token": plain_text})
SPAN = {"start_token": whole_number, "end_token": whole_number}
CANDIDATE = SPAN | {"top_level": flag}
ANNOTATION = {"long_answer": fields(SPAN), "short_answers": objects(SPAN), "yes_no_answer": label}
ANSWERS = {"long_answer_candidates": objects(CANDIDATE), "annotations": objects(ANNOTATION)}
PAGE_FIELDS = fields({"id|example_id": label, "question_text": plain_text, "document_text|document_tokens": page_text,
                      "document_title|document_url": plain_text} | ANSWERS)
ROW_FIELDS = fields({"id": label, "question": fields({"text": plain_text}),
                     "document": fields({"title": plain_text, "tokens": TOKENS})} | ANSWERS)
QED_FIELDS = fields({"example_id": label, "question_text": plain_text, "title_text": plain_text,
                     "paragraph_text": plain_text, "answer_spans": pairs("start", whole_number, "end", whole_number)})


def question(row: dict[str, Any]) -> Question:
    """Read one row: simplified, original or the Hub's.

    The answer to learn is the first annotator's who gave a short one; those of all annotators are aliases.

    Raises:
        Unusable: where there is no short answer nor yes or no, or it stands in a table.
    """
    document = row.get("document", row)
    tokens = _tokens(document)
    annotations = [note for note in as_objects(row["annotations"], *ANNOTATION)
                   if note["long_answer"]["start_token"] >= 0]
    if spans := [span for note in annotations for span in _spans(note["short_answers"])]:
        spans = _short(spans)
        answers = [detokenise(tokens[start:end]).text for start, end in spans]
        note = next(note for note in annotations if spans[0] in _spans(note["short_answers"]))
    elif decided := [note for note in annotations if note["yes_no_answer"] in YES_NO_LABELS]:
        note = decided[0]
        spans, answers = [_span(note["long_answer"])], [YES_NO_LABELS[note["yes_no_answer"]]]
    else:
        raise Unusable(NO_ANSWER)
    first, end = _span(note["long_answer"])
    if not first < end <= len(tokens):
        raise Unusable("its long answer is not on its page")
    if _is_table(tokens[first]):
        raise Unusable("its answer is in a table")
    if not first <= spans[0][0] < spans[0][1] <= end:
        raise Unusable("its short answer is outside its long answer")
    gold = detokenise(tokens[first:end])
    title = _title(document)
    texts = [gold.text, *(_others(tokens, as_objects(row["long_answer_candidates"], *CANDIDATE), (first, end)))]
    paragraphs = tuple(Paragraph(f"natural_questions/{title}", title, text) for text in texts)
    span = gold.span(spans[0][0] - first, spans[0][1] - first)
    name = row["id"] if "id" in row else row["example_id"]
    return Question(str(name), clean_query(_query(row)), distinct_answers(answers), paragraphs, (Gold(0, span),))


def qed_question(row: dict[str, Any]) -> Question:
    """Read one row of QED (Lamm et al., arXiv:2009.06354): a question of NQ with its gold paragraph alone.

    Raises:
        Unusable: where it has no short answer.
    """
    words, starts = row["paragraph_text"].split(" "), [0]
    for word in words:
        starts.append(starts[-1] + len(word) + 1)
    places = [(bisect_right(starts, start) - 1, bisect_right(starts, end - 1))
              for start, end in row["answer_spans"] if start >= 0]
    places = _short(places)
    joined = detokenise(words)
    spans = [joined.span(*place) for place in places]
    title = row["title_text"]
    return Question(str(row["example_id"]), clean_query(row["question_text"]),
                    distinct_answers([joined.text[start:end] for start, end in spans]),
                    (Paragraph(f"natural_questions/{title}", title, joined.text),), (Gold(0, spans[0]),))


def _short(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans of at most 5 tokens, as NQ-open (Lee et al., arXiv:1906.00300) has them: longer ones are extracts.

    Raises:
        Unusable: where there is none.
    """
    if not (short := [(start, end) for start, end in spans if end - start <= LONGEST_ANSWER_TOKENS]):
        raise Unusable(f"it has no short answer of at most {LONGEST_ANSWER_TOKENS} tokens" if spans else NO_ANSWER)
    return short


def _tokens(document: dict[str, Any]) -> list[str]:
    if "document_text" in document:
        return document["document_text"].split(" ")
    return [token["token"] for token in as_objects(document.get("document_tokens", document.get("tokens")), "token")]


def _span(answer: dict[str, int]) -> tuple[int, int]:
    return answer["start_token"], answer["end_token"]


def _spans(answers: Any) -> list[tuple[int, int]]:
    """Where short answers stand. On the Hub a list of one annotator's may hold empty ones."""
    return [_span(answer) for answer in as_objects(answers, *SPAN) if answer["start_token"] >= 0]


def _is_table(token: str) -> bool:
    return token.lower() in _TABLE_TAGS


def _others(tokens: list[str], candidates: list[dict[str, Any]], gold: tuple[int, int]) -> Iterator[str]:
    """The page's other paragraphs and lists, as far as they are not inside one another."""
    for candidate in candidates:
        first, end = _span(candidate)
        apart = end <= gold[0] or gold[1] <= first
        if candidate["top_level"] and apart and 0 <= first < len(tokens) and not _is_table(tokens[first]):
            if text := detokenise(tokens[first:end]).text:
                yield text


def _title(document: dict[str, Any]) -> str:
    """Return the page's title; the simplified files have it in the page's address alone.

    Raises:
        Unusable: if it has none.
    """
    for key in ("title", "document_title"):
        if document.get(key):
            return document[key]
    query = document.get("document_url", "").replace("&amp;", "&").partition("?")[2].partition("#")[0]
    if not (titles := parse_qs(query).get("title")):
        raise Unusable("its page has no title")
    return titles[0].replace("_", " ")


def _query(row: dict[str, Any]) -> str:
    return row["question"]["text"] if "question" in row else row["question_text"]


def _no_passages(content: Iterable[Any], place: str) -> Iterable[Any]:
    raise ValueError("NQ-open has questions and answers but no passages. Use QED or the simplified Natural Questions, "
                     f"or retrieve passages: python -m scaledown.data.prepare_dataset --queries_file {place} "
                     "--corpus_path FILE")


PAGES = Layout("natural_questions", "Natural Questions' JSONL, simplified or original (document_text or "
               "document_tokens, long_answer_candidates, annotations)",
               lambda head: "annotations" in head and ("document_text" in head or "document_tokens" in head),
               PAGE_FIELDS, same_rows, question, questions_a_record=1.5, buffered_rows=200)
ROWS = Layout("natural_questions", "Natural Questions' rows on the Hub (id, document, question, "
              "long_answer_candidates, annotations)", has_keys("document", "question", "annotations"), ROW_FIELDS,
              same_rows, question, questions_a_record=1.5, buffered_rows=50)
QED = Layout("natural_questions", "QED's JSONL (question_text, title_text, paragraph_text, answer_spans)",
             has_keys("paragraph_text", "question_text", "answer_spans"), QED_FIELDS, same_rows, qed_question,
             questions_a_record=20, buffered_rows=100_000)
OPEN = Layout("natural_questions", "NQ-open", lambda head: set(head) == {"question", "answer"}, fields({}),
              _no_passages, qed_question, questions_a_record=1, buffered_rows=0)
