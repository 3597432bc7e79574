"""Natural Questions (Kwiatkowski et al., TACL 2019): what people asked a search engine, and a Wikipedia page each.

Gold is the paragraph (long answer) that holds a short answer, or that says yes or no. Tables are left out: as plain
text they cannot be read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

from scaledown.data.qa.checks import Fault, fields, flag, label, objects, pairs, plain_text, whole_number
from scaledown.data.qa.layouts.row_fields import as_objects, clean_query, detokenise, distinct_answers
from scaledown.data.qa.question import Gold, Layout, QADataset, QAQuestion, Unusable, has_keys, same_rows
from scaledown.prompt.passages import Paragraph

YES_NO_LABELS = {0: "no", 1: "yes", "NO": "no", "YES": "yes"}
LONGEST_ANSWER_TOKENS = 5
NO_SHORT_ANSWER = "it has no short answer"
_TABLE_TAGS = ("<table>", "<tr>")


def page_text(value: Any, place: str) -> Iterator[Fault]:
    """Accept a page's tokens: one text with spaces between them, or objects."""
    yield from (plain_text if isinstance(value, str) else _TOKENS)(value, place)


_TOKENS = objects({"token": plain_text})
_SPAN = {"start_token": whole_number, "end_token": whole_number}
_CANDIDATE = _SPAN | {"top_level": flag}
_ANNOTATION = {"long_answer": fields(_SPAN), "short_answers": objects(_SPAN), "yes_no_answer": label}
_ANSWERS = {"long_answer_candidates": objects(_CANDIDATE), "annotations": objects(_ANNOTATION)}
_PAGE_FIELDS = fields({"id|example_id": label, "question_text": plain_text, "document_text|document_tokens": page_text,
                       "document_title|document_url": plain_text} | _ANSWERS)
_ROW_FIELDS = fields({"id": label, "question": fields({"text": plain_text}),
                      "document": fields({"title": plain_text, "tokens": _TOKENS})} | _ANSWERS)
_QED_FIELDS = fields({"example_id": label, "question_text": plain_text, "title_text": plain_text,
                      "paragraph_text": plain_text, "answer_spans": pairs("start", whole_number, "end", whole_number)})


def question(row: dict[str, Any]) -> QAQuestion:
    """Read one row: simplified, original or the Hub's.

    The answer to learn is that of the first annotator who gave a short one; those of all annotators are aliases.

    Raises:
        Unusable: if there is no short answer and no yes or no, or the answer is in a table.
    """
    document = row.get("document", row)
    tokens = _tokens(document)
    annotations = [annotation for annotation in as_objects(row["annotations"], *_ANNOTATION)
                   if annotation["long_answer"]["start_token"] >= 0]  # -1: this annotator saw no answer
    annotation, short, answers = _chosen_answer(annotations, tokens)

    # Spans are in tokens of the page, their ends not included. The short answer has to lie within the long one.
    start, end = _span(annotation["long_answer"])
    if not start < end <= len(tokens):
        raise Unusable("its long answer is not on its page")
    if _is_table(tokens[start]):
        raise Unusable("its answer is in a table")
    if not start <= short[0] < short[1] <= end:
        raise Unusable("its short answer is outside its long answer")

    # Paragraph 0 is gold, and the page's others follow.
    gold = detokenise(tokens[start:end])
    gold_span = gold.span(short[0] - start, short[1] - start)  # tokens of the page -> characters of the paragraph
    title = _title(document)
    candidates = as_objects(row["long_answer_candidates"], *_CANDIDATE)
    texts = [gold.text, *_other_texts(tokens, candidates, (start, end))]
    paragraphs = tuple(Paragraph(f"natural_questions/{title}", title, text) for text in texts)

    name = row["id"] if "id" in row else row["example_id"]
    return QAQuestion(str(name), clean_query(_query(row)), distinct_answers(answers), paragraphs,
                      (Gold(0, gold_span),))


def _chosen_answer(annotations: list[dict[str, Any]],
                   tokens: list[str]) -> tuple[dict[str, Any], tuple[int, int], list[str]]:
    """Return the annotation that a question is answered by, its answer's tokens, and the texts of all answers.

    Raises:
        Unusable: if no annotator gave a short answer, or yes or no.
    """
    spans: list[tuple[int, int]] = []
    for annotation in annotations:
        spans += _spans(annotation["short_answers"])

    # A short answer of any annotator goes before a yes or no.
    if spans:
        spans = _short(spans)
        chosen = next(annotation for annotation in annotations if spans[0] in _spans(annotation["short_answers"]))
        return chosen, spans[0], [detokenise(tokens[start:end]).text for start, end in spans]

    for annotation in annotations:
        if annotation["yes_no_answer"] in YES_NO_LABELS:
            return annotation, _span(annotation["long_answer"]), [YES_NO_LABELS[annotation["yes_no_answer"]]]
    raise Unusable(NO_SHORT_ANSWER)


