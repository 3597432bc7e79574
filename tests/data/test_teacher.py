"""The teacher's settings, and the local teacher on tiny models against transformers' own generate."""

from __future__ import annotations

import importlib.util

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from scaledown.data.pipeline.teacher import TeacherConfig, load_teacher
from scaledown.data.pipeline.teacher.local import LocalTeacher
from scaledown.prompt import Prompt, chat_messages

QUESTIONS = [("Where was Ada Lovelace born?", ["Ada Lovelace was born in London in 1815.", "Paris is in France."]),
             ("Who?", []), ("What is the capital of Norway?", ["The capital of Norway is Oslo. " * 9]),
             (" When? ", ["In 1815."])]


@pytest.fixture(scope="module", params=[tiny.CHATML, tiny.NO_SYSTEM, None], ids=["chatml", "no system", "base"])
def folder(request, tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("teacher"), chat_template=request.param)


def reference(folder, prompt):
    """The greedy answer to one prompt, alone and unpadded."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    plain = GenerationConfig(do_sample=False, max_new_tokens=7, eos_token_id=Prompt(tokenizer).end_id, pad_token_id=0)
    said = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), generation_config=plain)
    return tokenizer.decode(said[0, len(prompt):], skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_answers_are_those_of_transformers_alone_and_unpadded(folder, batch_size):
    teacher = load_teacher(TeacherConfig(teacher_model=folder, teacher_batch_size=batch_size, teacher_max_new_tokens=7))
    prompt = Prompt(AutoTokenizer.from_pretrained(folder))
    prompts = [prompt.as_chat(*question) for question in QUESTIONS]
    pairs = list(teacher.answers(QUESTIONS))
    assert sorted(number for number, _ in pairs) == [0, 1, 2, 3]
    assert dict(pairs) == {number: reference(folder, ids) for number, ids in enumerate(prompts)}
    assert len(set(dict(pairs).values())) > 1
    assert teacher.num_prompt_tokens == sum(map(len, prompts))


@pytest.mark.parametrize("template", [tiny.CHATML, tiny.NO_SYSTEM])
def test_the_prompt_is_what_a_chat_server_reads(template):
    tokenizer = tiny.tokenizer(template)
    messages = chat_messages(*QUESTIONS[0], has_system_role=template == tiny.CHATML)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert Prompt(tokenizer).as_chat(*QUESTIONS[0]) == ids


def test_the_prompt_says_what_the_students_does():
    tokenizer = tiny.tokenizer()
    query, documents = QUESTIONS[0]
    prompt = Prompt(tokenizer)
    students = prompt.of_texts(query, [tokenizer(text, add_special_tokens=False).input_ids for text in documents])
    assert tokenizer.decode(prompt.as_chat(query, documents)) == tokenizer.decode(students)


def test_a_models_own_penalties_and_temperature_are_left_out(tmp_path):
    folder = tiny.generator_folder(tmp_path)
    plain = dict(load_teacher(TeacherConfig(teacher_model=folder, teacher_max_new_tokens=9)).answers(QUESTIONS))
    GenerationConfig(do_sample=True, temperature=5.0, repetition_penalty=9.0, no_repeat_ngram_size=1,
                     eos_token_id=1).save_pretrained(folder)
    assert dict(load_teacher(TeacherConfig(teacher_model=folder, teacher_max_new_tokens=9)).answers(QUESTIONS)) == plain


def test_more_questions_than_are_sorted_together(tmp_path, monkeypatch):
    monkeypatch.setattr("scaledown.data.pipeline.teacher.local.BATCHES_AT_ONCE", 1)
    teacher = load_teacher(TeacherConfig(teacher_model=tiny.generator_folder(tmp_path), teacher_batch_size=3,
                                         teacher_max_new_tokens=2))
    numbers = [number for number, _ in teacher.answers(QUESTIONS * 2)]
    assert set(numbers[:3]) == {0, 1, 2} and sorted(numbers) == list(range(8))


def test_what_does_not_fit_the_model_is_told(tmp_path):
    teacher = load_teacher(TeacherConfig(teacher_model=tiny.generator_folder(tmp_path)))
    with pytest.raises(ValueError, match="1024 tokens at most.*fewer or shorter documents"):
        list(teacher.answers([("Who?", ["a document of some words "] * 200)]))


def test_what_does_not_fit_the_memory_names_the_flag(tmp_path, monkeypatch):
    teacher = load_teacher(TeacherConfig(teacher_model=tiny.generator_folder(tmp_path)))

    def generate(**_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(teacher._model, "generate", generate)
    with pytest.raises(ValueError, match="--teacher_batch_size"):
        list(teacher.answers(QUESTIONS))


@pytest.mark.parametrize("name", ["nobody/nothing", "./nowhere"])
def test_a_teacher_that_is_not_there_names_its_flag(name):
    with pytest.raises(ValueError, match=f"--teacher_model: model '{name}'"):
        load_teacher(TeacherConfig(teacher_model=name))


def test_eight_bits_need_their_library(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        LocalTeacher(TeacherConfig(teacher_model="embedded", teacher_8bit=True))


@pytest.mark.parametrize(("settings", "words"), [
    ({"teacher_batch_size": 0}, "--teacher_batch_size must be above 0"),
    ({"teacher_timeout_seconds": -1.0}, "--teacher_timeout_seconds must be above 0"),
    ({"teacher_url": "localhost:8000"}, "must look like http://"),
    ({"teacher_url": "http://"}, "must look like http://"),
    ({"teacher_url": "http://[/v1"}, "must look like http://"),
    ({"teacher_url": "http://host:abc/v1"}, "must look like http://"),
    ({"teacher_url": "http://host:99999/v1"}, "must look like http://"),
    ({"teacher_url": "http://host/v1\n"}, "must look like http://"),
    ({"teacher_url": "http://me:secret@host/v1"}, "OPENAI_API_KEY"),
    ({"teacher_url": "http://host/v1", "teacher_8bit": True}, "--teacher_8bit belongs to a local"),
    ({"teacher_url": "http://host/v1", "teacher_revision": "x"}, "--teacher_revision belongs to a local"),
])
def test_settings_that_do_not_go_together(settings, words):
    with pytest.raises(ValueError, match=words) as fault:
        TeacherConfig(**settings)
    assert "secret" not in str(fault.value)
