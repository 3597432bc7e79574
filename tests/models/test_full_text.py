"""Models without a compressor (``--compressor_type none``): the generator tuned on full text, as a baseline."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch
import torch.nn.functional as F

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.config import EMBEDDED, OF_A_COMPRESSOR, TrainingConfig
from scaledown.data.records import Record
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.serving.cache import MemoryCache
from scaledown.training import run
from scaledown.training.batches import prompt_sizes, shapes_of

RECORDS = [Record("a", "who came?", ("Ada came to Oslo.", "Bob left."), "Ada"),
           Record("b", "where is it?", ("It is in Oslo.",), "in Oslo"), Record("c", "when?", (), "in May")]
QUESTIONS, DOCUMENTS = [record.query for record in RECORDS], [list(record.documents) for record in RECORDS]


@pytest.fixture(scope="module")
def generator_folder(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"))


def config(folder: str, **settings) -> ScaleDownConfig:
    return ScaleDownConfig(folder, compressor_type="none", lora_rank=2, lora_alpha=4, lora_dropout=0.0, **settings)


@pytest.fixture(scope="module")
def model(generator_folder):
    made = run.build_model(config(generator_folder), "cpu", seed=1)
    tiny.move_adapter(made)
    return made


def plain_loss(model: ScaleDownModel, records: list[Record]) -> torch.Tensor:
    """The loss of the answers' tokens by the generator itself, its adapter on, one text prompt at a time."""
    losses = []
    for record in records:
        prompt, = model.processor.text_prompts([record.query], [list(record.documents)])
        answer = model.processor.answer_ids(record.answer)
        logits = model.generator.language_model(input_ids=torch.tensor([prompt + answer])).logits[0]
        losses.append(F.cross_entropy(logits[len(prompt) - 1:-1], torch.tensor(answer), reduction="none"))
    return torch.cat(losses).mean()


@torch.no_grad()
def test_the_loss_is_the_generator_s_own_on_the_text_prompt(model):
    losses = model(model.processor.collate(RECORDS))
    assert losses.answer_loss.item() == pytest.approx(plain_loss(model, RECORDS).item(), rel=1e-5)
    assert losses.reranking_loss is None and losses.readout_loss is None
    with model.generator.adapter(False):
        assert plain_loss(model, RECORDS).item() != pytest.approx(losses.answer_loss.item(), rel=1e-3)


@torch.no_grad()
def test_a_batch_of_one_shape_has_the_same_loss(model):
    shapes = shapes_of(RECORDS, model.processor)
    for records in (RECORDS, RECORDS[1:2]):
        batch = model.processor.collate(records, shapes=shapes, batch_size=4)
        assert model(batch).answer_loss.item() == pytest.approx(plain_loss(model, records).item(), rel=1e-5)


def test_documents_are_cut_as_a_compressor_s_would_be(generator_folder):
    short = run.build_model(config(generator_folder, num_memory_tokens=2, compression_rate=3), "cpu", seed=1)
    ids, = short.processor.text_prompts(["who?"], [["Ada came to Oslo. " * 20]])
    batch = short.processor.collate([Record("a", "who?", ("Ada came to Oslo. " * 20,), "Ada")])
    answer = short.processor.answer_ids("Ada")
    assert batch["prompts"].ids.tolist() == [*ids, *answer[:-1]]
    bare, = short.processor.text_prompts(["who?"], [[""]])
    assert 0 < len(ids) - len(bare) <= 8
    whole = prompt_sizes([Record("a", "who?", ("Ada " * 400,), "Ada")], config(generator_folder))
    assert prompt_sizes([Record("a", "who?", ("Ada " * 800,), "Ada")], config(generator_folder)) == whole


def test_training_changes_the_adapter_alone_and_a_checkpoint_has_no_more(generator_folder, tmp_path):
    model = run.build_model(config(generator_folder), "cpu", seed=1)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    settings = TrainingConfig(batch_size=3, max_steps=4, logging_steps=1, learning_rate_generator=1e-2,
                              optimizer="muon", gradient_checkpointing=True)
    log = run.train(model, settings, RECORDS, tmp_path, evaluate=run.mean_loss(model, RECORDS, settings), eval_steps=2)
    changed = {name for name, weight in model.named_parameters() if not weight.equal(before[name])}
    assert changed and all("lora_" in name for name in changed)
    losses = [row["answer_loss"] for row in log if "answer_loss" in row]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert any("eval_answer_loss" in row for row in log)
    assert all("learning_rate_compressor" not in row for row in log)

    files = {path.name for path in (tmp_path / run.FINAL).iterdir()}
    assert "generator.safetensors" in files and "compressor.safetensors" not in files
    loaded = ScaleDownModel.from_pretrained(tmp_path / run.FINAL)
    answers = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=6)
    assert loaded.answer(QUESTIONS, DOCUMENTS, max_new_tokens=6) == answers
    assert loaded.answer(QUESTIONS, DOCUMENTS, max_new_tokens=6, batch_size=1) == answers
    assert loaded.config == model.config and loaded.progress.num_steps == 4
    assert "full text" in (tmp_path / run.FINAL / "README.md").read_text() and "compressor: none" in repr(loaded)


