"""Memory without a query: what it is made of, that it serves any question, and that it stands beside other memory."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
import tiny
import torch

from scaledown.config import COMPRESSOR_TYPES, ScaleDownConfig
from scaledown.data.records import Record
from scaledown.models.loading.training_progress import TrainingProgress
from scaledown.models.memory import Memory
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving.cache import MemoryCache
from scaledown.prompt import QUESTION

QUESTIONS = ["Who was born in London?", "What is the capital of Norway?"]
DOCUMENTS = ["Ada Lovelace was born in London.", "Oslo is the capital of Norway.", "Paris"]
LISTS = [DOCUMENTS[:2], DOCUMENTS[2:]]
KINDS = [(kind, "query_first") for kind in COMPRESSOR_TYPES] + [("n_layers", "document_first")]


def made(folder: Path, kind: str = "n_layers", order: str = "query_first", **settings: object) -> ScaleDownModel:
    """Return a model with a moved adapter that was trained on documents without their query, as far as it knows."""
    generator = tiny.generator_folder(folder / "generator")
    made_of = {"n_layers": None, "llm": generator, "modernbert": None}[kind]
    if kind == "modernbert":
        made_of = tiny.encoder_folder(folder / "encoder")
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(**{
        "generator_model": generator, "compressor_type": kind, "compressor_model": made_of, "num_memory_tokens": 2,
        "input_order": order, "enable_reranking": True, "mlp_width": 16, "lora_dropout": 0.0} | settings))
    tiny.move_adapter(model)
    model.progress = TrainingProgress(query_dropout=0.2)
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ScaleDownModel:
    return made(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_it_is_the_memory_that_training_compresses(kind: str, order: str, tmp_path: Path) -> None:
    """Also beside a question whose query is read, with other documents."""
    model = made(tmp_path, kind, order)
    records = [Record("a", QUESTIONS[0], tuple(DOCUMENTS), "Ada"), Record("b", QUESTIONS[1], ("Oslo",), "Oslo")]
    batch = model.processor.collate(records, without_query=[True, False])
    with torch.no_grad():
        trained, _, _ = model.compressor(batch["documents"], model.generator.embed, 2)
    alone, asked = model.compress(None, DOCUMENTS), model.compress(QUESTIONS[1], ["Oslo"])
    torch.testing.assert_close(alone.pairs(), trained[:3])
    torch.testing.assert_close(asked.pairs(), trained[3:])
    assert not torch.allclose(model.compress(QUESTIONS[0], DOCUMENTS).pairs(), alone.pairs(), rtol=1e-5, atol=1e-5)


def test_without_a_query_the_layout_is_that_of_an_empty_one(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a").processor, made(tmp_path / "b", order="document_first").processor
    start, line_break = first._start, first._separator
    document = first.tokenizer("Oslo", add_special_tokens=False).input_ids
    lists = first.texts_without_query(first.document_keys(["Oslo"]), 2)
    assert (lists.prefixes, lists.suffixes) == ([start + line_break], [[*document, 0, 0, 0]])
    lists = second.texts_without_query(second.document_keys(["Oslo"]), 2)
    words = second.tokenizer(QUESTION, add_special_tokens=False).input_ids
    assert list(map(list, lists.prefixes)) == [start + document] and lists.suffixes == [[*words, 0, 0, 0]]


def test_one_list_serves_any_number_of_questions(model: ScaleDownModel) -> None:
    memory = model.compress(None, DOCUMENTS)
    assert len(memory) == 1 and memory.scores is None and "any questions, 3 documents" in repr(memory)
    shared = model.answer(QUESTIONS * 2, memory=memory, max_new_tokens=5)
    by_hand = Memory(memory.embeddings, None, memory.num_documents)
    alone = [model.answer([question], memory=by_hand, max_new_tokens=5)[0] for question in QUESTIONS]
    assert shared == alone * 2
    assert model.answer(QUESTIONS[0], memory=memory, max_new_tokens=5) == alone[0]
    assert [len(tokens) for tokens in model.prompt_embeds(QUESTIONS, memory=memory)]
    assert model.answer_with_sources(QUESTIONS, memory=memory)[1].documents == (0, 1, 2)

    # Each question with its own choice of the documents, as a search would find them.
    chosen = memory.keep([[2], [1, 0]])
    assert chosen.num_documents.tolist() == [1, 2] and chosen.origin.questions == (None, None)
    torch.testing.assert_close(chosen.pairs(), memory.embeddings[0, [2, 1, 0]])
    assert chosen.origin.document_ids[1] == memory.origin.document_ids[0][1::-1]
    assert model.answer(QUESTIONS, memory=chosen, max_new_tokens=5)


def test_several_lists_serve_as_many_questions(model: ScaleDownModel) -> None:
    memory = model.compress(None, LISTS)
    assert memory.num_documents.tolist() == [2, 1] and memory.origin.questions == (None, None)
    torch.testing.assert_close(memory.pairs(), model.compress(None, DOCUMENTS).pairs())
    assert model.answer(QUESTIONS, memory=memory, max_new_tokens=1) and model.answer(
        QUESTIONS[::-1], memory=memory, max_new_tokens=1)
    with pytest.raises(ValueError, match="3 questions, but memory for 2"):
        model.answer(["why"] * 3, memory=memory)
    assert len(model.compress(None, [])) == 1 and len(model.compress(None, [[], []])) == 2


def test_it_is_kept_in_a_file_and_in_a_cache(model: ScaleDownModel, tmp_path: Path) -> None:
    cache = MemoryCache()
    memory = model.compress(None, DOCUMENTS, cache=cache)
    memory.save(tmp_path)
    found = Memory.load(tmp_path)
    assert found.origin == memory.origin and found.origin.questions == (None,)
    assert found.embeddings.equal(memory.embeddings) and found.scores is None
    memory.shared_by(2).save(tmp_path / "shared.safetensors")
    assert Memory.load(tmp_path / "shared.safetensors").pairs().equal(memory.shared_by(2).pairs())

    # A document that several lists have is compressed once; with a query it is another one.
    again = model.compress(None, [DOCUMENTS, DOCUMENTS[::-1]], cache=cache)
    assert (cache.hits, cache.misses) == (6, 3)
    assert again.embeddings[0].equal(memory.embeddings[0])
    model.compress(QUESTIONS[0], DOCUMENTS, cache=cache)
    assert cache.misses == 6


def test_both_kinds_stand_in_one_prompt(model: ScaleDownModel) -> None:
    """Joined memory gives the prompt that its embeddings, put together by hand, give."""
    own = model.compress(QUESTIONS, [["Ada"], ["Norway", "Bergen"]])
    kept = model.compress(None, DOCUMENTS)
    joined = Memory.joined([own, kept])
    assert joined.num_documents.tolist() == [4, 5] and joined.scores is None
    assert joined.origin.questions == tuple(QUESTIONS)
    assert joined.origin.document_ids[0] == own.origin.document_ids[0] + kept.origin.document_ids[0]

    of_own, of_kept = own.pairs(), kept.pairs()
    by_hand = torch.cat([of_own[:1], of_kept, of_own[1:], of_kept])
    torch.testing.assert_close(joined.pairs(), by_hand, rtol=0, atol=0)
    ids = model.processor.memory_prompts(QUESTIONS, [4, 5])
    with model.inference():
        wanted = model.generator.prompts(ids, by_hand)
    found = model.prompts(QUESTIONS, joined)
    torch.testing.assert_close(found.embeddings, wanted.embeddings)
    assert model.answer(QUESTIONS, memory=joined, max_new_tokens=5) == model.decode(wanted_state(model, wanted), 5)

    # Sources are numbered on, in the order of the prompt.
    answer = model.answer_with_sources(QUESTIONS, memory=joined)[1]
    assert answer.documents == (0, 1, 2, 3, 4) and answer.passages == (0,) * 5
    first = Memory.joined([kept.keep([[2], [0]]), own])
    torch.testing.assert_close(first.pairs(), torch.cat([of_kept[2:], of_own[:1], of_kept[:1], of_own[1:]]))
    assert [passage.document for passage in first.origin.passages[0]] == [2, 3]


def wanted_state(model: ScaleDownModel, prompts: object) -> object:
    """Return prompts that were read, as ``decode`` takes them."""
    with model.inference():
        model.generator.prefill(prompts)
    return prompts


def test_memory_with_scores_keeps_them_when_it_is_joined(model: ScaleDownModel) -> None:
    one, other = (model.compress(QUESTIONS, lists) for lists in (LISTS, LISTS[::-1]))
    joined = Memory.joined([one, other])
    assert joined.scores.shape == (2, 3)
    assert joined.scores[0].tolist() == [*one.scores[0].tolist(), other.scores[0, 0].item()]
    assert Memory.joined([one]).pairs().equal(one.pairs())
    unknown = Memory(one.embeddings, None, one.num_documents)
    assert Memory.joined([one, unknown]).origin is None
    empty = one.select([])
    assert len(Memory.joined([empty, empty])) == 0


def test_what_does_not_belong_together_is_not_joined(model: ScaleDownModel, tmp_path: Path) -> None:
    one, kept = model.compress(QUESTIONS, LISTS), model.compress(None, DOCUMENTS)
    for other, message in ((model.compress(QUESTIONS[::-1], LISTS), "memory 0 is for the question 'Who was"),
                           (model.compress(QUESTIONS[0], DOCUMENTS), r"memory of \[2, 1\] questions"),
                           (model.compress(None, [*LISTS, []]), r"memory of \[2, 3\] questions"),
                           (dataclasses.replace(kept, embeddings=kept.embeddings[:, :, :1]), "same num_memory_tokens"),
                           (made(tmp_path, lora_rank=2).compress(None, DOCUMENTS), "memory of two models")):
        with pytest.raises(ValueError, match=message):
            Memory.joined([one, other])
    with pytest.raises(ValueError, match="give at least one"):
        Memory.joined([])


def test_nothing_is_chosen_by_scores_that_are_not_there(model: ScaleDownModel) -> None:
    memory = model.compress(None, DOCUMENTS)
    for options in ({"keep_documents": 1}, {"keep_tokens": 9}, {"text_documents": 1, "documents": DOCUMENTS}):
        with pytest.raises(ValueError, match="this memory has no scores to choose documents by"):
            model.answer(QUESTIONS[0], memory=memory, **options)
    with pytest.raises(ValueError, match="this memory has no scores"):
        model.answer_expanding(QUESTIONS[0], DOCUMENTS, memory, threshold=1.0)
    named = model.answer_with_sources(QUESTIONS[0], DOCUMENTS, memory, text_documents=[1], max_new_tokens=1)
    assert named.text_documents == (1,)


def test_numbers_behind_memory_are_those_of_the_document_alone(tmp_path: Path) -> None:
    """In training as in compress: what stands there must not depend on a query that memory does not know."""
    model = made(tmp_path, keep_numbers=8)
    document = "Ada came to Oslo in 1815."
    memory = model.compress(None, [document])
    assert "1815" in memory.origin.kept_numbers[0][0]
    record = Record("a", "Who came in 1815?", (document,), "Ada")
    collated = [model.processor.collate([record], without_query=[is_without])["prompts"].ids for is_without in (0, 1)]
    assert len(collated[0]) < len(collated[1])
    ids = model.processor.memory_prompts([record.query], [1], 2, None, memory.origin.kept_numbers)[0]
    assert collated[1][:len(ids)].tolist() == ids


def test_a_model_that_never_read_a_document_without_query_says_so_once(tmp_path: Path,
                                                                       caplog: pytest.LogCaptureFixture) -> None:
    model = made(tmp_path)
    with caplog.at_level(logging.WARNING):
        model.compress(None, DOCUMENTS)
        assert "query_dropout" not in caplog.text
        model.progress = model.progress.after(1, 0)
        for _ in range(2):
            model.compress(None, DOCUMENTS)
    assert caplog.text.count("train it with --query_dropout") == 1


@pytest.mark.parametrize(("documents", "message"), [
    ("Oslo", "documents must be a list"), ([["Oslo"], 5], "documents of list 1 must be a list"),
    ([["Oslo"], "Oslo"], "documents of list 1 must be a list"), (["Oslo", 5], "document 1: must be a string"),
    ([["Oslo", 5]], "document 1 of list 0: must be a string")])
def test_documents_of_another_form_are_refused(model: ScaleDownModel, documents: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.compress(None, documents)


def test_questions_are_needed_to_answer_and_to_rank(model: ScaleDownModel) -> None:
    for call in (model.answer, model.rerank):
        with pytest.raises(ValueError, match="questions must be a list"):
            call(None, DOCUMENTS)
