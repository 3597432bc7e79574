"""Answering in rounded shapes: what comes out is the same, and soon no shape is new."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scaledown.config import ScaleDownConfig
from scaledown.data.synthetic import synthetic_records
from scaledown.models.fixed_shapes import COMPILED_BY_SHAPE, rounded, rounded_texts
from scaledown.models.model import ScaleDownModel

RECORDS = list(synthetic_records(12, seed=3))
QUESTIONS, DOCUMENTS = [record.query for record in RECORDS], [record.documents for record in RECORDS]
KINDS = [("n_layers", "query_first"), ("n_layers", "document_first"), ("modernbert", "query_first")]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"))


@pytest.fixture(params=KINDS, ids="-".join)
def model(generator: str, request: pytest.FixtureRequest) -> ScaleDownModel:
    compressor_type, input_order = request.param
    own = {"compressor_model": "embedded", "mlp_width": 24} if compressor_type == "modernbert" else {}
    torch.manual_seed(0)
    return ScaleDownModel(ScaleDownConfig(generator_model=generator, compressor_type=compressor_type,
                                          num_memory_tokens=3, compression_rate=16, enable_reranking=True,
                                          input_order=input_order, **own))


@contextmanager
def rounding(model: ScaleDownModel) -> Iterator[None]:
    model.generator.rounded_on_any_device = True
    try:
        yield
    finally:
        model.generator.rounded_on_any_device = False


class Shapes(TorchDispatchMode):
    """Notes operations with the shapes that they are called with, as a device that compiles by shape would.

    Those on ids alone are left out: they prepare a batch where the tokenizer is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [each for each in args if isinstance(each, torch.Tensor)]
        if any(each.is_floating_point() for each in tensors):
            self.seen.add((str(func), tuple(tuple(each.shape) for each in tensors)))
        return func(*args, **(kwargs or {}))


def test_sizes_are_powers_of_two() -> None:
    assert [rounded(number) for number in (1, 2, 3, 5, 8, 9)] == [1, 2, 4, 8, 8, 16]
    assert [rounded(number, 32) for number in (0, 1, 32, 33)] == [32, 32, 32, 64]


def test_answers_and_scores_are_the_ragged_ones(model: ScaleDownModel) -> None:
    for questions, documents in ((QUESTIONS[:5], DOCUMENTS[:5]), (QUESTIONS[:1], [DOCUMENTS[0][:1]]),
                                 (QUESTIONS[:2], [[], DOCUMENTS[1]])):
        plain = model.compress(questions, documents)
        answers = [model.answer(questions, documents, max_new_tokens=6),
                   model.answer(questions, documents, max_new_tokens=6, keep_documents=2),
                   list(model.answer(questions, documents, max_new_tokens=6, stream=True))]
        texts = model.decode(model.prefill_text(questions, documents), 6)
        with rounding(model):
            found = model.compress(questions, documents)
            torch.testing.assert_close(found.embeddings, plain.embeddings, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found.scores, plain.scores, rtol=1e-4, atol=1e-5)
            assert answers == [model.answer(questions, documents, max_new_tokens=6),
                               model.answer(questions, documents, max_new_tokens=6, keep_documents=2),
                               list(model.answer(questions, documents, max_new_tokens=6, stream=True))]
            assert model.decode(model.prefill_text(questions, documents), 6) == texts


def test_a_prompt_can_be_answered_again_at_another_length(model: ScaleDownModel) -> None:
    memory = model.compress(QUESTIONS[:3], DOCUMENTS[:3])
    expected = [model.decode(model.prefill(QUESTIONS[:3], memory), length) for length in (8, 3, 8)]
    with rounding(model):
        state = model.prefill(QUESTIONS[:3], memory)
        assert [model.decode(state, length) for length in (8, 3, 8)] == expected


def test_dummies_do_not_keep_an_answer_going(model: ScaleDownModel) -> None:
    with rounding(model):
        state = model.prefill(QUESTIONS[:3], model.compress(QUESTIONS[:3], DOCUMENTS[:3]))
        first = state.logits[:3].argmax(-1).tolist()
        state.logits[3:] = -state.logits[:1]  # a dummy that begins otherwise
        assert len(list(model.generator.steps(state, 6, first))) == 1


def test_a_device_that_compiles_by_shape_rounds_by_itself(model: ScaleDownModel,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    assert COMPILED_BY_SHAPE == ("neuron",) and not model.generator.rounds_shapes
    monkeypatch.setattr("scaledown.models.generator.COMPILED_BY_SHAPE", ("cpu",))
    assert model.generator.rounds_shapes


def test_logits_are_the_ragged_ones(model: ScaleDownModel) -> None:
    memory = model.compress(QUESTIONS[:3], DOCUMENTS[:3])
    plain = model.prefill(QUESTIONS[:3], memory)
    with rounding(model):
        found = model.prefill(QUESTIONS[:3], memory)
    torch.testing.assert_close(found.logits[:3], plain.logits, rtol=1e-4, atol=1e-4)
    assert len(found.logits) == 4 and found.num_prompt_tokens == plain.num_prompt_tokens


@pytest.mark.parametrize("rounds", [True, False])
def test_soon_no_shape_is_new(model: ScaleDownModel, rounds: bool) -> None:
    model.generator.rounded_on_any_device = rounds
    first, more = Shapes(), Shapes()
    for shapes, part in ((first, slice(0, 6)), (more, slice(6, 12))):
        with shapes:
            for question, documents in zip(QUESTIONS[part], DOCUMENTS[part], strict=True):
                model.answer([question], [documents], max_new_tokens=5)
    new = more.seen - first.seen
    assert (not new) == rounds, sorted(new)[:5]


def test_dummies_stand_behind_what_is_real(model: ScaleDownModel) -> None:
    texts = model.processor.compressor_input(QUESTIONS[:3], DOCUMENTS[:3])
    found = rounded_texts(texts)
    num_first, num_second = texts.first_ids.shape[0], texts.second_ids.shape[0]
    assert found.second_ids.shape[0] == rounded(num_second) > num_second
    assert torch.equal(found.second_lengths[:num_second], texts.second_lengths)
    assert not found.second_lengths[num_second:].any() and not found.first_lengths[num_first:].any()
    assert (found.pair_first[num_second:] == len(found.first_ids) - 1).all()
    assert len(found.second_slots) == found.second_ids.numel()
