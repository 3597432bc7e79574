"""ScaleDownModel: answers that depend on nothing but their question, what training touches, save and load."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import scaledown
from scaledown import hub
from scaledown.config import ScaleDownConfig
from scaledown.models.loading import checkpoint
from scaledown.models.model import ScaleDownModel

QUESTIONS = ["Who was born in London?", "where", "What is the capital of Norway, the northern country?", "</s><s>?"]
DOCUMENTS = [["Ada Lovelace was born in London.", "Oslo"], [], ["Paris " * 40, "", "The capital of Norway is Oslo."],
             ["<|im_end|> is text"]]
ANSWERS = ["Ada", "nowhere at all", "Oslo", "no"]
KINDS = ("n_layers", "modernbert", "embedded", "llm")
OWN_MODELS = {"modernbert": "encoder", "llm": "qwen3"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    made = {family: tiny.generator_folder(root / family, family) for family in tiny.FAMILIES}
    made["shallow"] = tiny.generator_folder(root / "shallow", layers=2)
    made["no_system"] = tiny.generator_folder(root / "no_system", chat_template=tiny.NO_SYSTEM)
    return made | {"encoder": tiny.encoder_folder(root / "encoder")}


def build(folders: dict[str, str], kind: str = "n_layers", family: str = "llama", **settings: object) -> ScaleDownModel:
    """A new model whose adapter does something: fresh LoRA leaves the generator as it was."""
    if kind != "n_layers":
        settings = {"compressor_type": "llm" if kind == "llm" else "modernbert", "mlp_width": 32,
                     "compressor_model": folders[OWN_MODELS[kind]] if kind in OWN_MODELS else "embedded"} | settings
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(generator_model=folders[family], num_memory_tokens=3,
                                           **{"enable_reranking": True, "lora_rank": 4} | settings))
    tiny.move_adapter(model)
    return model


def records(scores: list[list[float] | None] | None = None) -> list[SimpleNamespace]:
    scores = scores or [[1.0, -1.0], None, None, [0.5]]
    return [record(*each) for each in zip(QUESTIONS, DOCUMENTS, ANSWERS, scores, strict=True)]


def record(query: str, documents: list[str], answer: str, scores: list[float] | None) -> SimpleNamespace:
    stated = [answer if answer in document else "" for document in documents]
    return SimpleNamespace(query=query, documents=documents, answer=answer, reranking_scores=scores,
                           stated_answers=stated)


@pytest.fixture(params=[("n_layers", family) for family in tiny.FAMILIES] + [("modernbert", "llama"),
                        ("embedded", "mistral"), ("llm", "mistral"), ("n_layers", "no_system")], ids="-".join)
def model(request: pytest.FixtureRequest, folders: dict[str, str]) -> ScaleDownModel:
    return build(folders, *request.param)


def test_an_answer_is_the_same_alone_in_a_batch_and_from_memory(model: ScaleDownModel) -> None:
    together = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=8)
    pairs = list(zip(QUESTIONS, DOCUMENTS, strict=True))
    assert [model.answer([question], [each], max_new_tokens=8)[0] for question, each in pairs] == together
    assert model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=8, batch_size=3) == together
    assert model.answer(QUESTIONS[::-1], DOCUMENTS[::-1], max_new_tokens=8) == together[::-1]
    assert model.answer(QUESTIONS, memory=model.compress(QUESTIONS, DOCUMENTS, batch_size=1),
                        max_new_tokens=8, batch_size=2) == together
    assert len(set(together)) > 1


def test_memory_is_padded_over_documents(model: ScaleDownModel) -> None:
    memory = model.compress(QUESTIONS, DOCUMENTS, long_documents="cut")
    assert memory.embeddings.shape == (4, 3, 3, tiny.WIDTH) and memory.num_documents.tolist() == [2, 0, 3, 1]
    assert memory.scores.isneginf().sum(1).tolist() == [1, 3, 0, 2]
    assert memory.embeddings[1].abs().sum() == 0 and memory.embeddings[2].abs().sum((1, 2)).min() > 0
    assert model.compress([], []).embeddings.shape[0] == 0 and model.answer([], []) == []


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load_give_the_same_answers(folders: dict[str, str], kind: str, tmp_path: Path) -> None:
    model = build(folders, kind)
    model.save_pretrained(tmp_path / "saved")
    loaded = ScaleDownModel.from_pretrained(tmp_path / "saved")
    assert loaded.config == model.config and loaded.config.num_layers == (1 if kind == "n_layers" else None)
    assert loaded.answer(QUESTIONS, DOCUMENTS, max_new_tokens=8) == model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=8)
    for one, other in zip(model.parameters(), loaded.parameters(), strict=True):
        assert one.equal(other)
    loaded.save_pretrained(tmp_path / "saved")
    assert ScaleDownModel.from_pretrained(tmp_path / "saved").config == model.config
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_should_learn_gets_gradients_and_is_saved(folders: dict[str, str], kind: str, tmp_path: Path) -> None:
    model = build(folders, kind).train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    tiny.total(model(model.processor.collate(records()))).backward()
    learns = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    named = {name for name in before if name.startswith("compressor.") or "lora_" in name}
    assert learns == named | {"generator.separator_row"}
    moves = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}
    assert {"compressor.memory_rows", "compressor.rerank_row", "compressor.rerank_head.weight",
            "generator.separator_row"} <= moves
    groups = model.parameter_groups(1e-4, 5e-5, 0.1)
    grouped = itertools.chain.from_iterable(group["params"] for group in groups)
    assert {id(each) for each in grouped} == {id(dict(model.named_parameters())[name]) for name in learns}
    torch.optim.AdamW(model.parameter_groups(1e-2, 1e-2, 0.1)).step()
    moved = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    assert moves <= moved <= learns
    model.save_pretrained(tmp_path)
    for part in (model.compressor, model.generator):
        name = "compressor" if part is model.compressor else "generator"
        saved, stored = checkpoint.load_file(tmp_path / f"{name}.safetensors"), checkpoint.stored(part)
        assert saved.keys() == stored.keys() and all(saved[key].equal(stored[key]) for key in saved)
        kept = {id(value) for value in stored.values()}
        names = {each for each, value in model.named_parameters() if id(value) in kept}
        assert names == {each for each in learns if each.startswith(name)}


@pytest.mark.parametrize("kind", KINDS)
def test_four_records_are_learnt_by_heart(folders: dict[str, str], kind: str) -> None:
    """One question, four documents, four answers: only the memory can tell which."""
    model = build(folders, kind, "shallow", lora_dropout=0.0, lora_rank=16).train()
    texts = [[text] for text in ("Ada Lovelace", "Oslo, Norway", "the first program", "London 1815")]
    answers = ["Ada", "Bob", "Oslo", "no"]
    batch = model.processor.collate([record("who?", *pair, [0.5]) for pair in zip(texts, answers, strict=True)])
    optimizer = torch.optim.AdamW(model.parameter_groups(5e-3, 5e-3, 0.0))
    for _ in range(40):
        optimizer.zero_grad()
        losses = model(batch)
        tiny.total(losses).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert losses.answer_loss < 0.05 and losses.reranking_loss < 0.05
    assert model.answer(["who?"] * 4, texts) == answers
    assert model.training


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step_never_waits_for_the_device(folders: dict[str, str], kind: str) -> None:
    """A tensor on the meta device has no values: whatever asks for one, as a synchronisation does, fails."""
    model = build(folders, kind).train()
    batch = model.processor.collate(records(), with_readout=True)
    model(batch)  # the first step alone asks the generator how it computes its logits
    losses = model.to("meta")(batch)
    assert None not in losses
    tiny.total(losses).backward()


def test_the_loss_is_its_parts(folders: dict[str, str]) -> None:
    model = build(folders)
    losses = model(model.processor.collate(records()))
    scores = model.compress(QUESTIONS, DOCUMENTS).scores
    wanted = ((scores[0, 0] - 1) ** 2 + (scores[0, 1] + 1) ** 2 + (scores[3, 0] - 0.5) ** 2) / 3
    torch.testing.assert_close(losses.reranking_loss, wanted)
    assert losses.readout_loss is None
    assert model(model.processor.collate(records([None] * 4))).reranking_loss == 0
    plain = build(folders, enable_reranking=False)
    losses = plain(plain.processor.collate(records()))
    assert losses.reranking_loss is None and losses.answer_loss > 0


def test_a_batch_without_documents_trains(folders: dict[str, str]) -> None:
    model = build(folders).train()
    tiny.total(model(model.processor.collate(records()[1:2]))).backward()
    assert all(each.grad.isfinite().all() for each in model.parameters() if each.grad is not None)
    assert model.generator.separator_row.grad is not None


def test_gradient_checkpointing_changes_no_loss(folders: dict[str, str]) -> None:
    model = build(folders, lora_dropout=0.0).train()
    batch = model.processor.collate(records())
    gradients = []
    for _ in range(2):
        model.zero_grad()
        tiny.total(model(batch)).backward()
        gradients.append([each.grad.clone() for each in model.parameters() if each.grad is not None])
        model.gradient_checkpointing_enable()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    assert model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=4)


def test_answers_have_no_dropout_in_training(folders: dict[str, str]) -> None:
    model = build(folders, lora_dropout=0.9)
    wanted = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=8)
    assert model.train().answer(QUESTIONS, DOCUMENTS, max_new_tokens=8) == wanted and model.training


def test_text_baselines_leave_the_adapter_off(folders: dict[str, str]) -> None:
    model = build(folders)
    prompts = model.prefill_text(QUESTIONS, DOCUMENTS)
    wanted = tiny.generator()(torch.tensor(model.processor.text_prompts(QUESTIONS[:1], DOCUMENTS[:1]))).logits[0, -1]
    with torch.no_grad():
        torch.testing.assert_close(tiny.first_logits(model.generator, prompts)[0], wanted, rtol=1e-4, atol=1e-4)
    cut, whole = (model.prefill_text(QUESTIONS, DOCUMENTS, tokens).num_prompt_tokens for tokens in (2, None))
    assert cut[1] == whole[1] and cut[0] < whole[0]
    assert len(model.decode(prompts, 3)) == 4 and max(prompts.num_new_tokens) <= 3


def test_rerank_puts_the_highest_score_first(folders: dict[str, str]) -> None:
    model = build(folders)
    order, scores = model.rerank(QUESTIONS[2], DOCUMENTS[2], long_documents="cut")
    assert [scores[number] for number in order] == sorted(scores, reverse=True)
    memory = model.compress(QUESTIONS[2:3], DOCUMENTS[2:3], long_documents="cut")
    torch.testing.assert_close(torch.tensor(scores), memory.scores[0])
    assert model.rerank("who?", []) == ([], [])
    with pytest.raises(ValueError, match="--enable_reranking"):
        build(folders, enable_reranking=False).rerank("who?", ["Ada"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_model_can_learn_to_rerank_later(folders: dict[str, str], tmp_path: Path, kind: str) -> None:
    model = build(folders, kind, enable_reranking=False)
    answers = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=6)
    model.enable_reranking()
    # A bidirectional encoder's memory sees the new row behind it.
    assert kind != "n_layers" or model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=6) == answers
    assert model.rerank("who?", ["Ada", "Oslo"])[1] == [0.0, 0.0]
    head, batch = model.compressor.rerank_head.weight, model.processor.collate(records())
    tiny.total(model.train()(batch)).backward()
    assert head.grad.any()
    with torch.no_grad():
        head -= head.grad
    tiny.total(model(batch)).backward()
    assert model.compressor.rerank_row.grad.any()  # behind a head of 0 it learnt nothing yet
    model.eval().save_pretrained(tmp_path)
    assert ScaleDownModel.from_pretrained(tmp_path).rerank("who?", ["Ada"]) == model.rerank("who?", ["Ada"])


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_answers_and_trains(folders: dict[str, str], kind: str) -> None:
    config = build(folders, kind).config
    model = ScaleDownModel(config, dtype=torch.bfloat16)
    assert len(model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=4)) == 4
    assert model.compress(QUESTIONS, DOCUMENTS).scores.dtype == torch.float32
    tiny.total(model.train()(model.processor.collate(records()))).backward()
    grown = [each for each in model.parameters() if each.grad is not None]
    assert all(each.dtype == torch.float32 and each.grad.isfinite().all() for each in grown)


@pytest.mark.parametrize("name", ["compressor.safetensors", "generator.safetensors", "config.json", "compressor",
                                  "tokenizer"])
def test_a_damaged_checkpoint_is_named(folders: dict[str, str], name: str, tmp_path: Path) -> None:
    build(folders, "modernbert").save_pretrained(tmp_path)
    if (tmp_path / name).is_file():
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
        with pytest.raises(ValueError, match=name):
            ScaleDownModel.from_pretrained(tmp_path)
    (tmp_path / name).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=name):
        ScaleDownModel.from_pretrained(tmp_path)


def test_weights_of_another_model_are_refused(folders: dict[str, str], tmp_path: Path) -> None:
    build(folders, num_layers=2).save_pretrained(tmp_path / "two")
    build(folders, num_layers=3).save_pretrained(tmp_path / "three")
    (tmp_path / "two" / "compressor.safetensors").replace(tmp_path / "three" / "compressor.safetensors")
    with pytest.raises(ValueError, match="missing, such as layers.2"):
        ScaleDownModel.from_pretrained(tmp_path / "three")


def test_a_failed_save_leaves_the_old_checkpoint(folders: dict[str, str], tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(folders)
    model.save_pretrained(tmp_path / "saved")
    monkeypatch.setattr(model.processor, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(ValueError, match="saved: cannot be written .disk full"):
        model.save_pretrained(tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert ScaleDownModel.from_pretrained(tmp_path / "saved").config == model.config


def test_the_shipped_checkpoint_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hub.SHIPPED_CHECKPOINTS, "embedded", tmp_path)
    with pytest.raises(ValueError, match="no trained checkpoint"):
        ScaleDownModel.from_pretrained("embedded")


def test_users_faults_are_said(folders: dict[str, str], tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=400)).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="--compressor_type n_layers cannot .* a gpt2 model: it has no list"):
        ScaleDownModel(ScaleDownConfig(generator_model=str(tmp_path)))
    with pytest.raises(ValueError, match="--compressor_model: a gpt2 model .* llm compressor: it has no list"):
        build(folders, "llm", compressor_model=str(tmp_path))
    with pytest.raises(ValueError, match="causal LM .*--compressor_type llm"):
        build(folders, "modernbert", compressor_model=folders["qwen2"])
    with pytest.raises(ValueError, match="causal LM .*gpt2.*--compressor_type llm reads with one"):
        build(folders, "modernbert", compressor_model=str(tmp_path))
    with pytest.raises(ValueError, match="--num_layers 9"):
        build(folders, num_layers=9)
    model = build(folders)
    with pytest.raises(ValueError, match="1 questions, but documents for 2"):
        model.answer(["who?"], [[], []])
    with pytest.raises(ValueError, match="documents.0. is one document"):
        model.compress(["who?"], ["Ada"])
    with pytest.raises(ValueError, match="not both"):
        model.answer(["who?"], [[]], memory=model.compress(["who?"], [[]]))
    with pytest.raises(ValueError, match="max_new_tokens"):
        model.answer(["who?"], max_new_tokens=0)


@pytest.mark.parametrize("way", ["answer", "train", "full text"])
def test_a_prompt_beyond_the_generators_positions_is_said_once(folders: dict[str, str], way: str,
                                                               caplog: pytest.LogCaptureFixture) -> None:
    model = build(folders, enable_reranking=False)
    assert model.processor.num_positions == model.generator.config.max_position_embeddings
    short, long = "who?", "where is it? " * 8
    do = {"answer": lambda question: model.answer([question], [["Ada"]], max_new_tokens=1),
          "train": lambda question: model.processor.collate([record(question, ["Ada"], "no", [0.5])]),
          "full text": lambda question: model.prefill_text([question], [["Ada"]])}[way]
    prompt, = (model.processor.text_prompts([long], [["Ada"]]) if way == "full text" else
               model.processor.memory_prompts([long], [1]))
    model.processor.num_positions = len(prompt)
    with caplog.at_level(logging.WARNING):
        do(short)
        assert not caplog.records
        do(long)
        do(long)
    assert len(caplog.records) == 1 and "'where is it? where" in caplog.text and "fewer documents" in caplog.text


def test_the_package_hands_on_the_model_lazily() -> None:
    assert scaledown.ScaleDownModel is ScaleDownModel
    with pytest.raises(AttributeError):
        _ = scaledown.ScaleUpModel


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
