"""Every layout of the four QA datasets, official and the Hub's, read into the same questions."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from scaledown.data.answers import answer_spans, holds_answer, is_found_in_text, padded, searchable, worded
from scaledown.data.qa.checks import fields, plain_text
from scaledown.data.qa.layouts import DATASETS, hotpotqa, natural_questions, squad, triviaqa
from scaledown.data.qa.layouts.row_fields import detokenise
from scaledown.data.qa.question import Layout, QADataset, Unusable, has_keys, same_rows
from scaledown.data.qa.reading import read_questions
from scaledown.data.qa.sources import open_local

SQUAD = {"version": "1.1", "data": [{"title": "Beyonc%C3%A9_Knowles", "paragraphs": [{
    "context": "She was born in 1981 in Houston.  Houston is in Texas.", "qas": [
        {"id": "a", "question": " Where was  she born? ", "answers": [
            {"text": "in Houston", "answer_start": 21}, {"text": "Houston", "answer_start": 24},
            {"text": "Houston", "answer_start": 34}]},
        {"id": "b", "question": "Who is he?", "answers": [], "is_impossible": True},
        {"id": "c", "question": "Which state?", "answers": [{"text": "Texas", "answer_start": 40}]}]}]}]}

HOTPOT = {"_id": "h", "question": "Were Ada and Bob born in one town?", "answer": "yes",
          "supporting_facts": [["Ada", 1], ["Bob & Co", 0]],
          "context": [["Carl", ["Carl is tall."]], ["Ada", ["Ada sang.", " She was born in Rome."]],
                      ["Bob & Co", ["Bob was born in Rome &amp; left."]]]}

HTML = ("<H1> Ada </H1> <P> Ada was `` born '' in Rome , in 1900 -- 1901 . </P> <Table> <Tr> <Td> Rome </Td> </Tr> "
        "</Table> <Ul> <Li> One thing </Li> <Li> Two things </Li> </Ul>")
TOKENS = HTML.split(" ")
PLACES = {tag: (TOKENS.index(f"<{tag}>"), TOKENS.index(f"</{tag}>") + 1) for tag in ("P", "Table", "Ul")}
ROME = TOKENS.index("Rome")


def span(place):
    return {"start_token": place[0], "end_token": place[1]}


def nq_row(short=((ROME, ROME + 1),), yes_no="NONE", long="P"):
    return {"example_id": 7, "question_text": "where was ada born", "document_text": HTML,
            "document_url": "https://en.wikipedia.org//w/index.php?title=Ada_Rossi&amp;oldid=1",
            "long_answer_candidates": [span(place) | {"top_level": True} for place in PLACES.values()],
            "annotations": [{"long_answer": span(PLACES[long]), "yes_no_answer": yes_no,
                             "short_answers": [span(place) for place in short]}]}


def trivia_folder(root, with_answers=True):
    question = {"Question": "Where was Ada born?", "QuestionId": "t1",
                "EntityPages": [{"Title": "Ada", "Filename": "Ada.txt"}],
                "SearchResults": [{"Title": "About Ada ...", "Filename": "1/1_2.txt"},
                                  {"Title": "Gone", "Filename": "1/gone.txt"}]}
    if with_answers:
        question["Answer"] = {"Value": "Rome", "Aliases": ["Rome", "ROME", "The Eternal City"]}
    pages = {"evidence/wikipedia/Ada.txt": "Ada.\nShe died in Rome.\n\nShe sang.",
             "evidence/web/1/1_2.txt": "About Ada\nAda was born in the eternal city, we hear.",
             f"qa/web-{'dev' if with_answers else 'test-without-answers'}.json": json.dumps({"Data": [question]})}
    for name, text in pages.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def questions(dataset, path, split="validation"):
    source = open_local(dataset, split, path, random.Random(0))
    return [source.layout.question(row) for row in source.rows]


def gold_texts(question):
    return [question.paragraphs[gold.paragraph].text[slice(*gold.span)] for gold in question.gold]


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_an_answer_is_held_as_whole_tokens():
    def holds(text, *answers):
        return holds_answer(padded(text), [padded(answer) for answer in answers])

    assert holds("In the St. Louis Zoo.", "St Louis") and holds("a U.S. firm", "x", "the US")
    assert not holds("the party", "art") and not holds("New York", "York New")
    assert [is_found_in_text(answer) for answer in ("Yes", "no.", "the", "", "yes men")] == [False] * 4 + [True]
    assert answer_spans("St. Louis, the U.S. and US", ["US", "St Louis"]) == [(0, 10), (15, 19), (24, 26)]


@pytest.mark.parametrize(("text", "answer", "is_held"), [
    ("Charles Darwin's theory", "Charles Darwin", True), ("It lasted 1919–1980.", "1919", True),
    ("Water’s weight", "the water", True), ("waterfalls", "water", False), ("the U.S. Army", "U.S.", True),
    ("in 19190", "1919", False)])
def test_no_guise_of_an_answer_escapes(text, answer, is_held):
    assert holds_answer(searchable(text), [padded(answer), worded(answer)]) == is_held


def test_squad_takes_the_commonest_answer_and_its_place():
    first, impossible, misplaced = squad.official_rows(SQUAD, "x")
    question = squad.question(first)
    assert question.query == "Where was she born?"
    assert question.answers == ("Houston", "in Houston")
    assert question.gold[0].span == (24, 31)
    assert question.paragraphs[0].title == "Beyoncé Knowles"
    with pytest.raises(Unusable, match="cannot be answered"):
        squad.question(impossible)
    with pytest.raises(Unusable, match="not where answer_start says"):
        squad.question(misplaced)


def test_hotpotqa_gold_are_the_supporting_sentences():
    as_on_the_hub = HOTPOT | {
        "id": "h", "supporting_facts": {"title": ["Ada", "Bob & Co"], "sent_id": [1, 0]},
        "context": {"title": [title for title, _ in HOTPOT["context"]],
                    "sentences": [sentences for _, sentences in HOTPOT["context"]]}}
    question = hotpotqa.question(HOTPOT)
    assert question == hotpotqa.question(as_on_the_hub)
    assert question.answers == ("yes",)
    assert gold_texts(question) == [" She was born in Rome.", "Bob was born in Rome & left."]
    with pytest.raises(Unusable, match="supporting fact"):
        hotpotqa.question(HOTPOT | {"supporting_facts": [["Ada", 2]]})


def test_natural_questions_simplified():
    question = natural_questions.question(nq_row())
    assert question.answers == ("Rome",) and gold_texts(question) == ["Rome"]
    assert [paragraph.text for paragraph in question.paragraphs] == [
        'Ada was "born" in Rome, in 1900–1901.', "One thing\nTwo things"]
    assert {paragraph.title for paragraph in question.paragraphs} == {"Ada Rossi"}


@pytest.mark.parametrize("row, reason", [
    (nq_row(short=()), "no short answer"),
    (nq_row(short=((ROME - 4, ROME + 3),)), "no short answer of at most 5 tokens"),
    (nq_row(short=((PLACES["Table"][0] + 3, PLACES["Table"][0] + 4),), long="Table"), "in a table"),
    (nq_row(long="Ul"), "outside its long answer"),
])
def test_natural_questions_that_cannot_be_used(row, reason):
    with pytest.raises(Unusable, match=reason):
        natural_questions.question(row)


def test_natural_questions_yes_or_no_is_answered_by_the_whole_paragraph():
    question = natural_questions.question(nq_row(short=(), yes_no="YES"))
    assert question.answers == ("yes",)
    assert gold_texts(question) == [question.paragraphs[0].text]


def test_natural_questions_original_and_gzipped(tmp_path):
    row = nq_row() | {"document_title": "Ada Rossi",
                      "document_tokens": [{"token": token, "html_token": "<" in token} for token in TOKENS]}
    del row["document_text"]
    with gzip.open(tmp_path / "nq-dev-00.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n\n" + json.dumps(row) + "\n")
    assert questions("natural_questions", tmp_path) == [natural_questions.question(nq_row())] * 2


def test_qed_and_its_detokenised_spans():
    text = "He ( born in 1900 ) is Levi 's well - known friend ."
    question = natural_questions.qed_question({
        "example_id": 9, "question_text": "whose friend", "title_text": "Levi", "paragraph_text": text,
        "answer_spans": [[text.index("Levi"), text.index("Levi") + 7], [5, 17]], "answer_text": ["Levi 's", "x"]})
    assert question.paragraphs[0].text == "He (born in 1900) is Levi's well-known friend."
    assert question.answers == ("Levi's", "born in 1900") and gold_texts(question) == ["Levi's"]
    with pytest.raises(Unusable, match="no short answer"):
        natural_questions.qed_question({"paragraph_text": "x", "answer_spans": [[-1, -1]]})


def test_detokenised_places_are_those_of_the_tokens():
    joined = detokenise(["<P>", "``", "Hi", "''", ",", "<B>", "it", "'s", "$", "5", "--", "6", "--", "so"])
    assert joined.text == '"Hi",\nit\'s $5–6 – so'
    assert [joined.text[slice(*place)] for place in joined.places] == [
        "", '"', "Hi", '"', ",", "", "it", "'s", "$", "5", "–", "6", "–", "so"]


def test_triviaqa_gold_is_the_best_line_that_holds_an_alias(tmp_path):
    question, = questions("trivia_qa", trivia_folder(tmp_path / "triviaqa-rc"))
    assert question.answers == ("Rome", "The Eternal City")
    assert gold_texts(question) == ["eternal city,"]
    assert [paragraph.title for paragraph in question.paragraphs] == ["Ada", "About Ada"]
    assert questions("trivia_qa", tmp_path) == [question]
    assert questions("trivia_qa", tmp_path / "triviaqa-rc" / "qa" / "web-dev.json") == [question]


def test_triviaqa_on_the_hub_is_the_same_question(tmp_path):
    official, = questions("trivia_qa", trivia_folder(tmp_path))
    row = {"question": "Where was Ada born?", "question_id": "t1",
           "answer": {"value": "Rome", "aliases": ["Rome", "The Eternal City"]},
           "entity_pages": {"title": ["Ada"], "filename": ["Ada.txt"],
                            "wiki_context": [(tmp_path / "evidence/wikipedia/Ada.txt").read_text()]},
           "search_results": {"title": ["About Ada ..."], "filename": ["1/1_2.txt"],
                              "search_context": [(tmp_path / "evidence/web/1/1_2.txt").read_text()]}}
    assert triviaqa.question(row) == official
    with pytest.raises(Unusable, match="no line of its evidence"):
        triviaqa.question(row | {"answer": {"value": "Oslo", "aliases": []}})
    with pytest.raises(Unusable, match="evidence is missing"):
        triviaqa.question(row | {"entity_pages": [], "search_results": []})
    with pytest.raises(Unusable, match="has no answer"):
        triviaqa.question(row | {"answer": {"value": "<unk>", "aliases": []}})


@pytest.mark.parametrize("dataset, value, expected", [
    ("squad", [HOTPOT], "use --dataset hotpot_qa"),
    ("hotpot_qa", SQUAD, "use --dataset squad"),
    ("squad", {"rows": [1]}, "not a known layout (keys rows); expected SQuAD's JSON"),
    ("squad", [1, 2], "(its first row is no object)"),
    ("squad", [], "there is nothing in it"),
    ("squad", {"data": [{"paragraphs": [{}]}]}, "3 faults in its records, read as SQuAD's JSON"),
    ("squad", 5, "expected an object or a list of objects, got a number"),
    ("natural_questions", [{"id": "1", "input": "who", "output": [{"answer": "Ada"}]}], "KILT's questions"),
    ("hotpot_qa", [{"id": "1", "input": "who", "output": [{"answer": "Ada"}]}], "--queries_file"),
    ("natural_questions", [{"question": "who", "answer": ["Ada"]}], "has questions and answers but no passages"),
    ("trivia_qa", {"Data": [{"QuestionId": "1", "Question": "who"}]}, "no answers (TriviaQA's test set)"),
    ("trivia_qa", {"Data": [{"QuestionId": "1", "Question": "who", "Answer": {"Value": "Ada"}}]}, "no evidence folder"),
])
def test_a_file_that_is_not_what_was_asked_for(tmp_path, dataset, value, expected):
    path = write_json(tmp_path / "deep" / "x.json", value)
    with pytest.raises(ValueError) as caught:
        questions(dataset, path)
    assert expected in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("name, content, expected", [
    ("x.json", b'{"data": [\n{"title": }', "not valid JSON (line 2"),
    ("x.jsonl", b'{"context": "a", "question": "b", "answers": {}}\n\n{"question": \n', "line 3: not valid JSON"),
    ("x.json", b'{"data": "\xff"}', "not UTF-8"),
    ("x.jsonl.gz", b"not gzip", "cannot be read"),
    ("x.parquet", b"not parquet", "cannot be read"),
])
def test_a_broken_file_is_told_by_name(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        for _ in open_local("squad", "validation", tmp_path / name, random.Random(0)).rows:
            pass
    assert name in str(caught.value) and expected in str(caught.value)


def test_a_folder_is_searched_for_the_split(tmp_path):
    train = {"data": [{"title": "T", "paragraphs": [{"context": "Ada.", "qas": [
        {"id": "t", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]}]}]}]}
    write_json(tmp_path / "both" / "train-v1.1.json", train)
    write_json(tmp_path / "both" / "dev-v1.1.json", SQUAD)
    write_json(tmp_path / "both" / "notes.json", {"made": "by hand"})
    write_json(tmp_path / "one" / "train-v1.1.json", train)
    write_json(tmp_path / "none" / "test.json", train)

    def description(name, split):
        return open_local("squad", split, tmp_path / name, random.Random(0)).description

    assert description("both", "validation") == str(tmp_path / "both" / "dev-v1.1.json")
    assert description("both", "train") == str(tmp_path / "both" / "train-v1.1.json")
    assert description("one", "validation").endswith("train-v1.1.json (no file of split validation could be used)")
    with pytest.raises(ValueError, match="nothing in it is a validation file of --dataset squad; expected SQuAD's"):
        description("none", "validation")
    with pytest.raises(ValueError, match="no such file or folder"):
        description("nowhere", "validation")


@pytest.mark.parametrize("name, is_list", [("x.jsonl", False), ("x.json", False), ("x.json.gz", False),
                                           ("x.json", True)])
@pytest.mark.parametrize("dataset, value", [("squad", SQUAD), ("hotpot_qa", HOTPOT), ("natural_questions", nq_row())])
def test_an_official_file_in_any_container(tmp_path, name, is_list, dataset, value):
    text = json.dumps([value] if is_list else value).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    source = open_local(dataset, "validation", tmp_path / name, random.Random(0))
    assert len(read_questions(source, 10, random.Random(0), Counter())) == 1, "each has one that can be used"


@pytest.mark.parametrize("dataset, value", [("squad", SQUAD), ("trivia_qa", {"Data": []})])
def test_several_whole_files_in_one_are_refused(tmp_path, dataset, value):
    path = write_json(tmp_path / "x.json", [value, value])
    with pytest.raises(ValueError, match="several whole files in one; give each as a file of its own"):
        open_local(dataset, "validation", path, random.Random(0))

    (tmp_path / "x.jsonl").write_text(json.dumps(value) + "\n{", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: not valid JSON"):
        open_local(dataset, "validation", tmp_path / "x.jsonl", random.Random(0))


def test_a_hotpotqa_test_file_is_told_as_one(tmp_path):
    path = write_json(tmp_path / "x.json", [{name: HOTPOT[name] for name in ("_id", "question", "context")}])
    with pytest.raises(Unusable, match=r"no answer or no supporting facts \(test set\)"):
        questions("hotpot_qa", path)
    squad_row = {"id": "a", "title": "Ada", "context": "She sang.", "question": "Who sang?"}
    with pytest.raises(ValueError, match="not a known layout"):
        questions("hotpot_qa", write_json(path, [squad_row]))


def test_a_new_dataset_is_read_once_it_is_named(tmp_path, monkeypatch):
    layout = Layout("my rows", has_keys("prompt"), fields({"prompt": plain_text}), same_rows, lambda row: row["prompt"],
                    questions_a_record=1, buffered_rows=1)
    monkeypatch.setitem(DATASETS, "mine", QADataset("mine", "me/mine", None, ("mine",), (layout,)))
    path = write_json(tmp_path / "mine.json", [{"prompt": "Who?"}])
    assert open_local("mine", "train", path, random.Random(0)).rows == [{"prompt": "Who?"}]
    with pytest.raises(ValueError, match="this is my rows; use --dataset mine"):
        open_local("squad", "train", path, random.Random(0))


def test_a_dataset_is_known_to_its_own_file_alone():
    layouts = Path(squad.__file__).parent
    others = [path for path in layouts.parents[2].rglob("*.py") if path.parent != layouts]
    named = []
    for path in others:
        text = path.read_text(encoding="utf-8")
        named += [(path.name, dataset.name) for dataset in DATASETS.values()
                  if dataset.hub_name in text or dataset.name != "squad" and f'"{dataset.name}"' in text]
    assert len(others) > 50 and not named, "squad is the default, and may be named"
