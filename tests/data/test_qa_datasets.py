"""The four QA datasets into records: two halves that share nothing, gold among hard negatives, always the same."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from dataclasses import replace

import pytest
from transformers import BatchEncoding

import prepare_small_real_dataset as script
from scaledown import hub
from scaledown.data.answers import holds_answer, padded, question_key
from scaledown.data.qa.datasets import QADatasetConfig, mixed, prepare, require_source
from scaledown.data.qa.gold_and_negatives import Candidate
from scaledown.data.qa.halves import split_in_halves
from scaledown.data.qa.layouts.squad import SQUAD
from scaledown.data.qa.question import Gold, QAQuestion
from scaledown.data.qa.reading import Source, read_questions
from scaledown.data.records import read_records
from scaledown.prompt.passages import Paragraph, Passage

FILLERS = "some said then often while nearby along under quite never always rather".split()
WORDS = "river harbour castle engine garden mountain violin bridge market forest winter summer".split()


def count_words(texts):
    return [len(text.split()) for text in texts]


def squad_file(path, num_articles=6, num_paragraphs=4, seed=0):
    """Articles of one topic each, two questions a paragraph; each answer stands in one paragraph alone."""
    rng = random.Random(seed)
    articles = []
    for a in range(num_articles):
        paragraphs = []
        for p in range(num_paragraphs):
            filler = " ".join(" ".join(rng.choices(FILLERS, k=7)).capitalize() + "." for _ in range(3))
            context = f"{filler} The {WORDS[a]} number {p} has code{a}x{p}. {filler} Its keeper is Keeper{a}x{p} Smith."
            paragraphs.append({"context": context, "qas": [
                {"id": f"{a}-{p}-{kind}", "question": f"{ask} {WORDS[a]} number {p}?",
                 "answers": [{"text": answer, "answer_start": context.index(answer)}]}
                for kind, ask, answer in (("c", "What code has", f"code{a}x{p}"),
                                          ("k", "Who is the keeper of", f"Keeper{a}x{p} Smith"))]})
        articles.append({"title": f"Topic_{a}", "paragraphs": paragraphs})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"data": articles}), encoding="utf-8")
    return str(path)


def hotpot_rows(num_questions=12):
    """Each question has two supporting paragraphs of its own, and shares its distractors with every other."""
    shared = [[f"Shared {i}", [f"Shared {i} is a {word}."]] for i, word in enumerate(WORDS)]
    return [{"_id": f"h{i}", "question": f"Is Alpha{i} like Beta{i}?", "answer": "no" if i % 2 else f"Gamma{i}",
             "supporting_facts": [[f"Alpha{i}", 0], [f"Beta{i}", 0]],
             "context": [[f"Alpha{i}", [f"Alpha{i} is a Gamma{i}."]], [f"Beta{i}", [f"Beta{i} is old, no doubt."]],
                         *shared]} for i in range(num_questions)]


def prepared(source, **settings):
    settings = {"num_examples": 8, "passage_tokens": 40} | settings
    part, = prepare(QADatasetConfig(source=str(source), **settings), count_words)
    return part


def holding(record):
    """Return for each document of a record whether it holds the answer."""
    answers = [padded(answer) for answer in record.references]
    return [holds_answer(padded(document), answers) for document in record.documents]


def documents_of(records):
    return set(itertools.chain.from_iterable(record.documents for record in records))


def test_records_hold_gold_and_hard_negatives_without_the_answer(tmp_path):
    part = prepared(squad_file(tmp_path / "dev.json"))
    assert len(part.train) == 8 and len(part.eval) == 8
    for record in (*part.train, *part.eval):
        assert len(record.documents) == len(set(record.document_ids)) == len(record.titles) == 5
        assert sum(holding(record)) == 1
        keeper_or_code = record.answer.removeprefix("Keeper").removeprefix("code").removesuffix(" Smith")
        assert sum(keeper_or_code in document for document in record.documents) == 1, "one of the gold paragraph"
        assert record.titles[holding(record).index(True)] == f"Topic {record.id.split('-')[1]}"
        assert all(document.startswith(f"{title}. ")
                   for document, title in zip(record.documents, record.titles, strict=True))
        assert max(count_words(record.documents)) <= 40


def test_negatives_are_the_best_of_bm25(tmp_path):
    record = next(record for record in prepared(squad_file(tmp_path / "dev.json"), num_examples=20).train
                  if record.id.endswith("-c"))
    article = record.id.split("-")[1]
    assert record.titles.count(f"Topic {article}") >= 3, "passages on the same topic share the question's words"


def test_the_halves_share_no_article_and_no_document(tmp_path):
    part = prepared(squad_file(tmp_path / "dev.json"), num_examples=1000)
    train = set(itertools.chain.from_iterable(record.titles for record in part.train))
    evaluation = set(itertools.chain.from_iterable(record.titles for record in part.eval))
    assert train and evaluation and not train & evaluation
    assert len(part.train) + len(part.eval) == 48, "with fewer questions than asked for, each is used"
    assert 0.1 < len(part.eval) / 48 < 0.2, "a sixth, as of 1000 and 200"


def test_the_seed_decides_all_and_file_order_nothing(tmp_path):
    source = squad_file(tmp_path / "dev.json")
    first, again, other = (prepared(source, seed=seed) for seed in (1, 1, 2))
    assert (first.train, first.eval) == (again.train, again.eval)
    assert {record.id for record in first.train} != {record.id for record in other.train}
    ids = [record.id for record in first.train]
    assert ids != sorted(ids)
    by_id = {}
    for record in (*first.train, *first.eval, *other.train, *other.eval):
        by_id.update(zip(record.document_ids, record.documents, strict=True))
    assert len(by_id) == len(set(by_id.values())), "a document's id depends on its text alone"
    gold_places = {holding(record).index(True) for record in prepared(source, num_examples=40).train}
    assert len(gold_places) >= 4, "gold stands anywhere"


def test_an_answer_across_a_cut_stays_whole(tmp_path):
    words = [f"w{i}" for i in range(60)]
    context = " ".join(words)
    paragraphs = [{"context": context + f" p{i}", "qas": [
        {"id": f"{i}", "question": f"What {i}?", "answers": [{"text": " ".join(words[start:start + 6]),
                                                       "answer_start": context.index(words[start] + " ")}]}]}
        for i, start in enumerate(range(10, 50))]
    (tmp_path / "dev.json").write_text(json.dumps({"data": [
        {"title": f"T{i}", "paragraphs": [paragraph]} for i, paragraph in enumerate(paragraphs)]}), encoding="utf-8")
    part = prepared(tmp_path / "dev.json", num_examples=30, passage_tokens=16)
    assert not part.dropped and len(part.train) + len(part.eval) == 40
    for record in (*part.train, *part.eval):
        assert sum(record.answer in document for document in record.documents) == 1


def test_what_cannot_be_used_is_counted(tmp_path):
    path = tmp_path / "dev.json"
    squad_file(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["data"][0]["paragraphs"][0]["qas"] += [
        {"id": "x", "question": "Who?", "answers": []},
        {"id": "y", "question": "Who?", "answers": [{"text": "the", "answer_start": 0}]}]
    content["data"][0]["paragraphs"][0]["context"] = "the " + content["data"][0]["paragraphs"][0]["context"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert prepared(path).dropped == {"it cannot be answered (SQuAD 2.0)": 1, "its answer is empty": 1,
                                      "its answer is not where answer_start says": 2}


def squad_questions(path, *questions):
    """A file with an article for each (id, question, answer)."""
    articles = []
    for number, (name, question, answer) in enumerate(questions):
        context = f"Article {number} says {answer}, and no more."
        answers = [{"text": answer, "answer_start": context.index(answer)}]
        articles.append({"title": f"T{number}", "paragraphs": [
            {"context": context, "qas": [{"id": name, "question": question, "answers": answers}]}]})
    path.write_text(json.dumps({"data": articles}), encoding="utf-8")
    return path


def test_questions_whose_ids_start_anew_are_all_used_and_repetitions_counted(tmp_path, tokenizer, capsys):
    questions = [(str(i % 2), f"What is thing {i}?", f"Answer{i}") for i in range(12)]
    questions.append(("1", "what is thing 3 ?", "answer3"))
    path = squad_questions(tmp_path / "dev.json", *questions)
    part = prepared(path)
    records = (*part.train, *part.eval)
    assert {record.answer.lower() for record in records} == {f"answer{i}" for i in range(12)}
    assert len(records) == 12 == len({record.id for record in records})
    assert {record.id for record in records} > {"squad-0", "squad-1"}
    assert part.dropped == {"it repeats another question: the same id, the same words and an answer in common": 1}
    assert [record.id for record in prepared(path).train] == [record.id for record in part.train]

    assert script.main(["--source", str(path), "--num_examples", "20", "--output_file", str(tmp_path / "X.json")]) == 0
    told = capsys.readouterr().out
    assert "  1 left out: it repeats another question" in told
    assert "; 20 were asked for\n" in told
    assert "no more of the questions that were read can be used; 1 were left out: 1 because it repeats" in told


def test_equal_questions_stay_in_one_half_whatever_their_guise(tmp_path):
    guises = ["Who wrote Café {}?", "who wrote café {}", "  Who wrote “Cafe\u0301 {}” ? ", "WHO WROTE CAFÉ-{}!"]
    questions = []
    for i in range(20):
        questions += [(f"{i} {kind}", guise.format(i), f"Author{i}") for kind, guise in enumerate(guises)]
    path = squad_questions(tmp_path / "dev.json", *questions)
    for seed in range(3):
        part = prepared(path, num_examples=40, seed=seed)
        assert len(part.train) == len(part.eval) == 40
        assert not {record.answer for record in part.train} & {record.answer for record in part.eval}


@pytest.mark.parametrize("one, other", [("कि क्या है?", "का क्या है?"), ("Who is Ann?", "Who is Anne?"), ("1 2?", "1 3?")])
def test_questions_that_differ_in_a_letter_are_not_equal(one, other):
    assert question_key(one) != question_key(other)


def test_a_question_in_two_datasets_of_a_mix_stays_in_one_half(tmp_path):
    (tmp_path / "squad").mkdir()
    squad_questions(tmp_path / "squad" / "dev.json", *((str(i), f"is alpha{i} like beta{i}", f"Gamma{i}")
                                                       for i in range(24)))
    (tmp_path / "hotpotqa").mkdir()
    (tmp_path / "hotpotqa" / "dev.json").write_text(json.dumps(hotpot_rows(24)), encoding="utf-8")
    rows = hub_rows()
    for dataset, folder in (("natural_questions", "nq"), ("trivia_qa", "triviaqa")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dev.json").write_text(json.dumps(rows[dataset]), encoding="utf-8")
    for seed in range(3):
        parts = prepare(QADatasetConfig(dataset="all", source=str(tmp_path), num_examples=40, seed=seed), count_words)
        train, evaluation = mixed(parts, seed)
        train_keys = {question_key(record.query) for record in train}
        evaluation_keys = {question_key(record.query) for record in evaluation}
        assert len(parts[0].eval) == len(parts[3].eval) == 10 and not train_keys & evaluation_keys
        assert not documents_of(train) & documents_of(evaluation)


def test_files_that_are_not_used_are_told(tmp_path, tokenizer, capsys):
    folder = tmp_path / "squad"
    squad_file(folder / "dev-1.json")
    (folder / "dev-2.json").write_text(json.dumps(hotpot_rows()), encoding="utf-8")
    (folder / "dev-3.json").write_text(json.dumps(hub_rows()["squad"]), encoding="utf-8")
    assert script.main(["--source", str(folder), "--num_examples", "8", "--output_file", str(tmp_path / "X.json")]) == 0
    told = capsys.readouterr().out
    assert "a file left out: " in told and "dev-2.json: this is HotpotQA's JSON" in told
    assert "dev-3.json: its layout is SQuAD's rows on the Hub" in told
    (folder / "dev-2.json").write_text('{"data": ', encoding="utf-8")
    assert script.main(["--source", str(folder), "--output_file", str(tmp_path / "X.json")]) == 2
    assert "dev-2.json: not valid JSON" in capsys.readouterr().err


def test_hotpotqa_keeps_both_gold_passages_and_yes_or_no(tmp_path):
    (tmp_path / "dev.json").write_text(json.dumps(hotpot_rows()), encoding="utf-8")
    part = prepared(tmp_path / "dev.json", dataset="hotpot_qa", num_examples=6)
    assert {record.answer for record in part.train} >= {"no"}
    for record in (*part.train, *part.eval):
        number = record.id.removeprefix("hotpot_qa-h")
        assert {f"Alpha{number}", f"Beta{number}"} <= set(record.titles)
        assert len(record.documents) == 5
    shared = documents_of(part.train) & documents_of(part.eval)
    assert not shared, "distractors that all questions share belong to one half"
    with pytest.raises(ValueError, match="12 because it has more gold passages than --num_documents 1"):
        prepared(tmp_path / "dev.json", dataset="hotpot_qa", num_documents=1)


def candidate(name, gold, others=()):
    paragraphs = tuple(Paragraph(article, article, f"text of {article}") for article in (gold, *others))
    return Candidate(QAQuestion(name, f"q {name}", ("a",), paragraphs, (Gold(0, (0, 4)),)),
                     (Passage(paragraphs[0], 0, 4, f"{gold}. text"),))


def split(candidates, eval_share, rng):
    """Both halves of one dataset alone."""
    return split_in_halves({"squad": candidates}, {"squad": eval_share}, rng)["squad"]


def test_a_giant_group_goes_to_training():
    giant = [candidate(f"g{i}", "giant") for i in range(80)]
    small = [candidate(f"s{i}", f"small {i}") for i in range(20)]
    train, evaluation = split(giant + small, 0.3, random.Random(0))
    assert {found.question.id for found in giant} <= {found.question.id for found in train.candidates}
    assert len(evaluation.candidates) == 20
    with pytest.raises(ValueError, match="squad: 80 usable questions cannot be split .* share link them all"):
        split(giant, 0.3, random.Random(0))
    train, evaluation = split([*giant, candidate("s", "small")], 0.001, random.Random(0))
    assert [found.question.id for found in evaluation.candidates] == ["s"]


def test_what_is_gold_in_one_half_is_no_distractor_in_the_other():
    found = [candidate("first", "article 0", others=["article 1"]), candidate("second", "article 1")]
    for seed in range(4):
        for half in split([found[0], candidate("third", "article 2"), found[1]], 0.4, random.Random(seed)):
            gold = {c.question.paragraphs[0] for c in half.candidates}
            assert gold == set(half.paragraphs)


def test_questions_are_drawn_from_all_rows_of_a_list_and_of_a_stream(tmp_path):
    rows = [{"id": f"{i}", "title": f"T{i}", "context": f"Answer{i}.", "question": "Which?",
             "answers": {"text": [f"Answer{i}"], "answer_start": [0]}} for i in range(100)]
    layout = replace(SQUAD.layouts[1], questions_a_record=1, buffered_rows=50)

    def ids_of(content, number):
        questions = read_questions(Source(layout, content, "x"), number, random.Random(0), Counter())
        return [int(question.id) for question in questions]

    drawn, streamed = ids_of(rows, 10), ids_of(iter(rows), 10)
    assert len(drawn) == len(set(drawn)) == len(streamed) == len(set(streamed)) == 10
    assert max(drawn) > 60 and drawn != sorted(drawn)
    assert min(streamed) < 50 and max(streamed) > 10 and streamed != sorted(streamed)
    assert sorted(ids_of(iter(rows), 1000)) == list(range(100))


def test_records_of_a_stream_are_not_its_first_rows(monkeypatch):
    rows = [row | {"id": f"{i}", "title": f"T{i}", "context": f"{row['context']} {i}"}
            for i, row in enumerate(hub_rows()["squad"] * 10)]
    layout = replace(SQUAD.layouts[1], buffered_rows=1)
    monkeypatch.setattr("scaledown.data.qa.datasets.open_local", lambda *_: Source(layout, iter(rows), "a stream"))
    ids = [int(record.id.removeprefix("squad-")) for record in prepared("x", num_examples=5).train]
    assert max(ids) > 20


def test_a_paragraph_that_stands_in_articles_of_both_halves_is_used_in_neither():
    same = [Paragraph(f"copy {i}", "t", "one text in\n two articles") for i in range(2)]
    found = [candidate(f"q{i}", f"article {i}") for i in range(2)]
    found = [replace(c, question=replace(c.question, paragraphs=(*c.question.paragraphs, same[i])))
             for i, c in enumerate(found)]
    texts = []
    for half in split(found, 0.5, random.Random(0)):
        assert len(half.candidates) == 1
        texts.append({" ".join(paragraph.text.split()) for paragraph in half.paragraphs})
    assert not texts[0] & texts[1]


def hub_features():
    """The features that each dataset publishes on the Hub."""
    from datasets import ClassLabel, List, Sequence, Value

    text, number = Value("string"), Value("int64")
    place = {"start_token": number, "end_token": number, "start_byte": number, "end_byte": number}
    return {
        "squad": {"id": text, "title": text, "context": text, "question": text,
                  "answers": Sequence({"text": text, "answer_start": Value("int32")})},
        "hotpot_qa": {"id": text, "question": text, "answer": text, "type": text, "level": text,
                      "supporting_facts": Sequence({"title": text, "sent_id": Value("int32")}),
                      "context": Sequence({"title": text, "sentences": List(text)})},
        "trivia_qa": {"question": text, "question_id": text, "question_source": text,
                      "entity_pages": Sequence({"doc_source": text, "filename": text, "title": text,
                                                "wiki_context": text}),
                      "search_results": Sequence({"description": text, "filename": text, "rank": Value("int32"),
                                                  "title": text, "url": text, "search_context": text}),
                      "answer": {"aliases": List(text), "normalized_aliases": List(text),
                                 "matched_wiki_entity_name": text, "normalized_matched_wiki_entity_name": text,
                                 "normalized_value": text, "type": text, "value": text}},
        "natural_questions": {
            "id": text, "document": {"title": text, "url": text, "html": text, "tokens": Sequence(
                {"token": text, "is_html": Value("bool"), "start_byte": number, "end_byte": number})},
            "question": {"text": text, "tokens": List(text)},
            "long_answer_candidates": Sequence(place | {"top_level": Value("bool")}),
            "annotations": Sequence({
                "id": text, "long_answer": place | {"candidate_index": number},
                "short_answers": Sequence(place | {"text": text}),
                "yes_no_answer": ClassLabel(names=["NO", "YES"])})},
    }


def hub_rows():
    """Six rows of each dataset; question ``i`` is answered by ``Answer{i}``."""
    def place(start, end):
        return {"start_token": start, "end_token": end, "start_byte": 0, "end_byte": 0}

    def columns(*objects):
        found = {}
        for key in objects[0]:
            found[key] = [value[key] for value in objects]
        return found

    rows = {"squad": [], "hotpot_qa": [], "trivia_qa": [], "natural_questions": []}
    for i in range(6):
        sentence = f"The {WORDS[i]} is named Answer{i} ."
        rows["squad"].append({"id": f"{i}", "title": f"T{i}", "context": sentence, "question": f"Which {WORDS[i]}?",
                              "answers": {"text": [f"Answer{i}"], "answer_start": [sentence.index("Answer")]}})
        rows["hotpot_qa"].append(
            {"id": f"{i}", "question": f"Which {WORDS[i]}?", "answer": f"Answer{i}", "type": "bridge", "level": "hard",
             "supporting_facts": {"title": [f"T{i}"], "sent_id": [0]},
             "context": {"title": [f"T{i}", f"U{i}"], "sentences": [[sentence], [f"Unlike the {WORDS[-i - 1]}."]]}})
        pages = {"title": [f"T{i}"], "filename": [f"{i}.txt"]}
        rows["trivia_qa"].append(
            {"question": f"Which {WORDS[i]}?", "question_id": f"{i}", "question_source": "",
             "entity_pages": pages | {"doc_source": [""], "wiki_context": [f"On it.\n{sentence}"]},
             "search_results": {key: [] for key in ("description", "filename", "rank", "title", "url",
                                                    "search_context")},
             "answer": {"aliases": [f"answer{i}"], "normalized_aliases": [], "matched_wiki_entity_name": "",
                        "normalized_matched_wiki_entity_name": "", "normalized_value": "", "type": "", "value":
                        f"Answer{i}"}})
        tokens = ["<P>", *sentence.split(), "</P>", "<P>", "More", "</P>"]
        annotation = {"id": "1", "long_answer": place(0, 8) | {"candidate_index": 0}, "yes_no_answer": -1,
                      "short_answers": columns(place(5, 6) | {"text": f"Answer{i}"})}
        nothing = annotation | {"long_answer": place(-1, -1) | {"candidate_index": -1},
                                "short_answers": {key: [] for key in annotation["short_answers"]}}
        rows["natural_questions"].append(
            {"id": f"{i}", "document": {"title": f"T{i}", "url": "", "html": "", "tokens": columns(*(
                {"token": token, "is_html": "<" in token, "start_byte": 0, "end_byte": 0} for token in tokens))},
             "question": {"text": f"which {WORDS[i]}", "tokens": []},
             "long_answer_candidates": columns(place(0, 8) | {"top_level": True}, place(8, 11) | {"top_level": True}),
             "annotations": columns(nothing, annotation)})
    return rows


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    from datasets import Dataset, Features

    folder = tmp_path_factory.mktemp("parquet")
    features = hub_features()
    for dataset, rows in hub_rows().items():
        (folder / dataset).mkdir()
        for shard in range(2):
            table = Dataset.from_list(rows[3 * shard:3 * shard + 3], features=Features(features[dataset]))
            table.to_parquet(folder / dataset / f"validation-0000{shard}-of-00002.parquet")
    return folder


@pytest.mark.parametrize("dataset", ["squad", "hotpot_qa", "trivia_qa", "natural_questions"])
def test_the_published_features_of_the_hub(parquet, dataset):
    part = prepared(parquet / dataset, dataset=dataset, num_examples=3, num_documents=2)
    records = (*part.train, *part.eval)
    assert sorted(record.id for record in records) == [f"{dataset}-{i}" for i in range(6)]
    assert len(part.train) == 3 and not part.dropped
    for record in records:
        assert record.answer == f"Answer{record.id[-1]}" and len(record.documents) == 2
        assert sum(record.answer in document for document in record.documents) == 1


def test_the_hub_is_asked_for_the_current_ids(parquet, monkeypatch):
    import datasets

    asked, load = [], datasets.load_dataset

    def from_parquet(path, name, split, streaming):
        asked.append((path, name, split, streaming))
        folder = parquet / next(dataset for dataset in hub_rows() if dataset in path)
        return load("parquet", data_files=[str(file) for file in folder.iterdir()], split="train", streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", from_parquet)
    monkeypatch.setattr(hub, "locate", lambda name, kind: name)
    parts = prepare(QADatasetConfig(dataset="all", num_examples=10, num_documents=2), count_words)
    assert asked == [("rajpurkar/squad", None, "validation", True),
                     ("google-research-datasets/natural_questions", None, "validation", True),
                     ("mandarjoshi/trivia_qa", "rc", "validation", True),
                     ("hotpotqa/hotpot_qa", "distractor", "validation", True)]
    assert [len(part.train) for part in parts] == [3, 3, 2, 2], "ten in four parts, the first two one more"
    train, evaluation = mixed(parts, 0)
    assert len(train) == 10 and len(evaluation) == 12
    unmixed = itertools.chain.from_iterable(part.train for part in parts)
    assert [record.id for record in train] != [record.id for record in unmixed]


def test_all_four_from_one_folder(parquet, monkeypatch):
    (parquet / "squad").rename(parquet / "elsewhere")
    with pytest.raises(ValueError, match="no folder squad in it"):
        require_source(QADatasetConfig(dataset="all", source=str(parquet)))
    (parquet / "elsewhere").rename(parquet / "squad")
    parts = prepare(QADatasetConfig(dataset="all", source=str(parquet), num_examples=4, num_documents=2), count_words)
    assert [(part.dataset, len(part.train), len(part.eval)) for part in parts] == [
        ("squad", 1, 1), ("natural_questions", 1, 1), ("trivia_qa", 1, 1), ("hotpot_qa", 1, 1)]


def test_settings_that_cannot_be(tmp_path):
    for settings, expected in (({"num_examples": 0, "num_documents": 0}, "--num_examples.*; --num_documents"),
                               ({"passage_tokens": 8}, "--passage_tokens must be at least 16")):
        with pytest.raises(ValueError, match=expected):
            QADatasetConfig(**settings)
    with pytest.raises(ValueError, match="at least 4 with --dataset all"):
        require_source(QADatasetConfig(dataset="all", num_examples=3))
    sizes = {number: QADatasetConfig(num_examples=number).num_eval_examples for number in (1, 100, 500, 5000)}
    assert sizes == {1: 1, 100: 100, 500: 200, 5000: 1000}


@pytest.fixture
def tokenizer(monkeypatch):
    def split_words(texts, **options):
        return BatchEncoding({"input_ids": [text.split() for text in texts]})

    monkeypatch.setattr(hub, "load_tokenizer", lambda name: split_words)


def test_the_script_writes_both_halves_and_says_what_it_got(tmp_path, tokenizer, capsys):
    source, output = squad_file(tmp_path / "dev.json"), tmp_path / "out" / "X.json"
    assert script.main(["--source", source, "--num_examples", "20", "--output_file", str(output)]) == 0
    assert len(read_records(output)) == 20
    evaluation = read_records(tmp_path / "out" / "X_eval.json")
    told = capsys.readouterr().out
    assert "squad: 20 training and 20 evaluation records of 5 documents" in told.splitlines()[0]
    assert f"training: {output}: 20 records, 5.0 documents each" in told
    assert f"X_eval.json: {len(evaluation)} records" in told and "no more" not in told
    assert script.main(["--source", source, "--num_examples", "400", "--output_file", str(output)]) == 0
    told = capsys.readouterr().out
    assert "400 were asked for" in told and told.endswith("no more of the questions that were read can be used\n")


@pytest.mark.parametrize("flags, expected", [
    (["--source", "nowhere.json"], "--source nowhere.json: no such file or folder"),
    (["--num_documents", "0"], "--num_documents must be above 0"),
])
def test_the_script_s_mistakes_are_one_message_and_exit_code_2(flags, expected, tmp_path, tokenizer, capsys,
                                                              monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert script.main(flags) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_the_hub_the_answer_names_source(tmp_path, tokenizer, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert script.main(["--dataset", "hotpot_qa"]) == 2
    told = capsys.readouterr().err
    assert "hotpotqa/hotpot_qa" in told and "--source" in told
