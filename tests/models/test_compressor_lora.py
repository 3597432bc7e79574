"""Compressors trained by LoRA: all their layers stay as they are, and checkpoints hold the changes alone."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch
from peft.tuners.lora import LoraLayer

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.config import TrainingConfig
from scaledown.data.records import Record
from scaledown.models.loading.parameters import trained
from scaledown.training.batches import pads_to_max

KINDS = ("n_layers", "llm", "llm of another model", "modernbert")
QUESTION, DOCUMENTS = "Where was Ada born?", ["Ada Lovelace was born in London.", "Oslo is the capital of Norway."]
RECORD = Record("1", QUESTION, tuple(DOCUMENTS), "London", reranking_scores=(3.0, -3.0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"generator": tiny.generator_folder(folder / "generator"),
            "other": tiny.generator_folder(folder / "other", "qwen2", num_hidden_layers=2),
            "encoder": tiny.encoder_folder(folder / "encoder")}


def config_of(kind: str, folders: dict[str, str], **settings) -> ScaleDownConfig:
    own = {"n_layers": {"num_layers": 2},
           "llm": {"compressor_model": folders["generator"], "memory_init": "reply"},
           "llm of another model": {"compressor_model": folders["other"]},
           "modernbert": {"compressor_model": folders["encoder"]}}[kind]
    return ScaleDownConfig(**{
        "generator_model": folders["generator"], "compressor_type": kind.split()[0], "num_memory_tokens": 3,
        "mlp_width": 2 * tiny.WIDTH, "enable_reranking": True, "lora_dropout": 0.0, "compressor_lora_rank": 2,
        **own, **settings})


def model_of(kind: str, folders: dict[str, str], **settings) -> ScaleDownModel:
    torch.manual_seed(1)
    return ScaleDownModel(config_of(kind, folders, **settings))


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_the_compressor_without_it(kind, folders):
    with_lora = model_of(kind, folders)
    without = ScaleDownModel(dataclasses.replace(config_of(kind, folders), compressor_lora_rank=None))
    own = trained(without.compressor)
    for name, weight in trained(with_lora.compressor).items():
        if "lora_" not in name:
            own[name].data.copy_(weight)
    expected, got = (model.compress(QUESTION, DOCUMENTS) for model in (without, with_lora))
    torch.testing.assert_close(got.embeddings, expected.embeddings)
    torch.testing.assert_close(got.scores, expected.scores)


@pytest.mark.parametrize("rank", [1, 3, 16])
def test_it_is_scaled_as_the_generators_is(folders, rank):
    model = model_of("n_layers", folders, lora_alpha=8, lora_rank=16, compressor_lora_rank=rank)
    for part in (model.generator, model.compressor):
        adapted = [module for module in part.modules() if isinstance(module, LoraLayer)]
        assert {module.scaling["default"] for module in adapted} == {0.5}


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_no_adapter_casts_its_input(kind, folders):
    model = ScaleDownModel(config_of(kind, folders), dtype="bfloat16").train()
    adapted = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert adapted
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    # The input itself is kept for the gradient, and no copy of it.
    for layer in adapted:
        states = torch.randn(7, layer.in_features, dtype=torch.bfloat16, requires_grad=True)
        kept.clear()
        with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
            changed = layer(states)
        assert changed.dtype == torch.bfloat16
        inputs = [tensor for tensor in kept if tensor.shape == states.shape]
        assert {tensor.data_ptr() for tensor in inputs} == {states.data_ptr()}
        changed.sum().backward()
        assert layer.lora_B["default"].weight.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_changes_the_adapter_and_what_is_new_and_no_layer(kind, folders):
    model = model_of(kind, folders).train()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    tiny.total(model(model.processor.collate([RECORD]))).backward()
    optimizer.step()

    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    of_compressor = {name for name in changed if name.startswith("compressor.")}
    assert any("lora_B" in name for name in of_compressor) and "compressor.memory_rows" in of_compressor
    for name in of_compressor:
        assert "lora_" in name or name.split(".")[1] in ("memory_rows", "rerank_row", "rerank_head", "mlp"), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_holds_the_changes_alone_and_answers_as_before(kind, folders, tmp_path):
    model = model_of(kind, folders)
    tiny.move_adapter(model)
    model.save_pretrained(tmp_path / "checkpoint")
    again = ScaleDownModel.from_pretrained(tmp_path / "checkpoint")
    assert again.answer(QUESTION, DOCUMENTS) == model.answer(QUESTION, DOCUMENTS)
    expected, got = (each.compress(QUESTION, DOCUMENTS) for each in (model, again))
    assert torch.equal(got.embeddings, expected.embeddings)

    stored = (tmp_path / "checkpoint" / "compressor.safetensors").stat().st_size
    num_trained = sum(weight.numel() for weight in trained(model.compressor).values())
    assert stored < 4 * num_trained + 20_000, "numbers of four bytes, and their names"


def test_a_compressor_of_the_generator_itself_shares_its_weights(folders):
    model = model_of("llm", folders)
    base = {id(weight) for weight in model.generator.base.parameters()}
    shared = [weight for weight in model.compressor.body.parameters() if id(weight) in base]
    assert sum(weight.numel() for weight in shared) > 20_000
    apart = model_of("llm of another model", folders)
    base = {id(weight) for weight in apart.generator.base.parameters()}
    assert not any(id(weight) in base for weight in apart.compressor.parameters())

    # Each weight counts once.
    own = {id(weight): weight.numel() for weight in model.parameters()}
    assert model.num_parameters() == sum(own.values())


def test_it_computes_in_bfloat16_as_loaded_in_it(folders, tmp_path):
    model = model_of("llm", folders)
    tiny.move_adapter(model)
    model.save_pretrained(tmp_path / "checkpoint")
    loaded = ScaleDownModel.from_pretrained(tmp_path / "checkpoint", dtype="bfloat16")
    expected, got = (each.compress(QUESTION, DOCUMENTS).embeddings for each in (loaded, model.bfloat16()))
    assert torch.equal(got, expected)
    assert {weight.dtype for weight in trained(model).values()} == {torch.float32}


def test_it_cannot_be_sharded(folders):
    with pytest.raises(ValueError, match="--compressor_lora_rank"):
        pads_to_max(TrainingConfig(shard=True), model_of("llm", folders))


def test_a_rank_of_nothing_is_refused():
    with pytest.raises(ValueError, match="--compressor_lora_rank must be above 0"):
        ScaleDownConfig(compressor_lora_rank=0)
