"""Memory knows its model and its questions, and is refused by others; it is saved and loaded as a whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.loading import tensor_file
from scaledown.models.loading.model_fingerprint import fingerprint
from scaledown.models.memory import Memory
from scaledown.models.model import ScaleDownModel
from scaledown.training import run

QUESTIONS = ["Who was born in London?", "where", "What is the capital of Norway?"]
DOCUMENTS = [["Ada Lovelace was born in London.", {"text": "Oslo", "id": "oslo"}], [], ["Paris", "", "Oslo is it."]]
OTHER_QUESTION = "memory 0 was made for the question 'Who was .*', not for 'why'.* read_documents"
OTHER_MODEL = "made by another model, or before this one was trained further: compress the documents again"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(tiny.generator_folder(root / "generator"), num_layers=2, num_memory_tokens=3,
                                           enable_reranking=True))
    tiny.move_adapter(model)
    model.save_pretrained(root / "checkpoint")
    return root / "checkpoint"


@pytest.fixture(scope="module")
def model(folder: Path) -> ScaleDownModel:
    return ScaleDownModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def memory(model: ScaleDownModel) -> Memory:
    return model.compress(QUESTIONS, DOCUMENTS)


def test_it_answers_its_own_questions_of_its_own_model(model: ScaleDownModel, memory: Memory, folder: Path) -> None:
    wanted = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=5)
    assert model.answer(QUESTIONS, memory=memory, max_new_tokens=5) == wanted
    assert model.answer(QUESTIONS[::-1], memory=memory.select([2, 1, 0]), max_new_tokens=5) == wanted[::-1]

    # The same checkpoint again, in another number format, is the same model.
    other = ScaleDownModel.from_pretrained(folder, dtype="bfloat16")
    assert fingerprint(other) == fingerprint(model) == memory.origin.model
    assert other.answer(QUESTIONS, memory=memory, max_new_tokens=1)


def test_it_knows_what_it_was_made_from(model: ScaleDownModel, memory: Memory) -> None:
    assert memory.origin.questions == tuple(QUESTIONS) and memory.origin.document_tokens == 48
    assert [len(ids) for ids in memory.origin.document_ids] == [2, 0, 3] and memory.origin.document_ids[0][1] == "oslo"
    kept = memory.select([2, 0]).keep([[2, 0], [1]])
    assert kept.origin.questions == (QUESTIONS[2], QUESTIONS[0])
    assert kept.origin.document_ids == ((*memory.origin.document_ids[2][::-2],), ("oslo",))
    assert len(repr(memory).splitlines()) <= 5 and "3 questions, 5 documents (0 to 3 each), scored" in repr(memory)


@pytest.mark.parametrize("way", ["answer", "answer_with_sources", "prefill", "prompts", "prompt_embeds"])
def test_other_questions_are_refused(model: ScaleDownModel, memory: Memory, way: str) -> None:
    ask = getattr(model, way)
    for questions, given, message in ((["why", *QUESTIONS[1:]], memory, OTHER_QUESTION),
                                      ("why", memory.select([0]), OTHER_QUESTION),
                                      (QUESTIONS[:2], memory, "2 questions, but memory for 3"),
                                      (QUESTIONS, memory.select([0, 2, 1]), "memory 1 was made for")):
        with pytest.raises(ValueError, match=message):
            ask(questions, memory=given)


def test_another_model_is_refused(model: ScaleDownModel, memory: Memory) -> None:
    torch.manual_seed(1)
    other = ScaleDownModel(model.config)
    with pytest.raises(ValueError, match=OTHER_MODEL):
        other.answer(QUESTIONS, memory=memory)


@pytest.mark.parametrize("part", ["compressor.memory_rows", "generator.separator_row", "lora_B"])
def test_a_model_that_was_trained_further_is_refused(folder: Path, memory: Memory, part: str) -> None:
    model = ScaleDownModel.from_pretrained(folder)
    model.prompts(QUESTIONS, memory)
    weight = next(value for name, value in model.named_parameters() if part in name)
    step = torch.optim.SGD([weight], lr=0.1)
    weight.grad = torch.ones_like(weight)
    step.step()
    with pytest.raises(ValueError, match=OTHER_MODEL):
        model.answer(QUESTIONS, memory=memory)

    # As it was before: the memory belongs to it again.
    model.load_trained(folder)
    model.prompts(QUESTIONS, memory)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_of_training_counts(folder: Path, memory: Memory, tmp_path: Path, optimizer: str) -> None:
    """The optimizers change weights in ways of their own, which must be noticed without a look at all weights."""
    model = ScaleDownModel.from_pretrained(folder)
    before = fingerprint(model)
    assert before == memory.origin.model
    run.train(model, TrainingConfig(batch_size=2, max_steps=1, warmup_ratio=0.0, optimizer=optimizer),
              list(synthetic_records(2, seed=5)), tmp_path / "run")
    assert fingerprint(model) != before
    with pytest.raises(ValueError, match=OTHER_MODEL):
        model.answer(QUESTIONS, memory=memory)


def test_settings_that_shape_the_memory_count_and_places_do_not(folder: Path, memory: Memory) -> None:
    model = ScaleDownModel.from_pretrained(folder)
    own = model.config
    model.config = dataclasses.replace(own, keep_threshold=0.5, generator_model="elsewhere")
    assert fingerprint(model) == memory.origin.model
    model.config = dataclasses.replace(own, query_tokens=7)
    assert fingerprint(model) != memory.origin.model


def test_memory_of_no_known_origin_is_not_checked(model: ScaleDownModel, memory: Memory) -> None:
    own = Memory(memory.embeddings, memory.scores, memory.num_documents)
    assert model.answer(["why"] * 3, memory=own, max_new_tokens=1)
    assert model.answer_with_sources(["why"] * 3, memory=own, max_new_tokens=1)[0].document_ids is None
    with pytest.raises(ValueError, match="1 questions, but memory for 3"):
        model.answer(["why"], memory=own)


@pytest.mark.parametrize("name", ["kept.safetensors", "folder"])
def test_what_is_saved_is_what_is_loaded(memory: Memory, tmp_path: Path, name: str) -> None:
    for number, wanted in enumerate((memory, memory.to(dtype=torch.bfloat16), Memory(
            memory.embeddings, None, memory.num_documents))):
        path = tmp_path / str(number) / name
        wanted.save(path)
        found = Memory.load(path)
        assert torch.equal(found.embeddings, wanted.embeddings) and found.origin == wanted.origin
        assert torch.equal(found.num_documents, wanted.num_documents)
        assert (found.scores is None) == (wanted.scores is None)
        assert found.scores is None or torch.equal(found.scores, wanted.scores)
        assert [each.name for each in path.parent.iterdir()] == [name], "and nothing beside it"
    assert memory.to(dtype=torch.bfloat16).scores.dtype == torch.float32
    assert memory.to("meta").scores.device.type == "meta"


def test_a_loaded_memory_answers(model: ScaleDownModel, memory: Memory, tmp_path: Path) -> None:
    memory.save(tmp_path)
    found = Memory.load(tmp_path / "memory.safetensors")
    assert model.answer(QUESTIONS, memory=found, max_new_tokens=5) == model.answer(
        QUESTIONS, memory=memory, max_new_tokens=5)
    with pytest.raises(ValueError, match=OTHER_QUESTION):
        model.answer(["why", *QUESTIONS[1:]], memory=found)


def changed(path: Path, **values: object) -> None:
    """Write the memory at ``path`` again, with other parts or another origin."""
    tensors, description = tensor_file.read(path)
    origin = {name: value for name, value in values.items() if name in description["memory"]}
    tensors |= {name: value for name, value in values.items() if name not in origin}
    tensor_file.write(path, tensors, {"memory": description["memory"] | origin})


@pytest.mark.parametrize("values", [
    {"num_documents": torch.tensor([2, 0])}, {"num_documents": torch.tensor([2, 0, 9])}, {"scores": torch.zeros(3, 2)},
    {"embeddings": torch.zeros(3, 3, 4)}, {"questions": ["one"]}, {"document_ids": [[], [], []]},
    {"document_ids": 7}, {"document_tokens": "many"}])
def test_parts_that_do_not_fit_are_refused(memory: Memory, tmp_path: Path, values: dict) -> None:
    path = tmp_path / "memory.safetensors"
    memory.save(path)
    changed(path, **values)
    with pytest.raises(ValueError, match="memory.safetensors: not a memory that Memory.save wrote, or a damaged one"):
        Memory.load(path)


def test_other_files_are_refused(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "memory.safetensors"
    with pytest.raises(ValueError, match="no such file"):
        Memory.load(path)
    memory.save(path)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()[tensor_file.KEY])["memory"]["questions"] == QUESTIONS
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="memory.safetensors: damaged, or no safetensors file"):
        Memory.load(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="damaged, or no safetensors file"):
        Memory.load(path)
    save_file({"embeddings": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not one that ScaleDown wrote"):
        Memory.load(path)


def test_a_file_that_cannot_be_written_leaves_the_old_one(memory: Memory, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "memory.safetensors"
    memory.select([0]).save(path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_file, "save_file", full)
    with pytest.raises(ValueError, match="memory.safetensors: cannot be written .No space left"):
        memory.save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_no_questions_have_no_prompts(folder):
    model = ScaleDownModel.from_pretrained(folder)
    prompts = model.prefill([], model.compress([], []))
    assert prompts.embeddings.shape[:2] == prompts.mask.shape == (0, 0)


@pytest.mark.parametrize("origin", [[1], "text", {"document_tokens": float("inf")}, {"passages": [[5]]},
                                    {"questions": 5}])
def test_a_damaged_description_is_told_with_its_file(origin: object, memory: Memory, tmp_path: Path) -> None:
    path, kept = tmp_path / "memory.safetensors", dataclasses.asdict(memory.origin)
    tensors = {"embeddings": memory.embeddings, "num_documents": memory.num_documents}
    tensor_file.write(path, tensors, {"memory": kept | origin if isinstance(origin, dict) else origin})
    with pytest.raises(ValueError, match="memory.safetensors: not a memory that Memory.save wrote, or a damaged one"):
        Memory.load(path)
