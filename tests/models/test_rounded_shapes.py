"""Answering in rounded shapes: what comes out is the same, and soon no shape is new."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig

from scaledown.config import ScaleDownConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.engine import fixed_shapes
from scaledown.models.engine.fixed_shapes import COMPILED_BY_SHAPE, rounded, rounded_texts
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


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> Rounding:
    """Within it a CPU rounds shapes as a device does that compiles by shape."""

    @contextmanager
    def on() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(fixed_shapes, "COMPILED_BY_SHAPE", ("cpu",))
            yield

    return on


Rounding = Callable[[], AbstractContextManager]


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


def test_answers_and_scores_are_the_ragged_ones(model: ScaleDownModel, rounding: Rounding) -> None:
    for questions, documents in ((QUESTIONS[:5], DOCUMENTS[:5]), (QUESTIONS[:1], [DOCUMENTS[0][:1]]),
                                 (QUESTIONS[:2], [[], DOCUMENTS[1]])):
        plain = model.compress(questions, documents)
        answers = [model.answer(questions, documents, max_new_tokens=6),
                   model.answer(questions, documents, max_new_tokens=6, keep_documents=2),
                   list(model.answer(questions, documents, max_new_tokens=6, stream=True))]
        texts = model.decode(model.prefill_text(questions, documents), 6)
        with rounding():
            found = model.compress(questions, documents)
            torch.testing.assert_close(found.embeddings, plain.embeddings, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found.scores, plain.scores, rtol=1e-4, atol=1e-5)
            assert answers == [model.answer(questions, documents, max_new_tokens=6),
                               model.answer(questions, documents, max_new_tokens=6, keep_documents=2),
                               list(model.answer(questions, documents, max_new_tokens=6, stream=True))]
            assert model.decode(model.prefill_text(questions, documents), 6) == texts


def test_a_prompt_can_be_answered_again_at_another_length(model: ScaleDownModel, rounding: Rounding) -> None:
    memory = model.compress(QUESTIONS[:3], DOCUMENTS[:3])
    expected = [model.decode(model.prefill(QUESTIONS[:3], memory), length) for length in (8, 3, 8)]
    with rounding():
        prompts = model.prefill(QUESTIONS[:3], memory)
        assert [model.decode(prompts, length) for length in (8, 3, 8)] == expected


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
def test_dummies_do_not_keep_an_answer_going(model: ScaleDownModel, rounding: Rounding,
                                             options: dict[str, int]) -> None:
    """An answer of one token, the one that ends it, and a dummy that would go on."""
    with rounding():
        prompts = model.prefill(QUESTIONS[:3], model.compress(QUESTIONS[:3], DOCUMENTS[:3]))
        first = tiny.first_logits(model.generator, prompts).argmax(-1).tolist()
        ends = [token for token in range(400) if token != first[3]]
        config = GenerationConfig(max_new_tokens=6, eos_token_id=ends, pad_token_id=0)
        assert len(prompts.embeddings) == 4 and model.generator.generate(prompts, config, **options).shape == (4, 1)


def test_a_device_that_compiles_by_shape_rounds_by_itself(model: ScaleDownModel, rounding: Rounding) -> None:
    memory = model.compress(QUESTIONS[:3], DOCUMENTS[:3])
    assert COMPILED_BY_SHAPE == ("neuron",) and len(model.prompts(QUESTIONS[:3], memory).embeddings) == 3
    with rounding():
        assert len(model.prompts(QUESTIONS[:3], memory).embeddings) == 4


def test_logits_are_the_ragged_ones(model: ScaleDownModel, rounding: Rounding) -> None:
    memory = model.compress(QUESTIONS[:3], DOCUMENTS[:3])
    plain = model.prefill(QUESTIONS[:3], memory)
    wanted = tiny.first_logits(model.generator, plain)
    with rounding():
        prompts = model.prefill(QUESTIONS[:3], memory)
        found = tiny.first_logits(model.generator, prompts)
    torch.testing.assert_close(found[:3], wanted, rtol=1e-4, atol=1e-4)
    assert len(found) == 4 and prompts.num_prompt_tokens == plain.num_prompt_tokens


@pytest.mark.parametrize("rounds", [True, False])
def test_soon_no_shape_is_new(model: ScaleDownModel, rounding: Rounding, rounds: bool,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    # The number of documents shapes what joins their memory to the prompt, so it is that of these lists.
    monkeypatch.setattr(model, "long_documents", "cut")
    first, more = Shapes(), Shapes()
    for shapes, part in ((first, slice(0, 6)), (more, slice(6, 12))):
        with rounding() if rounds else nullcontext(), shapes:
            for question, documents in zip(QUESTIONS[part], DOCUMENTS[part], strict=True):
                model.answer([question], [documents], max_new_tokens=5)
    new = more.seen - first.seen
    assert (not new) == rounds, sorted(new)[:5]


def test_dummies_stand_behind_what_is_real(model: ScaleDownModel) -> None:
    texts = model.processor.compressor_texts(QUESTIONS[:3], DOCUMENTS[:3])
    found = rounded_texts(texts)
    for made, real in ((found.prefixes, texts.prefixes), (found.suffixes, texts.suffixes)):
        assert len(made) == (rounded(len(real)) if real else 0) and len(set(map(len, made))) <= 1
        assert all(list(one[:len(other)]) == list(other) for one, other in zip(made, real, strict=False))
    num_prefixes, num_suffixes = len(texts.prefixes), len(texts.suffixes)
    assert list(found.prefix[:num_suffixes]) == list(texts.prefix)
    assert set(found.prefix[num_suffixes:]) <= {len(found.prefixes) - 1}
    assert list(found.prefix_lengths) == [*map(len, texts.prefixes), *[0] * (len(found.prefixes) - num_prefixes)]

    # The wanted tokens of what is real come first, at their places; dummies have as many.
    packed, plain = found.packed(), texts.packed()
    num_documents = sum(map(len, DOCUMENTS[:3]))
    at = packed.reads.at[:len(plain.reads.at)]
    assert torch.equal(packed.ids[at], plain.ids[plain.reads.at])
    assert torch.equal(packed.packing.position[at], plain.packing.position[plain.reads.at])
    assert len(packed.reads.at) == rounded(num_documents) * len(plain.reads.at) // num_documents > len(at)
