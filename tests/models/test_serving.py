"""Serving: the merged generator under plain transformers, answers as they grow, and the cache of memory."""

from __future__ import annotations

import copy
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from scaledown.config import ScaleDownConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.engine import attention
from scaledown.models.merge import main
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving import question_answering
from scaledown.models.serving.cache import MemoryCache
from scaledown.models.serving.streaming import Piece, pieces

QUESTIONS = ["Who was born in London?", "where", "What is the capital of Norway?"]
DOCUMENTS = [["Ada Lovelace was born in London.", "Oslo"], [], ["Paris " * 40, "", "The capital of Norway is Oslo."]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ScaleDownModel:
    torch.manual_seed(0)
    folder = tiny.generator_folder(tmp_path_factory.mktemp("generator"), "qwen2")
    model = ScaleDownModel(ScaleDownConfig(generator_model=folder, num_memory_tokens=4, train_memory_tokens=(2, 4),
                                           lora_rank=4, enable_reranking=True))
    tiny.move_adapter(model)
    model.long_documents = "cut"
    return model


def answered_by(plain, tokenizer, embeddings: list[torch.Tensor], max_new_tokens: int) -> list[str]:
    """What plain transformers answers from embeddings alone."""
    said = [plain.generate(inputs_embeds=each[None], max_new_tokens=max_new_tokens, do_sample=False)[0]
            for each in embeddings]
    return [tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip() for ids in said]


def test_the_merged_generator_answers_the_same_under_plain_transformers(model: ScaleDownModel, tmp_path: Path) -> None:
    merged = model.merge(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert not [name for name, _ in plain.named_parameters() if "lora" in name]
    assert [type(part) for part in merged.modules()] == [type(part) for part in plain.modules()]
    assert merged.config._attn_implementation == plain.config._attn_implementation != attention.NAME
    embeddings = model.prompt_embeds(QUESTIONS, DOCUMENTS)
    assert [each.shape[1] for each in embeddings] == [tiny.WIDTH] * 3
    assert plain.generation_config.eos_token_id == model.stop_ids
    assert answered_by(plain, tokenizer, embeddings, 8) == model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=8)
    memory = model.compress(QUESTIONS, DOCUMENTS)
    for one, other in zip(embeddings, model.prompt_embeds(QUESTIONS, memory=memory), strict=True):
        torch.testing.assert_close(one, other)


def test_a_merged_generator_is_greedy_whatever_its_base_asks_for(tmp_path: Path) -> None:
    """The base's own penalties and temperatures would give other answers than this model's."""
    folder = tiny.generator_folder(tmp_path / "base")
    GenerationConfig(do_sample=True, temperature=0.7, repetition_penalty=1.9, no_repeat_ngram_size=1,
                     eos_token_id=[1, 3]).save_pretrained(folder)
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(generator_model=folder, num_memory_tokens=2))
    model.merge(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    said = [plain.generate(inputs_embeds=each[None], max_new_tokens=9)[0] for each in
            model.prompt_embeds(QUESTIONS, DOCUMENTS)]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert [tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
            for ids in said] == model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=9)
    assert plain.generation_config.eos_token_id == model.stop_ids and {1, 3} <= set(model.stop_ids)


def test_threads_get_the_answers_that_each_would_alone(model: ScaleDownModel) -> None:
    """Adapters are switched in the model itself: an answer and a baseline at one time must not meet."""
    ways = {"answer": lambda number: model.answer([QUESTIONS[number]], [DOCUMENTS[number]], max_new_tokens=4),
            "stream": lambda number: [piece.text for piece in model.answer(
                [QUESTIONS[number]], [DOCUMENTS[number]], max_new_tokens=4, stream=True)],
            "full text": lambda number: model.decode(model.prefill_text([QUESTIONS[number]], [DOCUMENTS[number]]), 4),
            "rerank": lambda number: model.rerank(QUESTIONS[number], DOCUMENTS[number])}
    calls = list(itertools.product(ways, range(len(QUESTIONS))))
    wanted = [ways[way](number) for way, number in calls]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(lambda call: ways[call[0]](call[1]), calls)) == wanted


