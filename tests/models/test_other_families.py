"""Generators that cannot read packed texts, models inside others, and those that cannot be used, which are refused."""

from __future__ import annotations

from pathlib import Path

import families
import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_families import DOCUMENTS, MEMORY, QUESTIONS, answer_ids, build, ended, plain_loss, records
from transformers import AutoModelForCausalLM, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.loading import generator_files
from scaledown.models.model import ScaleDownModel

IMAGES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}
NEW = 6


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module", params=families.PADDED)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return families.generator_folder(tmp_path_factory.mktemp("generator"), request.param)


def beside(encoder: str, folder: str) -> ScaleDownModel:
    """A model of the generator in a folder, with an encoder that compresses."""
    return build(folder, compressor_type="modernbert", compressor_model=encoder, mlp_width=16)


def test_a_generator_that_cannot_be_packed_answers_as_transformers_does(folder: str, encoder: str) -> None:
    model = beside(encoder, folder)
    assert not model.generator.packs
    merged, memory = model.merge(), model.compress(QUESTIONS, DOCUMENTS)
    wanted = [ended(merged.generate(inputs_embeds=each[None], max_new_tokens=7)[0].tolist(), model.stop_ids)
              for each in model.prompt_embeds(QUESTIONS, memory=memory)]
    assert answer_ids(model, model.prefill(QUESTIONS, memory)) == wanted

    plain, said = AutoModelForCausalLM.from_pretrained(folder), []
    for ids in model.processor.text_prompts(QUESTIONS, DOCUMENTS):
        found = plain.generate(torch.tensor([ids]), max_new_tokens=7, do_sample=False, eos_token_id=model.stop_ids)
        said.append(ended(found[0, len(ids):].tolist(), model.stop_ids))
    assert answer_ids(model, model.prefill_text(QUESTIONS, DOCUMENTS)) == said


def test_a_generator_that_cannot_be_packed_learns_from_the_plain_loss(folder: str, encoder: str) -> None:
    model = beside(encoder, folder).train()
    memory = model.compressor(model.processor.compressor_texts(QUESTIONS, DOCUMENTS).packed(), model.generator.embed)
    wanted = plain_loss(model, memory.embeddings)
    found = model(model.processor.collate(records())).answer_loss
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    learns = [each for each in model.parameters() if each.requires_grad]
    grads = [torch.autograd.grad(loss, learns, allow_unused=True, retain_graph=True) for loss in (wanted, found)]
    for one, other in zip(*grads, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one - other).abs().max() < 3e-4 * one.abs().max().clamp(min=1e-2)

    # No adapter is there in vain: each has a say in what is said.
    names = [name for name, each in model.named_parameters() if each.requires_grad]
    unused = {name for name, each in zip(names, grads[1], strict=True) if "lora_B" in name and not each.any()}
    assert not {name for name in unused if "expert" not in name}

    model.gradient_checkpointing_enable()
    torch.testing.assert_close(model(model.processor.collate(records())).answer_loss, found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["n_layers", "llm"])
def test_it_cannot_be_a_compressor(folder: str, kind: str, tmp_path: Path) -> None:
    settings = {"generator_model": folder} if kind == "n_layers" else {
        "generator_model": tiny.generator_folder(tmp_path), "compressor_model": folder, "mlp_width": 16}
    flag = "--compressor_type n_layers cannot copy" if kind == "n_layers" else "--compressor_model: a"
    with pytest.raises(ValueError, match=f"{flag} .*model.*: (it|its) .*--compressor_type modernbert"):
        ScaleDownModel(ScaleDownConfig(compressor_type=kind, num_memory_tokens=MEMORY, **settings))


def test_a_router_gets_no_adapter(tmp_path: Path) -> None:
    """Some are linear maps that also choose: what they give is no tensor that an adapter could add to."""
    folder = families.generator_folder(tmp_path, "Phimoe", num_local_experts=4, num_experts_per_tok=2)
    model = build(folder)
    names = {name for name, module in model.generator.base.named_modules() if hasattr(module, "lora_A")}
    assert names and not any("router" in name for name in names)
    assert model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=3)


def no_causal_lm(folder: Path) -> None:
    transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=400, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(folder)


def no_embeddings(folder: Path) -> None:
    families.generator(
        "Bamba", mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1, mamba_chunk_size=16,
        attn_layer_indices=[1, 3]).save_pretrained(folder)


def tokens_looked_up(folder: Path) -> None:
    config = transformers.Gemma4TextConfig(**families.SMALL, head_dim=8, hidden_size_per_layer_input=8,
                                           vocab_size_per_layer_input=400)
    transformers.Gemma4ForCausalLM(config).save_pretrained(folder)


def no_decoder_named(folder: Path) -> None:
    config = transformers.Llama4TextConfig(**families.SMALL, head_dim=8, num_local_experts=2)
    transformers.Llama4ForCausalLM(config).save_pretrained(folder)


