"""Several numbers of memory tokens in one model: nested, drawn in training, chosen at inference."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import tiny
import torch

import train
from scaledown.config import COMPRESSOR_TYPES, EvaluationConfig, ScaleDownConfig, TrainingConfig
from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.evaluation.evaluator import evaluate_system
from scaledown.evaluation.systems import scaledown_with, truncated_text_with
from scaledown.models.model import ScaleDownModel
from scaledown.models.processor import MEMORY, Processor
from scaledown.training import run
from scaledown.training.batches import StepCollator

QUESTIONS = ["Who was born in London?", "where", "What is the capital of Norway?"]
DOCUMENTS = [["Ada Lovelace was born in London.", "Oslo"], [], ["Paris", "The capital of Norway is Oslo.", "London"]]


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"), layers=2)


@pytest.fixture
def model(generator):
    torch.manual_seed(0)
    return ScaleDownModel(ScaleDownConfig(generator_model=generator, num_memory_tokens=4, lora_dropout=0.0,
                                          train_memory_tokens=(1, 2, 4)))


def record(query, documents, answer):
    return SimpleNamespace(id=query, query=query, documents=documents, answer=answer, reranking_scores=None)


@pytest.mark.parametrize("kind", COMPRESSOR_TYPES)
def test_fewer_are_the_first_ones(kind, generator, tmp_path):
    """Of a causal compressor the first embeddings are the same however many follow; an encoder sees them all."""
    made_of = {"n_layers": None, "llm": generator, "modernbert": tiny.encoder_folder(tmp_path)}[kind]
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(generator_model=generator, compressor_type=kind, compressor_model=made_of,
                                           num_memory_tokens=4, train_memory_tokens=(2, 4), enable_reranking=True,
                                           mlp_width=16))
    whole, fewer = (model.compress(QUESTIONS, DOCUMENTS, num_memory_tokens=number) for number in (4, 2))
    assert fewer.pairs().shape == (5, 2, tiny.WIDTH) and fewer.scores.shape == (3, 3)
    assert torch.allclose(fewer.pairs(), whole.pairs()[:, :2], rtol=1e-4, atol=1e-5) == (kind != "modernbert")
    assert model.compress(["who?"], [[]], num_memory_tokens=2).pairs().shape == (0, 2, tiny.WIDTH)

    read = [model.processor.compressor_texts(QUESTIONS, DOCUMENTS, number).num_tokens for number in (4, 2)]
    assert read[0] - read[1] == 2 * 5


def test_any_number_that_was_trained_can_be_asked_for(model):
    for number in (1, 2, 4):
        memory = model.compress(QUESTIONS, DOCUMENTS, num_memory_tokens=number)
        assert memory.embeddings.shape == (3, 3, number, tiny.WIDTH)
        assert (model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=6, num_memory_tokens=number)
                == model.answer(QUESTIONS, memory=memory, max_new_tokens=6))
        prompts = model.prefill(QUESTIONS, memory).num_prompt_tokens
        assert prompts[0] - prompts[1] == 2 * number + 1 + _question_tokens(model, 0) - _question_tokens(model, 1)
    assert model.compress(QUESTIONS, DOCUMENTS).embeddings.shape[2] == 4


def _question_tokens(model, number):
    return len(model.processor.prompt.branch(QUESTIONS[number]))


@pytest.mark.parametrize("ask", ["compress", "answer"])
def test_another_number_is_refused(model, ask):
    with pytest.raises(ValueError, match="num_memory_tokens=3: this model is trained for 1 2 4.*--train_memory_tok"):
        getattr(model, ask)(QUESTIONS, DOCUMENTS, num_memory_tokens=3)
    with pytest.raises(ValueError, match="give it to compress"):
        model.answer(QUESTIONS, memory=model.compress(QUESTIONS, DOCUMENTS), num_memory_tokens=2)


def test_the_numbers_are_saved_and_checked(model, generator, tmp_path):
    model.save_pretrained(tmp_path)
    assert ScaleDownModel.from_pretrained(tmp_path).config.memory_token_choices == (1, 2, 4)
    assert ScaleDownConfig().memory_token_choices == (8,)
    for numbers in ((1, 2), (0, 4), (8, 4), ()):
        with pytest.raises(ValueError, match="--train_memory_tokens.*--num_memory_tokens, 4"):
            ScaleDownConfig(num_memory_tokens=4, train_memory_tokens=numbers)


def test_training_batches_draw_each_number_and_again_the_same(model):
    batches = [[record(f"who {number}?", ["Ada", "Oslo"], "Ada")] for number in range(30)]
    collate, drawn = StepCollator(model.processor, TrainingConfig(batch_size=1)), []
    for records in batches:
        made, again = (collate(records)[0].unpacked("cpu") for _ in range(2))
        drawn.append(made["num_memory_tokens"])
        assert (made["prompts"].ids == MEMORY).sum() == 2 * drawn[-1]
        assert made["prompts"].ids.equal(again["prompts"].ids)
    assert set(drawn) == {1, 2, 4} and min(map(drawn.count, (1, 2, 4))) >= 5
    assert model.processor.collate(batches[0])["num_memory_tokens"] == 4


def test_all_numbers_learn_together(model):
    """One question, three documents, three answers, at every rate: only the memory can tell which."""
    documents, answers = [["Ada Lovelace"], ["Oslo, Norway"], ["the first program"]], ["Ada", "Bob", "Oslo"]
    records = [record("who?", *each) for each in zip(documents, answers, strict=True)]
    batches = [model.processor.collate(records, num_memory_tokens=number) for number in (1, 2, 4)]
    optimizer = torch.optim.AdamW(model.train().parameter_groups(5e-3, 5e-3, 0.0))
    for step in range(75):
        optimizer.zero_grad()
        model(batches[step % 3]).answer_loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    for number in (1, 2, 4):
        assert model.answer(["who?"] * 3, documents, num_memory_tokens=number) == answers


def test_the_evaluator_measures_each_number(model, monkeypatch):
    # Five documents stay five, whatever their length.
    monkeypatch.setattr(model, "long_documents", "cut")
    records = list(synthetic_records(2, seed=3))
    config = EvaluationConfig(max_new_tokens=2, bootstrap_resamples=10)
    tokens = [evaluate_system(model, scaledown_with(number), records, config, progress=False).mean_prompt_tokens
              for number in (1, 2, 4)]
    assert [right - left for left, right in zip(tokens, tokens[1:], strict=False)] == [5, 10]
    cut = [evaluate_system(model, truncated_text_with(number), records, config, progress=False).mean_prompt_tokens
           for number in (1, 4)]
    assert cut[1] - cut[0] == 15


def test_the_flag_takes_several_numbers(generator, tmp_path, capsys):
    write_records(tmp_path / "data.json", list(synthetic_records(4, seed=3)))
    flags = ["--train_data", str(tmp_path / "data.json"), "--generator_model", generator, "--batch_size", "2",
             "--num_memory_tokens", "2", "--output_dir", str(tmp_path / "run")]
    assert train.main([*flags, "--train_memory_tokens", "1", "4"]) == 2
    assert "--train_memory_tokens 1 4" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert train.main([*flags, "--train_memory_tokens", "1", "2", "--max_steps", "1"]) == 0
    assert ScaleDownModel.from_pretrained(tmp_path / "run" / "final").config.memory_token_choices == (1, 2)


def test_a_trained_compressor_learns_to_serve_other_numbers(generator, tmp_path):
    write_records(tmp_path / "data.json", list(synthetic_records(4, seed=3)))
    flags = ["--train_data", str(tmp_path / "data.json"), "--generator_model", generator, "--batch_size", "2",
             "--num_memory_tokens", "4", "--max_steps", "1"]
    assert train.main([*flags, "--output_dir", str(tmp_path / "one")]) == 0
    flags += ["--init_compressor", str(tmp_path / "one" / "final")]
    assert train.main([*flags, "--output_dir", str(tmp_path / "same")]) == 0
    assert train.main([*flags, "--train_memory_tokens", "1", "2", "4", "--output_dir", str(tmp_path / "several")]) == 0
    one, same, several = (ScaleDownModel.from_pretrained(tmp_path / name / "final")
                          for name in ("one", "same", "several"))
    assert one.config.memory_token_choices == same.config.memory_token_choices == (4,)
    assert several.config == dataclasses.replace(one.config, train_memory_tokens=(1, 2, 4))
    assert several.compress(["Who?"], [["Ada."]], num_memory_tokens=2).embeddings.shape[2] == 2
    wanted = ScaleDownConfig(generator_model=generator, num_memory_tokens=4, train_memory_tokens=(2, 4))
    built = run.build_model(wanted, "cpu", 1, str(tmp_path / "one" / "final"))
    assert built.processor.config is built.config and built.config.memory_token_choices == (2, 4)
    assert torch.equal(built.compressor.memory_rows, one.compressor.memory_rows)


@pytest.mark.parametrize("number", [2.0, True, "2"])
def test_what_is_no_whole_number_of_tokens_is_refused(number):
    config = ScaleDownConfig(num_memory_tokens=2, train_memory_tokens=(1, 2))
    with pytest.raises(ValueError, match=f"num_memory_tokens={number!r}: this model is trained for 1 2"):
        Processor.checked_memory_tokens(SimpleNamespace(config=config), number)