def test_a_model_can_be_copied(model: ScaleDownModel) -> None:
    copied = copy.deepcopy(model)
    assert copied.answer(QUESTIONS, DOCUMENTS, max_new_tokens=4) == model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=4)


def test_the_shipped_checkpoint_merges_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--output_dir", str(tmp_path / "merged"), "--dtype", "float32"]) == 0
    shipped = ScaleDownModel.from_pretrained("embedded")
    records = list(synthetic_records(6, 3, split="eval"))
    questions, documents = [each.query for each in records], [each.documents for each in records]
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert plain.dtype == torch.float32
    said = answered_by(plain, AutoTokenizer.from_pretrained(tmp_path / "merged"),
                       shipped.prompt_embeds(questions, documents), 16)
    assert said == shipped.answer(questions, documents, max_new_tokens=16)

    # The adapter alone, which peft puts on the base.
    assert main(["--output_dir", str(tmp_path / "adapter"), "--adapter_only"]) == 0
    base = shipped.generator.config.name_or_path
    assert f"for the generator {base}" in capsys.readouterr().out
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
                                        tmp_path / "adapter")
    adapted.generation_config = GenerationConfig.from_pretrained(tmp_path / "adapter")
    assert answered_by(adapted, AutoTokenizer.from_pretrained(base), shipped.prompt_embeds(questions, documents),
                       16) == said
    # No pickles, and no folder of this machine.
    assert not list((tmp_path / "adapter").glob("*.bin"))
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "embedded"

    assert main(["--output_dir", str(tmp_path / "merged")]) == 2
    assert "--output_dir" in capsys.readouterr().err


def test_merging_leaves_the_model_as_it_was(model: ScaleDownModel) -> None:
    before = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=4)
    model.merge()
    assert model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=4) == before


@pytest.mark.parametrize("batch_size", [1, 8])
def test_pieces_of_an_answer_are_the_answer(model: ScaleDownModel, batch_size: int) -> None:
    whole = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=12)
    grown = ["" for _ in QUESTIONS]
    for piece in model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=12, batch_size=batch_size, stream=True):
        assert torch.is_grad_enabled() and piece.text
        grown[piece.question] += piece.text
    assert grown == whole and any(whole)


def test_a_stream_that_is_left_leaves_the_model_usable(model: ScaleDownModel) -> None:
    before = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=6)
    next(model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=6, stream=True))
    assert model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=6) == before


def test_users_faults_are_said_before_the_first_piece(model: ScaleDownModel) -> None:
    with pytest.raises(ValueError, match="documents for 1"):
        model.answer(QUESTIONS, [["one"]], stream=True)
    with pytest.raises(ValueError, match="max_new_tokens"):
        model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=0, stream=True)


def test_a_character_of_several_tokens_comes_whole() -> None:
    heard = list("né!".encode())
    steps = [torch.tensor([token, 0]) for token in heard] + [torch.tensor([0, 65]), torch.tensor([66, 0])]
    found = list(pieces(steps, [7, 3], [0], lambda ids: bytes(ids).decode(errors="replace").strip()))
    assert found == [Piece(7, "n"), Piece(7, "é"), Piece(7, "!")]


def test_half_a_character_at_the_end_is_not_lost() -> None:
    steps = [torch.tensor([token]) for token in "é".encode()[:1]]
    assert list(pieces(steps, [0], [0], lambda ids: bytes(ids).decode(errors="replace"))) == [Piece(0, "\ufffd")]


