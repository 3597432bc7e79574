from __future__ import annotations

import itertools
import random

import pytest

import example_dataset_generation
from scaledown.data.records import eval_path, read_records
from scaledown.data.world.naming import of_split, possessive_of
from scaledown.data.world.synthetic import MOST_DOCUMENTS, Difficulty, World, synthetic_records
from scaledown.data.world.wordings import KINDS

HARD = Difficulty(hard_share=1.0, two_hop_share=0.0)


def records(split="eval", count=150, seed=1, difficulty=None):
    return list(synthetic_records(count, seed, split, difficulty))


def test_the_world_is_as_rich_as_promised():
    relations = list(itertools.chain.from_iterable(kind.relations for kind in KINDS))
    assert len(relations) >= 12
    for relation in relations:
        assert len(set(relation.statements)) >= 6
        assert all("{v}" in statement for statement in relation.statements)
        assert all("{v}" not in question for question in relation.questions)


def test_every_answer_stands_in_a_gold_document_and_the_question_names_it():
    for record in records(difficulty=Difficulty(two_hop_share=0.3)):
        scored = list(zip(record.documents, record.titles, record.reranking_scores, strict=True))
        gold = [document for document, _, score in scored if score > 0]
        assert len(gold) in (1, 2)
        assert any(record.answer in document for document in gold)
        titles = [title for _, title, score in scored if score > 0]
        assert any(title in record.query for title in titles)


def test_one_seed_gives_one_world_and_another_seed_another():
    assert records(seed=3) == records(seed=3)
    assert records(seed=3) != records(seed=4)


def test_no_name_is_in_both_halves():
    train = set(itertools.chain.from_iterable(record.titles for record in records("train")))
    evaluation = set(itertools.chain.from_iterable(record.titles for record in records("eval")))
    assert not train & evaluation
    assert all(of_split(title, "eval") for title in evaluation)


def test_all_hard_documents_are_of_one_kind_and_state_the_same_relations():
    world = World(random.Random(0))
    for _ in range(50):
        documents, _ = world.context(HARD)
        assert len(documents) == 5
        assert len({document.entity.kind.name for document in documents}) == 1
        assert len({document.entity.name for document in documents}) == 5
        stated = set()
        for document in documents:
            stated.add(frozenset(relation.name for relation in document.stated))
        assert len(stated) == 1


def test_a_two_hop_question_leads_through_one_document_to_another():
    world = World(random.Random(0))
    for _ in range(50):
        documents, [question] = world.context(Difficulty(two_hop_share=1.0))
        first, second = (documents[place] for place in question.gold)
        assert first.entity.name in question.text
        assert second.entity.name not in question.text
        assert second.entity.name in first.text
        assert question.answer in second.text


def test_documents_come_in_random_order():
    places = {max(range(5), key=record.reranking_scores.__getitem__) for record in records(difficulty=HARD)}
    assert places == set(range(5))


def test_an_answer_is_not_known_without_its_document():
    answers = [record.answer for record in records(count=2000)]
    assert max(answers.count(answer) for answer in set(answers)) / len(answers) < 0.02


@pytest.mark.parametrize(("name", "possessive"), [("Oda Velm", "Oda Velm's"), ("Stein Mills", "Stein Mills'")])
def test_possessives(name, possessive):
    assert possessive_of(name) == possessive


@pytest.mark.parametrize("num_documents", [2, 5, 60])
def test_no_two_documents_of_a_two_hop_question_share_a_name(num_documents):
    count = 40 if num_documents == 60 else 1000
    for record in records(count=count, difficulty=Difficulty((num_documents, num_documents), two_hop_share=1.0)):
        assert len(set(record.titles)) == num_documents, "they would contradict each other"


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="train, eval"):
        World(random.Random(0), "test")


def test_the_script_writes_both_halves(tmp_path, capsys):
    path = tmp_path / "synthetic.json"
    assert example_dataset_generation.main(["--num_examples", "20", "--output_file", str(path)]) == 0
    assert len(read_records(path)) == 20
    assert len(read_records(eval_path(path))) == 4
    assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--num_examples=0", "--num_documents=-1", "--num_documents=500"])
def test_the_script_names_a_bad_flag(flag, tmp_path, capsys):
    assert example_dataset_generation.main([flag, "--output_file", str(tmp_path / "x.json")]) == 2
    assert flag.partition("=")[0] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "."])
def test_the_script_wants_the_name_of_a_file(name, capsys):
    assert example_dataset_generation.main(["--num_examples", "2", "--output_file", name]) == 2
    assert "name of a file" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["train", "eval"])
def test_there_are_names_for_the_most_documents(split):
    most = Difficulty((MOST_DOCUMENTS, MOST_DOCUMENTS), hard_share=1.0)
    for record in synthetic_records(8, 1, split, most):
        assert len(set(record.titles)) == MOST_DOCUMENTS