def qed_question(row: dict[str, Any]) -> QAQuestion:
    """Read one row of QED (Lamm et al., arXiv:2009.06354): a question of NQ with its gold paragraph alone.

    Raises:
        Unusable: if it has no short answer.
    """
    words = row["paragraph_text"].split(" ")
    starts = [0]  # starts[i] is the first character of word i; the last entry is past the end
    for word in words:
        starts.append(starts[-1] + len(word) + 1)

    # Characters become words: from that of the first character to the one after that of the last (not included).
    spans = [(bisect_right(starts, start) - 1, bisect_right(starts, end - 1))
             for start, end in row["answer_spans"] if start >= 0]

    # And words become characters again, of the text as people write it.
    paragraph = detokenise(words)
    places = [paragraph.span(*span) for span in _short(spans)]
    answers = [paragraph.text[start:end] for start, end in places]

    title = row["title_text"]
    return QAQuestion(str(row["example_id"]), clean_query(row["question_text"]), distinct_answers(answers),
                      (Paragraph(f"natural_questions/{title}", title, paragraph.text),), (Gold(0, places[0]),))


def _short(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans of at most 5 tokens, as NQ-open (Lee et al., arXiv:1906.00300) has them: longer are extracts.

    Raises:
        Unusable: if there is none.
    """
    short = [(start, end) for start, end in spans if end - start <= LONGEST_ANSWER_TOKENS]
    if not short:
        # Longer ones alone are told from none at all.
        raise Unusable(f"it has no short answer of at most {LONGEST_ANSWER_TOKENS} tokens" if spans
                       else NO_SHORT_ANSWER)
    return short


def _tokens(document: dict[str, Any]) -> list[str]:
    """Return a page's tokens, which are in a different place in each of the three layouts."""
    if "document_text" in document:  # simplified
        return document["document_text"].split(" ")
    tokens = document.get("document_tokens", document.get("tokens"))  # original, or the Hub's
    return [token["token"] for token in as_objects(tokens, "token")]


def _span(answer: dict[str, int]) -> tuple[int, int]:
    return answer["start_token"], answer["end_token"]


def _spans(answers: Any) -> list[tuple[int, int]]:
    """Return the tokens of one annotator's short answers. On the Hub the list may hold empty ones (-1)."""
    return [_span(answer) for answer in as_objects(answers, *_SPAN) if answer["start_token"] >= 0]


def _is_table(token: str) -> bool:
    return token.lower() in _TABLE_TAGS


def _other_texts(tokens: list[str], candidates: list[dict[str, Any]], gold: tuple[int, int]) -> Iterator[str]:
    """Yield the page's other paragraphs and lists, those nested in one another left out."""
    for candidate in candidates:
        start, end = _span(candidate)
        is_apart = end <= gold[0] or gold[1] <= start  # from the gold paragraph
        if candidate["top_level"] and is_apart and 0 <= start < len(tokens) and not _is_table(tokens[start]):
            text = detokenise(tokens[start:end]).text
            if text:
                yield text


def _title(document: dict[str, Any]) -> str:
    """Return the page's title; the simplified files have it in the page's address alone.

    Raises:
        Unusable: if it has none.
    """
    for key in ("title", "document_title"):
        if document.get(key):
            return document[key]

    # .../index.php?title=Ada_Lovelace&amp;oldid=1#Work
    query = document.get("document_url", "").replace("&amp;", "&").partition("?")[2].partition("#")[0]
    titles = parse_qs(query).get("title")
    if not titles:
        raise Unusable("its page has no title")
    return titles[0].replace("_", " ")


def _query(row: dict[str, Any]) -> str:
    return row["question"]["text"] if "question" in row else row["question_text"]


def _no_passages(content: Iterable[Any], place: str) -> Iterable[Any]:
    """Refuse NQ-open, and tell what to use instead.

    Raises:
        ValueError: always.
    """
    raise ValueError("NQ-open has questions and answers but no passages. Use QED or the simplified Natural Questions, "
                     f"or retrieve passages: python -m scaledown.data.prepare_dataset --queries_file {place} "
                     "--corpus_path FILE")


_PAGES = Layout("Natural Questions' JSONL, simplified or original (document_text or document_tokens, "
                "long_answer_candidates, annotations)",
                lambda head: "annotations" in head and ("document_text" in head or "document_tokens" in head),
                _PAGE_FIELDS, same_rows, question, questions_a_record=1.5, buffered_rows=200)
_ON_THE_HUB = Layout("Natural Questions' rows on the Hub (id, document, question, long_answer_candidates, annotations)",
                     has_keys("document", "question", "annotations"), _ROW_FIELDS, same_rows, question,
                     questions_a_record=1.5, buffered_rows=50)
_QED = Layout("QED's JSONL (question_text, title_text, paragraph_text, answer_spans)",
              has_keys("paragraph_text", "question_text", "answer_spans"), _QED_FIELDS, same_rows, qed_question,
              questions_a_record=20, buffered_rows=100_000)
_OPEN = Layout("NQ-open", lambda head: set(head) == {"question", "answer"}, fields({}), _no_passages, qed_question,
               questions_a_record=1, buffered_rows=0)
NATURAL_QUESTIONS = QADataset("natural_questions", hub_name="google-research-datasets/natural_questions",
                              hub_config=None, folders=("natural_questions", "nq"),
                              layouts=(_PAGES, _ON_THE_HUB, _QED, _OPEN))