def test_what_is_known_is_not_compressed_again(model: ScaleDownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, asked = MemoryCache(), []
    texts_of = model.processor.compressor_texts
    monkeypatch.setattr(model.processor, "compressor_texts", lambda questions, documents, num_memory: (
        asked.append([list(each) for each in documents]), texts_of(questions, documents, num_memory))[1])
    plain = model.compress(QUESTIONS, DOCUMENTS)
    asked.clear()
    first = model.compress(QUESTIONS, DOCUMENTS, cache=cache)
    assert (cache.hits, cache.misses, len(cache)) == (0, 5, 5) and asked == [[list(each) for each in DOCUMENTS]]
    again = model.compress(QUESTIONS, [[*each, "new"] for each in DOCUMENTS], cache=cache)
    assert (cache.hits, cache.misses) == (5, 8) and asked[1] == [["new"]] * 3
    assert torch.equal(first.embeddings, plain.embeddings) and torch.equal(first.scores, plain.scores)
    assert torch.equal(again.embeddings[0, :2], plain.embeddings[0, :2])
    assert model.answer(QUESTIONS, DOCUMENTS, cache=cache) == model.answer(QUESTIONS, DOCUMENTS)
    assert len(asked) == 3 and cache.misses == 8
    assert model.compress(QUESTIONS, DOCUMENTS, num_memory_tokens=2, cache=cache).embeddings.shape[2] == 2


def test_a_document_given_twice_is_compressed_once(model: ScaleDownModel) -> None:
    cache = MemoryCache()
    memory = model.compress(["who?"], [["Oslo", "Paris", "Oslo"]], cache=cache)
    assert (cache.hits, cache.misses) == (1, 2)
    assert torch.equal(memory.embeddings[0, 0], memory.embeddings[0, 2])


def test_equal_questions_of_a_batch_are_compressed_once(model: ScaleDownModel) -> None:
    cache = MemoryCache()
    memory = model.compress(["who?", "who?", "where?"], [["Oslo"], ["Rome", "Oslo"], ["Oslo"]], cache=cache)
    assert (cache.hits, cache.misses, len(cache)) == (1, 3, 3)
    assert torch.equal(memory.embeddings[0, 0], memory.embeddings[1, 1])
    wanted = model.compress(["who?", "where?"], [["Oslo", "Rome"], ["Oslo"]])
    torch.testing.assert_close(memory.embeddings[1], wanted.embeddings[0].flip(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(memory.embeddings[2, 0], wanted.embeddings[1, 0], rtol=1e-4, atol=1e-5)
    assert cache.num_bytes == 3 * (4 * tiny.WIDTH * 4 + 4) + len("who?") * 2 + len("where?")


def test_options_are_read_once(model: ScaleDownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    read = question_answering.generation_of
    monkeypatch.setattr(question_answering, "generation_of", lambda *given: (made.append(1), read(*given))[1])
    assert model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=2, batch_size=1) and len(made) == 1


def test_memory_of_other_weights_is_not_used(model: ScaleDownModel) -> None:
    cache = MemoryCache()
    model.compress(["who?"], [["Oslo"]], cache=cache)
    with torch.no_grad():
        model.compressor.memory_rows.add_(0.01)
    model.compress(["who?"], [["Oslo"]], cache=cache)
    assert (cache.hits, cache.misses) == (0, 2)


def test_the_longest_unused_goes_first(model: ScaleDownModel) -> None:
    num_bytes = 4 * tiny.WIDTH * 4 + len("who?") + 1
    cache = MemoryCache(max_bytes=2 * num_bytes)
    for document in ("a", "b", "a", "c", "a", "b"):
        model.compress(["who?"], [[document]], cache=cache)
    assert (cache.hits, cache.misses, len(cache), cache.num_bytes) == (2, 4, 2, 2 * num_bytes)
    with pytest.raises(ValueError, match="max_bytes"):
        MemoryCache(0)


def test_without_documents_there_is_nothing_to_keep(model: ScaleDownModel) -> None:
    cache = MemoryCache()
    assert model.compress(["who?"], [[]], cache=cache).embeddings.shape[:2] == (1, 0)
    assert len(cache) == 0
