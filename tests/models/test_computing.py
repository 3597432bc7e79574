"""The device and the number format of a model: asked for when it is loaded, or changed later; its sizes in words."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from huggingface_hub import HfApi
from transformers import AutoModelForCausalLM

from scaledown.config import ScaleDownConfig
from scaledown.hub import connection
from scaledown.models.loading import checkpoint, placement
from scaledown.models.model import ScaleDownModel

QUESTIONS = ["Who was born in London?", "where", "What is the capital of Norway?"]
DOCUMENTS = [["Ada Lovelace was born in London.", "Oslo"], [], ["Paris", "Oslo is the capital."]]
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["n_layers", "modernbert"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, settings = tmp_path_factory.mktemp("model"), {}
    if request.param == "modernbert":
        settings = {"compressor_model": tiny.encoder_folder(root / "encoder"), "mlp_width": 16}
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(tiny.generator_folder(root / "generator", "qwen2"), num_memory_tokens=3,
                                           compressor_type=request.param, enable_reranking=True, **settings))
    tiny.move_adapter(model)
    model.save_pretrained(root / "checkpoint")
    return root / "checkpoint"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_cast_model_is_one_that_was_loaded_so(folder: Path, dtype: str) -> None:
    loaded, torch_dtype = ScaleDownModel.from_pretrained(folder, dtype=dtype), getattr(torch, dtype)
    exact = ScaleDownModel.from_pretrained(folder)
    for cast in (lambda model: model.to(torch_dtype), lambda model: model.to("cpu", torch_dtype),
                 lambda model: model.to(dtype=torch_dtype), lambda model: model.to(torch.zeros(1, dtype=torch_dtype)),
                 lambda model: model.half() if dtype == "float16" else model.bfloat16()):
        model = copy.deepcopy(exact)
        assert cast(model) is model and model.dtype == torch_dtype
        for (name, one), other in zip(model.named_parameters(), loaded.parameters(), strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other), name
        for (name, one), other in zip(model.named_buffers(), loaded.buffers(), strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other), name

    wanted, found = loaded.compress(QUESTIONS, DOCUMENTS), model.compress(QUESTIONS, DOCUMENTS)
    assert torch.equal(found.embeddings, wanted.embeddings) and torch.equal(found.scores, wanted.scores)
    assert model.answer(QUESTIONS, memory=found, max_new_tokens=4) == loaded.answer(
        QUESTIONS, memory=wanted, max_new_tokens=4)

    # What was rounded stays rounded, but the arithmetic is float32's again.
    assert model.float().answer(QUESTIONS, DOCUMENTS, max_new_tokens=2) and model.dtype == torch.float32
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_half_precision_is_close_to_float32(folder: Path) -> None:
    model = ScaleDownModel.from_pretrained(folder)
    exact = model.compress(QUESTIONS, DOCUMENTS).embeddings
    rounded = model.bfloat16().compress(QUESTIONS, DOCUMENTS).embeddings
    assert 0 < (rounded - exact).abs().max() < 0.1 * exact.abs().max()


def test_what_cannot_be_computed_in_is_refused(folder: Path) -> None:
    model = ScaleDownModel.from_pretrained(folder)
    for cast in (model.double, lambda: model.to(torch.int8)):
        with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16, got"):
            cast()
    model.generator.base.is_quantized = True
    with pytest.raises(ValueError, match="4 or 8 bits cannot be cast"):
        model.half()
    with pytest.raises(ValueError, match="cannot move from cpu to meta"):
        model.to("meta")
    assert model.to("cpu").float() is model
    assert ScaleDownModel.from_pretrained(folder).to("meta").device.type == "meta"


@pytest.mark.parametrize("settings", [{}, {"device": "auto"}, {"device": "cpu"}, {"device_map": "auto"},
                                      {"device_map": "cpu"}, {"device_map": {"": "cpu"}}, {"device_map": CPU}])
def test_devices_by_every_name(settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert placement.device_of(**settings) == CPU


def test_auto_takes_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert placement.device_of("auto").type == placement.device_of(device_map="auto").type == "cuda"
    assert placement.device_of(device_map={"": 1}) == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert placement.dtype_of("auto", torch.device("cuda")) == torch.bfloat16
    assert placement.dtype_of("auto", CPU) == placement.dtype_of(None, CPU) == torch.float32
    assert placement.dtype_of("float16", CPU) == placement.dtype_of(torch.float16, CPU) == torch.float16


def test_a_checkpoint_is_loaded_onto_the_fastest_device_unless_one_is_named(folder: str,
                                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def device_of(device: object = None, device_map: object = None) -> torch.device:
        asked.append((device, device_map))
        return CPU

    monkeypatch.setattr(placement, "device_of", device_of)
    monkeypatch.setattr(placement, "dtype_of", lambda dtype, device: asked.append(dtype) or torch.float32)
    ScaleDownModel.from_pretrained(folder)
    assert asked[0] == ("auto", None) and asked[-1] == "auto"
    asked.clear()
    ScaleDownModel.from_pretrained(folder, device_map="cuda:0", dtype="float16")
    assert asked[0] == (None, "cuda:0") and asked[-1] == "float16"


@pytest.mark.parametrize("settings, message", [
    ({"device": "cpu", "device_map": "auto"}, "give device or device_map, not both"),
    ({"device_map": {"model.layers.0": 0, "lm_head": 1}}, "device_map: a ScaleDown model lies on one device"),
    ({"device_map": "balanced"}, "device_map must name one device, .* got 'balanced'"),
    ({"device": "cuda:1"}, "device: torch finds no CUDA GPU here for 'cuda:1'; give 'cpu' or 'auto'"),
    ({"device": 1.5}, "device must name one device, .* got 1.5"),
    ({"dtype": "float64"}, "dtype must be 'auto' or one of float32, bfloat16, float16, got 'float64'"),
    ({"dtype": torch.int8}, "dtype must be 'auto' or one of")])
def test_places_that_a_model_cannot_have_are_refused(folder: Path, settings: dict, message: str,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        ScaleDownModel.from_pretrained(folder, **settings)


def test_a_generator_that_moved_is_named_anew(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old = tiny.generator_folder(tmp_path / "old")
    config = ScaleDownConfig(old, compressor_type="llm", compressor_model=old, num_memory_tokens=2, mlp_width=64,
                             memory_init="reply")
    model = ScaleDownModel(config)
    answers = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=4)
    model.save_pretrained(tmp_path / "checkpoint")
    shutil.move(old, tmp_path / "new")
    with pytest.raises(ValueError, match=r"generator_model=FOLDER"):
        ScaleDownModel.from_pretrained(tmp_path / "checkpoint")

    moved = ScaleDownModel.from_pretrained(tmp_path / "checkpoint", generator_model=tmp_path / "new")
    assert moved.answer(QUESTIONS, DOCUMENTS, max_new_tokens=4) == answers
    assert moved.answer(QUESTIONS, memory=model.compress(QUESTIONS, DOCUMENTS), max_new_tokens=4) == answers
    moved.save_pretrained(tmp_path / "again")
    assert ScaleDownModel.from_pretrained(tmp_path / "again").config == moved.config

    # Another one in its place is refused.
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    torch.nn.init.normal_(other.model.layers[0].mlp.up_proj.weight)
    shutil.copytree(tmp_path / "new", tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="trained on another generator than .*other is now: its weights differ"):
        ScaleDownModel.from_pretrained(tmp_path / "checkpoint", generator_model=str(tmp_path / "other"))


def test_the_token_goes_with_every_request(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(connection, "ask", lambda name, revision, kind, token: asked.append(token) or "no")
    for token in ("mine", None):
        with pytest.raises(ValueError, match="no"):
            ScaleDownModel.from_pretrained("me/model", token=token)
    assert asked == ["mine", None] and connection.current_token() is None

    loaded: list[dict] = []
    monkeypatch.setattr(checkpoint, "locate", lambda name, revision, **advice: name)
    monkeypatch.setattr(checkpoint, "snapshot_download", lambda name, **given: loaded.append(given) or str(folder))
    model = ScaleDownModel.from_pretrained("me/model", token="mine", revision="v1")
    assert loaded == [{"revision": "v1", "token": "mine"}]

    sent: list[object] = []
    monkeypatch.setattr(HfApi, "create_repo", lambda api, repo_id, **given: sent.append((api.token, repo_id, given)))
    monkeypatch.setattr(HfApi, "file_exists", lambda api, repo_id, name: False)
    monkeypatch.setattr(HfApi, "upload_folder", lambda api, **given: sent.append(given["repo_id"]))
    model.push_to_hub("me/new", private=True, token="mine")
    assert sent == [("mine", "me/new", {"private": True, "exist_ok": True}), "me/new"]


def test_a_model_is_told_in_a_few_lines(folder: Path) -> None:
    model = ScaleDownModel.from_pretrained(folder)
    text = repr(model)
    assert len(text.splitlines()) <= 5 and "3 memory tokens" in text and "48 document tokens" in text
    assert "qwen2, 4 layers" in text and "float32 on cpu" in text and model.config.compressor_type in text
    num_all = sum(weight.numel() for weight in model.parameters())
    num_trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert (model.num_parameters(), model.num_parameters(only_trainable=True)) == (num_all, num_trained)
    assert f"{num_all:,} parameters, {num_trained:,} trained" in text


def test_cuda_and_cpu_take_the_checks_of_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ScaleDownModel.from_pretrained(folder)
    model.generator.base.is_quantized = True
    for move in (model.cuda, lambda: model.cuda(0)):
        with pytest.raises(ValueError, match="4 or 8 bits cannot move from cpu to cuda"):
            move()
    assert model.cpu() is model and model.device == CPU
    monkeypatch.setattr(type(model), "to", lambda self, *places: places)
    assert (model.cpu(), model.cuda(), model.cuda(1)) == (("cpu",), ("cuda",), (1,))


def test_a_gpu_of_apple_that_is_not_there_is_told_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device: torch finds no GPU of Apple's here for 'mps'"):
        placement.device_of("mps")
