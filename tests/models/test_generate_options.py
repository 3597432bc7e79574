"""Options of transformers' generate: each does here what it does in transformers' own call, and none comes unasked."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from scaledown.config import ScaleDownConfig
from scaledown.models.model import ScaleDownModel

QUESTIONS = ["Who was born in London?", "where", "What is the capital of Norway?"]
DOCUMENTS = [["Ada Lovelace was born in London.", "Oslo"], [], ["Paris " * 9, "", "The capital of Norway is Oslo."]]
OF_THE_BASE = {"do_sample": True, "temperature": 0.7, "top_k": 3, "repetition_penalty": 1.9, "no_repeat_ngram_size": 1,
               "num_beams": 2, "suppress_tokens": list(range(40, 300))}
NEW = 9


class StopAfter(StoppingCriteria):
    """Ends every answer after a number of tokens."""

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens

    def __call__(self, input_ids, scores, **settings):
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.num_tokens)


class Heard(BaseStreamer):
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        pass


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"), "qwen2")


@pytest.fixture(scope="module")
def model(generator: str) -> ScaleDownModel:
    torch.manual_seed(0)
    made = ScaleDownModel(ScaleDownConfig(generator_model=generator, num_memory_tokens=3, lora_rank=4))
    tiny.move_adapter(made)
    return made


@pytest.fixture(scope="module")
def plain(model: ScaleDownModel) -> PreTrainedModel:
    """The generator as transformers has it, without any code of this project."""
    return model.merge()


def said_by(plain: PreTrainedModel, model: ScaleDownModel, number: int, **options: object) -> str:
    """What transformers' own call answers to a question."""
    embeddings = model.prompt_embeds([QUESTIONS[number]], [DOCUMENTS[number]])[0][None]
    ids = plain.generate(inputs_embeds=embeddings, **{"max_new_tokens": NEW} | options)[0]
    return model.processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()


@pytest.mark.parametrize("options", [
    {"do_sample": True, "temperature": 3.0}, {"do_sample": True, "top_k": 4}, {"num_beams": 3},
    {"num_beams": 4, "length_penalty": -2.0}, {"repetition_penalty": 2.5}, {"no_repeat_ngram_size": 1},
    {"suppress_tokens": list(range(40, 300))}, {"min_new_tokens": NEW}, {"stopping_criteria": [StopAfter(3)]},
    {"generation_config": GenerationConfig(repetition_penalty=2.5)},
    {"generation_config": GenerationConfig(do_sample=True, temperature=3.0), "top_k": 5},
], ids=", ".join)
@pytest.mark.filterwarnings("ignore:Passing .* with `inputs_embeds`")
def test_options_do_what_they_do_in_transformers(options: dict, model: ScaleDownModel, plain: PreTrainedModel) -> None:
    greedy = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=NEW)
    found, wanted = [], []
    for number in range(len(QUESTIONS)):
        torch.manual_seed(5)
        found += model.answer([QUESTIONS[number]], [DOCUMENTS[number]], max_new_tokens=NEW, **options)
        torch.manual_seed(5)
        wanted.append(said_by(plain, model, number, **options))
    assert found == wanted
    assert found != greedy or "min_new_tokens" in options

    # A prompt that was read before, as the benchmark does it, is answered alike.
    torch.manual_seed(5)
    read = model.prefill(QUESTIONS[:1], model.compress(QUESTIONS[:1], DOCUMENTS[:1]))
    assert model.decode(read, NEW, **options) == found[:1]


def test_sampling_follows_the_seed(model: ScaleDownModel) -> None:
    said = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        said.append(model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=NEW, do_sample=True, temperature=2.0))
    assert said[0] == said[1] != said[2]


def test_a_streamer_hears_the_answer(model: ScaleDownModel) -> None:
    heard = Heard()
    said = model.answer(QUESTIONS[:1], DOCUMENTS[:1], max_new_tokens=NEW, streamer=heard)
    ids = [token for token in heard.tokens if token not in model.stop_ids]
    assert model.processor.tokenizer.decode(ids, skip_special_tokens=True).strip() == said[0]
    with pytest.raises(ValueError, match="give stream or a streamer of your own"):
        model.answer(QUESTIONS, DOCUMENTS, stream=True, streamer=heard)


def test_options_reach_a_stream_and_sources_too(model: ScaleDownModel) -> None:
    options = {"no_repeat_ngram_size": 1, "stopping_criteria": [StopAfter(5)]}
    said = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=NEW, **options)
    assert said != model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=NEW)
    assert said != model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=NEW, no_repeat_ngram_size=1)
    grown = ["" for _ in QUESTIONS]
    for piece in model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=NEW, stream=True, **options):
        grown[piece.question] += piece.text
    assert grown == said
    found = model.answer_with_sources(QUESTIONS, DOCUMENTS, max_new_tokens=NEW, **options)
    assert [answer.text for answer in found] == said


@pytest.mark.parametrize("ask", ["option", "config", "decode"])
def test_several_answers_to_a_question_are_refused(model: ScaleDownModel, ask: str) -> None:
    several = {"num_return_sequences": 2, "do_sample": True}
    with pytest.raises(ValueError, match="num_return_sequences must be 1"):
        if ask == "decode":
            model.decode(model.prefill_text(QUESTIONS, DOCUMENTS), 4, **several)
        elif ask == "config":
            model.answer(QUESTIONS, DOCUMENTS, generation_config=GenerationConfig(**several))
        else:
            model.answer(QUESTIONS, DOCUMENTS, stream=True, **several)


def test_a_config_that_asks_for_more_than_tokens_gives_answers(model: ScaleDownModel) -> None:
    config = GenerationConfig(return_dict_in_generate=True, output_logits=True, max_new_tokens=3, eos_token_id=[1])
    kept = config.to_dict()
    said = model.answer(QUESTIONS, DOCUMENTS, generation_config=config)
    assert said == model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=3) and config.to_dict() == kept


def test_what_the_base_asks_for_stays_out(generator: str, model: ScaleDownModel, tmp_path: Path) -> None:
    """Instruction models come with temperatures and penalties of their own: an answer is greedy all the same."""
    base = AutoModelForCausalLM.from_pretrained(generator)
    base.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    GenerationConfig(**OF_THE_BASE, eos_token_id=[1, 3]).save_pretrained(tmp_path)
    torch.manual_seed(0)
    asked = ScaleDownModel(ScaleDownConfig(generator_model=str(tmp_path), num_memory_tokens=3, lora_rank=4))
    tiny.move_adapter(asked)

    assert {1, 3} <= set(asked.stop_ids)
    said = asked.answer(QUESTIONS, DOCUMENTS, max_new_tokens=NEW)
    assert said == model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=NEW)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        full = asked.decode(asked.prefill_text(QUESTIONS, DOCUMENTS), NEW)
    assert full == model.decode(model.prefill_text(QUESTIONS, DOCUMENTS), NEW)
    # Nor does it join what is asked for here.
    options = {"generation_config": GenerationConfig(no_repeat_ngram_size=2)}
    assert (asked.answer(QUESTIONS, DOCUMENTS, max_new_tokens=NEW, **options)
            == model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=NEW, **options))