def test_answers_come_from_the_full_text_with_the_adapter_on(model):
    answers = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=6)
    with_adapter = model.prefill_text(QUESTIONS, DOCUMENTS, with_adapter=True)
    assert with_adapter.with_adapter and model.decode(with_adapter, 6) == answers
    assert model.decode(model.prefill_text(QUESTIONS, DOCUMENTS), 6) != answers
    sources = model.answer_with_sources(QUESTIONS, DOCUMENTS, max_new_tokens=6)
    assert [source.text for source in sources] == answers
    assert [source.documents for source in sources] == [(0, 1), (0,), ()]
    assert [len(source.document_ids) for source in sources] == [2, 1, 0] and sources[0].scores is None
    pieces = list(model.answer(QUESTIONS[0], DOCUMENTS[0], max_new_tokens=6, stream=True))
    assert "".join(piece.text for piece in pieces).strip() == answers[0]


def test_a_merged_generator_gives_the_same_answers_from_the_prompt_s_embeddings(model):
    merged, embeddings = model.merge(), model.prompt_embeds(QUESTIONS[0], DOCUMENTS[0])
    ids = merged.generate(inputs_embeds=embeddings[None], max_new_tokens=6)[0].tolist()
    text = model.processor.tokenizer.decode([token for token in ids if token not in model.stop_ids])
    assert text.strip() == model.answer(QUESTIONS[0], DOCUMENTS[0], max_new_tokens=6)


def test_before_training_it_is_the_demo_generator_as_it_was():
    demo = run.build_model(ScaleDownConfig(EMBEDDED, compressor_type="none"), "cpu", seed=1)
    record, = synthetic_records(1, seed=3, split="eval")
    answer = demo.answer(record.query, list(record.documents))
    assert [answer] == demo.decode(demo.prefill_text(record.query, list(record.documents)), 64) == [record.answer]


@pytest.mark.parametrize("use", [
    lambda model: model.compress("who?", ["Ada"]), lambda model: model.rerank("who?", ["Ada"]),
    lambda model: model.read_documents(["Ada"]), lambda model: model.answer("who?", ["Ada"], keep_documents=1),
    lambda model: model.answer("who?", ["Ada"], num_memory_tokens=8),
    lambda model: model.answer("who?", ["Ada"], cache=MemoryCache(10)),
    lambda model: model.answer("who?", memory=object())])
def test_what_needs_memory_is_refused(model, use):
    with pytest.raises(ValueError, match="this model reads text"):
        use(model)


@pytest.mark.parametrize("name", OF_A_COMPRESSOR)
def test_settings_of_a_compressor_are_refused(name):
    values = {"layers": "0-1", "compressor_model": "x", "compressor_revision": "x", "train_memory_tokens": (4, 8),
              "input_order": "document_first", "enable_reranking": True, "memory_norm": True, "memory_init": "tokens"}
    with pytest.raises(ValueError, match=f"--{name} belongs to a compressor"):
        config("here", **{name: values.get(name, 3)})


def test_a_loss_of_memory_is_refused(model):
    with pytest.raises(ValueError, match="readout_loss_weight belongs to a compressor"):
        model.processor.collate(RECORDS, with_readout=True)


def test_a_checkpoint_with_and_one_without_a_compressor_do_not_start_from_each_other(model, tmp_path):
    model.save_pretrained(tmp_path / "text")
    folder = ScaleDownModel.from_pretrained(tmp_path / "text").config.generator_model
    more = run.build_model(dataclasses.replace(model.config, generator_model=folder), "cpu", 1, str(tmp_path / "text"))
    assert more.answer(QUESTIONS, DOCUMENTS, max_new_tokens=4) == model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=4)
    with pytest.raises(ValueError, match="compressor_type is 'n_layers' but 'none' there"):
        run.build_model(ScaleDownConfig(folder, enable_reranking=True), "cpu", 1, str(tmp_path / "text"))