def no_text_model_by_itself(folder: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    images = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    transformers.Qwen2_5_VLConfig(text_config=families.SMALL | {"rope_parameters": rope},
                                  vision_config=images).save_pretrained(folder)


@pytest.mark.parametrize("make, message", [
    (no_causal_lm, "a causal LM is needed, this is an encoder-decoder .t5."),
    (no_embeddings, "a bamba model cannot read memory: transformers lets it answer from token ids alone"),
    (tokens_looked_up, "a gemma4_text model cannot read memory: its layers look up each token by its id"),
    (no_decoder_named, "a llama4_text model cannot read memory: transformers does not name"),
    (no_text_model_by_itself, "a causal LM is needed, and transformers has none of the family qwen2_5_vl"),
], ids=lambda each: getattr(each, "__name__", ""))
def test_what_cannot_answer_from_memory_is_refused(make: object, message: str, encoder: str, tmp_path: Path) -> None:
    make(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"--generator_model.* {message}"):
        beside(encoder, str(tmp_path))


def with_images(kind: str) -> PreTrainedModel:
    """A multimodal model around a tiny decoder."""
    torch.manual_seed(0)
    if kind == "Gemma3":
        text = transformers.Gemma3TextConfig(**families.SMALL, head_dim=8, sliding_window=8).to_dict()
        config = transformers.Gemma3Config(text_config=text, vision_config=IMAGES, mm_tokens_per_image=4)
    elif kind == "Mistral3":
        config = transformers.Mistral3Config(text_config=families.SMALL | {"model_type": "mistral", "head_dim": 8},
                                             vision_config=IMAGES | {"model_type": "pixtral", "head_dim": 8})
    else:
        config = transformers.LlavaConfig(text_config=families.SMALL | {"model_type": "llama"},
                                          vision_config=IMAGES | {"model_type": "clip_vision_model"})
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()


@pytest.fixture(params=["Gemma3", "Mistral3", "Llava"])
def multimodal(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[PreTrainedModel, str]:
    whole, folder = with_images(request.param), tmp_path / "whole"
    whole.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return whole, str(folder)


def test_of_a_multimodal_model_the_text_model_is_the_generator(multimodal: tuple[PreTrainedModel, str],
                                                               tmp_path: Path) -> None:
    whole, folder = multimodal
    model = build(folder, num_layers=2)
    found = {name.replace(".base_layer", ""): weight for name, weight in
             model.generator.base.base_model.state_dict().items() if "lora" not in name}
    wanted = whole.get_decoder().state_dict()
    assert found.keys() == wanted.keys() and all(found[name].equal(wanted[name]) for name in wanted)
    head, own = model.generator.base.get_output_embeddings().weight, whole.get_output_embeddings().weight
    assert head.equal(own) and not hasattr(model.generator.base.base_model, "vision_tower")

    # The whole model says of the same text what its language model says.
    ids = model.processor.text_prompts(QUESTIONS[:1], DOCUMENTS[:1])
    said = whole.generate(torch.tensor(ids), max_new_tokens=NEW, do_sample=False, eos_token_id=model.stop_ids)
    wanted = ended(said[0, len(ids[0]):].tolist(), model.stop_ids)
    assert answer_ids(model, model.prefill_text(QUESTIONS[:1], DOCUMENTS[:1]))[0][:NEW] == wanted

    model.save_pretrained(tmp_path / "saved")
    loaded = ScaleDownModel.from_pretrained(tmp_path / "saved")
    assert loaded.answer(QUESTIONS, DOCUMENTS, max_new_tokens=NEW) == model.answer(QUESTIONS, DOCUMENTS,
                                                                                   max_new_tokens=NEW)


def test_of_a_multimodal_model_the_text_model_is_the_compressor(multimodal: tuple[PreTrainedModel, str],
                                                                tmp_path: Path) -> None:
    whole, folder = multimodal
    model = build(tiny.generator_folder(tmp_path / "generator"), compressor_type="llm", compressor_model=folder,
                  mlp_width=16)
    found, wanted = model.compressor.body.state_dict(), whole.get_decoder().state_dict()
    assert found.keys() == wanted.keys() and all(found[name].equal(wanted[name]) for name in wanted)
    model.save_pretrained(tmp_path / "saved")
    loaded = ScaleDownModel.from_pretrained(tmp_path / "saved")
    assert loaded.compress(QUESTIONS, DOCUMENTS).pairs().equal(model.compress(QUESTIONS, DOCUMENTS).pairs())


@pytest.mark.parametrize("kind", ["generator", "compressor"])
def test_weights_that_are_missing_are_not_drawn_at_random(kind: str, tmp_path: Path) -> None:
    folder = Path(tiny.generator_folder(tmp_path / "half"))
    weights = load_file(folder / generator_files.WEIGHTS_FILE)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / generator_files.WEIGHTS_FILE, metadata={"format": "pt"})
    settings = {"generator_model": str(folder)} if kind == "generator" else {
        "generator_model": tiny.generator_folder(tmp_path / "whole"), "compressor_type": "llm",
        "compressor_model": str(folder), "mlp_width": 16}
    with pytest.raises(ValueError, match="half: 1 of its weights are missing, such as .*layers.1.mlp.up_proj"):
        ScaleDownModel(ScaleDownConfig(num_memory_tokens=MEMORY, **settings))
