"""Text beside memory if documents are split: passages that are chosen, and whole documents that are named."""

from __future__ import annotations

import pytest
import tiny
import torch

from scaledown import ScaleDownConfig, ScaleDownModel

QUESTION = "Where was Ada born?"
SENTENCES = [f"Station {number} lies on the line to Oslo and has a waiting room." for number in range(12)]
LONG, SHORT = " ".join(SENTENCES), "Ada was born in London."


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    generator = tiny.generator_folder(tmp_path_factory.mktemp("generator"))
    model = ScaleDownModel(ScaleDownConfig(generator, num_layers=2, num_memory_tokens=3, enable_reranking=True,
                                           lora_dropout=0.0))
    tiny.move_adapter(model)
    return model


@pytest.fixture(scope="module")
def passages(model):
    answer = model.answer_with_sources(QUESTION, [LONG, SHORT], max_new_tokens=1)
    assert answer.documents[-1] == 1 and answer.passages[-2] > 0
    return [LONG[start:end] for start, end in answer.spans[:-1]]


def embeddings_of(model, texts, memory_of):
    """The prompt with ``texts``, of which None stands for the next of the documents ``memory_of``."""
    memory = model.compress(QUESTION, memory_of)
    return model.prompts(QUESTION, memory, [texts]).embeddings[0]


def test_the_best_passage_is_read_as_text(model, passages):
    units = [*passages, SHORT]
    scores = model.compress(QUESTION, units).scores[0]
    best = int(scores.argmax())
    texts = [unit if number == best else None for number, unit in enumerate(units)]
    found = model.prompt_embeds(QUESTION, [LONG, SHORT], text_documents=1)
    torch.testing.assert_close(found, embeddings_of(model, texts, units[:best] + units[best + 1:]))

    answer = model.answer_with_sources(QUESTION, [LONG, SHORT], text_documents=1, max_new_tokens=2)
    assert answer.text_documents == ((0,) if best < len(passages) else (1,))
    assert len(answer.passages) == len(answer.spans) == len(units)


def test_a_document_that_is_named_is_read_whole(model, passages):
    found = model.prompt_embeds(QUESTION, [LONG, SHORT], text_documents=[0])
    ids = model.processor.memory_prompts([QUESTION], [1], 3, [[LONG, None]], document_tokens=10_000)[0]
    assert len(found) == len(ids) > len(model.processor.memory_prompts([QUESTION], [1], 3, [[LONG, None]])[0])
    answer = model.answer_with_sources(QUESTION, [SHORT, LONG], text_documents=[0], max_new_tokens=2)
    assert answer.documents == (0, *[1] * len(passages)) and answer.text_documents == (0,)
    assert [LONG[start:end] for start, end in answer.spans[1:]] == passages

    # And its memory is not read, if there is one.
    memory = model.compress(QUESTION, [LONG, SHORT])
    request = {"memory": memory, "text_documents": [1], "max_new_tokens": 4}
    assert (model.answer_with_sources(QUESTION, [LONG, SHORT], **request)
            == model.answer_with_sources(QUESTION, [LONG, SHORT], text_documents=[1], max_new_tokens=4))
    assert memory.num_documents.tolist() == [len(passages) + 1]


def test_all_passages_as_text_are_full_text(model, passages):
    full = model.prefill_text(QUESTION, [LONG, SHORT], with_adapter=True).embeddings[0]
    for number in (len(passages) + 1, [0, 1]):
        assert model.prompt_embeds(QUESTION, [LONG, SHORT], text_documents=number).equal(full)
    # One passage less, and what is left is memory.
    assert len(model.prompt_embeds(QUESTION, [LONG, SHORT], text_documents=len(passages))) != len(full)


def test_cut_documents_are_cut_as_text_too(model):
    model.long_documents = "cut"
    try:
        found = model.prompt_embeds(QUESTION, [LONG, SHORT], text_documents=[0])
        ids = model.processor.memory_prompts([QUESTION], [1], 3, [[LONG, None]])[0]
        assert len(found) == len(ids)
        memory = model.compress(QUESTION, [LONG, SHORT])
    finally:
        del model.long_documents
    # Memory says by itself how its documents were read.
    again = model.answer_with_sources(QUESTION, [LONG, SHORT], memory, text_documents=[0], max_new_tokens=2)
    assert again.passages == (0, 0)


def test_an_unsure_answer_reads_passages(model, passages):
    found = model.answer_expanding(QUESTION, [LONG, SHORT], threshold=1.0, text_documents=2, max_new_tokens=3)
    as_text = model.answer_with_sources(QUESTION, [LONG, SHORT], text_documents=2, max_new_tokens=3)
    assert found.text == as_text.text and found.text_documents == as_text.text_documents
    assert found.num_prompt_tokens[0] < found.num_prompt_tokens[1]


def test_documents_beside_memory_of_others_are_refused(model):
    memory = model.compress(QUESTION, [LONG, SHORT])
    with pytest.raises(ValueError, match="must be those that were compressed"):
        model.answer(QUESTION, [SHORT], memory, text_documents=1)
