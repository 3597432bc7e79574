"""A model that only answers: the adapters folded in, all weights in one number format, no autocast."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.models.loading.model_fingerprint import fingerprint

QUESTIONS = ["Where was Ada born?", "What is the capital of Norway?"]
DOCUMENTS = [["Ada Lovelace was born in London.", "Oslo is the capital of Norway."], ["Norway's capital is Oslo."]]
KINDS = {
    "n_layers": {},
    "n_layers by LoRA": {"compressor_lora_rank": 2},
    "llm of the generator": {"compressor_type": "llm", "compressor_lora_rank": 2, "soft_tokens": True,
                             "input_order": "document_first"},
    "modernbert": {"compressor_type": "modernbert", "mlp_width": 16},
    "none": {"compressor_type": "none"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {"generator": tiny.generator_folder(root / "generator", tie_word_embeddings=True),
            "encoder": tiny.encoder_folder(root / "encoder")}


def build(folders: dict[str, str], kind: str, dtype: str = "float32") -> ScaleDownModel:
    settings = dict(KINDS[kind])
    if kind.startswith("llm"):
        settings["compressor_model"] = folders["generator"]
    if kind == "modernbert":
        settings["compressor_model"] = folders["encoder"]
    if kind != "none":
        settings |= {"num_memory_tokens": 3, "enable_reranking": True}
    torch.manual_seed(1)
    model = ScaleDownModel(ScaleDownConfig(generator_model=folders["generator"], **settings), dtype=dtype)
    tiny.move_adapter(model)
    return model


def first_logits(model: ScaleDownModel) -> torch.Tensor:
    if model.config.reads_text:
        prompts = model.prefill_text(QUESTIONS, DOCUMENTS, with_adapter=True)
    else:
        prompts = model.prefill(QUESTIONS, model.compress(QUESTIONS, DOCUMENTS))
    with model.inference():
        return tiny.first_logits(model.generator, prompts)


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_before(folders, kind):
    model = build(folders, kind)
    expected, answers = first_logits(model), model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=8)
    scores = None if kind == "none" else model.compress(QUESTIONS, DOCUMENTS).scores

    assert model.for_answering() is model and model.only_answers
    torch.testing.assert_close(first_logits(model), expected, rtol=1e-4, atol=1e-4)
    assert model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=8) == answers
    if scores is not None:
        torch.testing.assert_close(model.compress(QUESTIONS, DOCUMENTS).scores, scores, rtol=1e-4, atol=1e-4)
    # Once is enough: a second time must not fold anything again.
    torch.testing.assert_close(first_logits(model.for_answering()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_it_computes_without_autocast_and_without_casts(folders, kind, monkeypatch):
    model = build(folders, kind, "bfloat16")
    expected = first_logits(model).float()
    model.for_answering()
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}

    with monkeypatch.context() as patched:
        patched.setattr(torch, "autocast", None)
        found = first_logits(model).float()
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()


def test_the_shared_weights_of_a_compressor_become_its_own(folders):
    model = build(folders, "llm of the generator").for_answering()
    own = model.compressor.body.layers[0].mlp.up_proj.base_layer.weight
    of_generator = model.generator.base.base_model.layers[0].mlp.up_proj.base_layer.weight
    assert own.data_ptr() != of_generator.data_ptr() and not torch.equal(own, of_generator)
    # Embeddings, which nothing changes, are still shared.
    assert (model.compressor.body.get_input_embeddings().weight.data_ptr()
            == model.generator.base.get_input_embeddings().weight.data_ptr())


def test_memory_and_documents_read_before_stay_usable(folders):
    model = build(folders, "llm of the generator")
    memory = model.compress(QUESTIONS, DOCUMENTS)
    store = model.read_documents([*DOCUMENTS[0], *DOCUMENTS[1]])
    before = fingerprint(model)
    model.for_answering()
    assert fingerprint(model) == before
    assert model.answer(QUESTIONS, memory=memory, max_new_tokens=4) == model.answer(QUESTIONS, DOCUMENTS,
                                                                                    max_new_tokens=4)
    assert model.compress(QUESTIONS, DOCUMENTS, store=store).embeddings.shape == memory.embeddings.shape


def test_what_needs_the_adapters_is_refused(folders, tmp_path):
    model = build(folders, "n_layers").for_answering()
    for refused in (lambda: model.save_pretrained(tmp_path / "checkpoint"), model.merge,
                    lambda: model.save_adapter(tmp_path / "checkpoint"),
                    lambda: model.parameter_groups(1e-3, 1e-3, 0.0), lambda: model.load_trained(tmp_path)):
        with pytest.raises(ValueError, match="load its checkpoint again to train, save or merge it"):
            refused()
    with pytest.raises(ValueError, match="load the checkpoint again for answers without it"):
        model.prefill_text(QUESTIONS, DOCUMENTS)
    assert not (tmp_path / "checkpoint").exists()


def test_a_base_in_few_bits_is_refused(folders):
    model = build(folders, "n_layers")
    model.generator.base.is_quantized = True
    with pytest.raises(ValueError, match="cannot be folded into a generator in 4 or 8 bits"):
        model.for_answering()


def test_a_copy_keeps_the_fingerprint_that_tells_it_from_other_models(folders):
    model, other = build(folders, "n_layers"), build(folders, "n_layers")
    with torch.no_grad():
        other.compressor.memory_rows += 1
    memory, before = model.compress(QUESTIONS, DOCUMENTS), fingerprint(model)
    copies = [copy.deepcopy(each.for_answering()) for each in (model, other)]
    assert fingerprint(copies[0]) == fingerprint(model) == before
    assert fingerprint(copies[1]) == fingerprint(other) != before
    assert copies[0].answer(QUESTIONS, memory=memory, max_new_tokens=2)
    with pytest.raises(ValueError, match="made by another model"):
        copies[1].answer(QUESTIONS, memory=memory, max_new_tokens=2)
