"""Numbers, dates and names behind memory: which are found, how many fit, and that all prompts of a model have them."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.data.records import Record
from scaledown.models.memory import Memory
from scaledown.models.processor import MEMORY, SEPARATOR
from scaledown.prompt.kept_numbers import kept_numbers, numbers_and_names
from scaledown.prompt.plain_text import plain_ids
from scaledown.training import run
from scaledown.training.batches import prompt_sizes

QUESTIONS = ["Who was born in London?", "where?"]
DOCUMENTS = [["Ada Lovelace was born in London in 1815.", "no names here"], ["The capital of Norway is Oslo."]]
BEHIND = [[" 1815 Ada Lovelace", ""], [" Norway Oslo"]]
RECORDS = [Record("a", QUESTIONS[0], tuple(DOCUMENTS[0]), "Ada"),
           Record("b", QUESTIONS[1], tuple(DOCUMENTS[1]), "Oslo")]


@pytest.mark.parametrize(("passage", "found"), [
    ("Ada Lovelace was born on 10 December 1815 in London.", ["10 December 1815", "Ada Lovelace", "London"]),
    ("In 1843 she paid $1,234.50, or 12%, at 12:30.", ["1843", "$1,234.50", "12%", "12:30"]),
    ("She left. He came. It was Bob. Then Bob Dole spoke", ["Bob", "Then Bob Dole"]),
    ("George W. Bush met Jean-Luc O'Neil in St. Ives", ["George W. Bush", "Jean-Luc O'Neil", "St. Ives"]),
    ("Paris and Paris, Paris", ["Paris"]),
    ("в 1896 году Анна Павлова была в Москве", ["1896", "Анна Павлова", "Москве"]),
    ("He was born in 1815\nLondon grew.", ["1815"]), ("see Ada\nLovelace Bob", ["Ada", "Lovelace Bob"]),
    ("٢٠ كتابا", ["٢٠"]), ("", []), ("nothing at all", [])])
def test_numbers_and_names_are_found_by_their_form(passage, found):
    assert numbers_and_names(passage) == found


def test_what_the_query_says_is_left_out():
    passage = "Ada Lovelace met Charles Babbage in June 1833."
    assert numbers_and_names(passage, "When did ada lovelace meet him?") == ["June 1833", "Charles Babbage"]
    assert numbers_and_names(passage, "Where was Lovelace in 1833?") == ["June 1833", "Ada Lovelace", "Charles Babbage"]


def test_only_what_fits_whole_is_kept():
    tokenizer = tiny.tokenizer()
    passage = "Ada came in 23.45 and in 7 with Charlemagne, and left with Bob."
    lengths = [len(plain_ids(tokenizer, [f" {each}"])[0]) for each in ("23.45", "7", "Charlemagne", "Bob")]
    year, one, long, bob = lengths
    assert long > bob and year > one
    assert kept_numbers(tokenizer, "?", [passage], sum(lengths)) == [" 23.45 7 Charlemagne Bob"]
    assert kept_numbers(tokenizer, "?", [passage], year + one + bob) == [" 23.45 7 Bob"]
    assert kept_numbers(tokenizer, "?", [passage, "Oslo"], one) == [" 7", ""]
    for budget in range(20):
        text, = kept_numbers(tokenizer, "?", [passage], budget)
        assert len(plain_ids(tokenizer, [text])[0]) <= budget


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"), layers=2)


def config(generator: str, **settings) -> ScaleDownConfig:
    return ScaleDownConfig(generator, num_layers=1, num_memory_tokens=2, lora_dropout=0.0, **settings)


@pytest.fixture(scope="module")
def model(generator):
    torch.manual_seed(0)
    made = ScaleDownModel(config(generator, keep_numbers=40, enable_reranking=True))
    tiny.move_adapter(made)
    return made


def test_they_stand_behind_the_memory_of_their_document(model):
    ids, = model.processor.memory_prompts(QUESTIONS[:1], [2], texts=[[None, "Paris in 1900", None]],
                                          kept_numbers=BEHIND[:1])
    behind, text = plain_ids(model.processor.tokenizer, [" 1815 Ada Lovelace", "Paris in 1900"])
    prompt, memory = model.processor.prompt, [MEMORY] * 2
    documents = [*memory, *behind, SEPARATOR, *text, SEPARATOR, *memory]
    assert ids == [*prompt.start, *documents, *prompt.branch(QUESTIONS[0])]


def test_answers_and_training_read_them_alike(model):
    memory = model.compress(QUESTIONS, DOCUMENTS)
    assert memory.origin.kept_numbers == tuple(map(tuple, BEHIND))
    read = model.prompts(QUESTIONS, memory).num_prompt_tokens
    wanted = model.processor.memory_prompts(QUESTIONS, [2, 1], kept_numbers=BEHIND)
    bare = model.processor.memory_prompts(QUESTIONS, [2, 1])
    assert read == list(map(len, wanted)) and read != list(map(len, bare))

    batch = model.processor.collate(RECORDS)
    answers = [model.processor.answer_ids(record.answer)[:-1] for record in RECORDS]
    assert batch["prompts"].ids.tolist() == [*wanted[0], *answers[0], *wanted[1], *answers[1]]
    mixed = model.processor.collate(RECORDS, text_documents=[[0], []])["prompts"].ids.tolist()
    texts = model.processor.memory_prompts(QUESTIONS, [1, 1], texts=[[DOCUMENTS[0][0], None], [None]],
                                           kept_numbers=[[""], BEHIND[1]])
    assert mixed == [*texts[0], *answers[0], *texts[1], *answers[1]]


def test_they_go_with_their_memory(model, tmp_path):
    memory = model.compress(QUESTIONS, DOCUMENTS)
    memory.save(tmp_path)
    loaded = Memory.load(tmp_path)
    assert loaded.origin == memory.origin
    texts = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=4)
    assert model.answer(QUESTIONS, memory=loaded, max_new_tokens=4) == texts
    assert loaded.select([1]).origin.kept_numbers == ((" Norway Oslo",),)
    assert loaded.keep([[1, 0], []]).origin.kept_numbers == (("", " 1815 Ada Lovelace"), ())
    with pytest.raises(ValueError, match="take what compress returns"):
        model.answer(QUESTIONS, memory=dataclasses.replace(memory, origin=None))


def test_without_the_setting_prompts_are_as_they_were(generator):
    plain = ScaleDownModel(config(generator))
    assert plain.processor.kept_numbers(QUESTIONS, DOCUMENTS) is None
    memory = plain.compress(QUESTIONS, DOCUMENTS)
    assert memory.origin.kept_numbers is None
    assert plain.prompts(QUESTIONS, memory).num_prompt_tokens == list(map(
        len, plain.processor.memory_prompts(QUESTIONS, [2, 1])))


def test_a_training_that_starts_from_a_checkpoint_may_change_the_budget(generator, model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    start = str(tmp_path / "model")
    folder = ScaleDownModel.from_pretrained(start).config.generator_model
    for asked, found in ((None, 40), (0, 0), (8, 8)):
        new = run.build_model(config(folder, keep_numbers=asked), "cpu", 1, start)
        assert new.config.keep_numbers == new.processor.config.keep_numbers == found


def test_the_budget_is_checked_and_counts_in_a_prompt_s_size(generator):
    with pytest.raises(ValueError, match="--keep_numbers must be at least 0"):
        config(generator, keep_numbers=-1)
    plain, kept = (prompt_sizes(RECORDS, config(generator, keep_numbers=number)) for number in (None, 8))
    assert [after - before for before, after in zip(plain, kept, strict=True)] == [16, 8]
