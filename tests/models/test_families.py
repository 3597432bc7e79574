"""Every family of decoders, as generator and as compressor, against transformers' own code on one text at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import families
import pytest
import tiny
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.engine import decoder
from scaledown.models.generator import Prompts
from scaledown.models.model import ScaleDownModel

QUESTIONS = ["Who was born in London?", "where", "What is the capital of Norway, the northern country?"]
DOCUMENTS = [["Ada Lovelace was born in London.", ""], [], ["Paris " * 12, "The capital of Norway is Oslo.", "x"]]
ANSWERS = ["Ada Lovelace", "nowhere at all", "Oslo"]
LAYERS, MEMORY, NEW = 3, 3, 7


@pytest.fixture(scope="module", params=families.PACKED)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return families.generator_folder(tmp_path_factory.mktemp("generator"), request.param)


def build(folder: str, dtype: torch.dtype | None = None, **settings: object) -> ScaleDownModel:
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(generator_model=folder, lora_rank=4, lora_dropout=0.0,
                                           num_memory_tokens=MEMORY, **settings), dtype=dtype)
    tiny.move_adapter(model)
    return model


def packed(folder: str, dtype: torch.dtype | None = None) -> ScaleDownModel:
    return build(folder, dtype, enable_reranking=True, num_layers=LAYERS)


@pytest.fixture(scope="module")
def model(folder: str) -> ScaleDownModel:
    return packed(folder)


@pytest.fixture(scope="module")
def plain(folder: str) -> PreTrainedModel:
    """The untouched base, as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@contextmanager
def eager(body: PreTrainedModel) -> Iterator[None]:
    """Within it a decoder attends by transformers' textbook code."""
    body.set_attn_implementation("eager")
    try:
        yield
    finally:
        decoder.register(body)


def pairs(model: ScaleDownModel) -> list[Tensor]:
    """The embeddings (1, T, D) of each query with each document and all special rows."""
    compressor, texts = model.compressor, model.processor.compressor_texts(QUESTIONS, DOCUMENTS)
    rows = compressor.special_rows(None)
    found = []
    for prefix, suffix in zip(texts.prefix, texts.suffixes, strict=True):
        ids = torch.tensor([*texts.prefixes[prefix], *suffix[:-len(rows)]])
        found.append(torch.cat([model.generator.embed(ids), rows])[None])
    return found


def test_special_rows_are_as_large_as_the_tokens_that_layers_get(model: ScaleDownModel) -> None:
    """Some families scale their embeddings: rows of the bare table's size would be lost among them."""
    size = model.generator.embed(torch.arange(400)).std()
    rows = torch.cat([model.compressor.memory_rows, model.compressor.rerank_row, model.generator.separator_row])
    assert 0.6 < rows.std() / size < 1.6


def naive(model: ScaleDownModel) -> Tensor:
    """Final states (P, L + 1, D) of all special rows, each pair read apart by the compressor's own layers."""
    body = model.compressor.body
    with eager(body):
        states = [body(inputs_embeds=each, use_cache=False).last_hidden_state[0] for each in pairs(model)]
    return torch.stack([each[-MEMORY - 1:] for each in states])


def test_memory_is_what_the_generators_first_layers_make_of_each_pair(model: ScaleDownModel,
                                                                      folder: str) -> None:
    base = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").base_model.eval()
    with torch.no_grad():
        wanted = torch.stack([base(inputs_embeds=each, output_hidden_states=True, use_cache=False)
                              .hidden_states[LAYERS][0, -MEMORY - 1:] for each in pairs(model)])
        memory = model.compress(QUESTIONS, DOCUMENTS)
        scores = (wanted[:, -1] @ model.compressor.rerank_head.weight[0]) + model.compressor.rerank_head.bias
    scale = wanted.abs().max().item()
    torch.testing.assert_close(memory.pairs(), wanted[:, :MEMORY], rtol=1e-5, atol=1e-5 * scale)
    torch.testing.assert_close(memory.scores[memory.scores.isfinite()], scores, rtol=1e-5, atol=1e-5 * scale)
    assert model.compress(QUESTIONS[:1], [[]]).pairs().shape == (0, MEMORY, families.WIDTH)


def test_gradients_are_those_of_each_pair_apart(model: ScaleDownModel) -> None:
    torch.manual_seed(1)
    compressor, weight = model.compressor, torch.randn(5, MEMORY + 1, families.WIDTH)
    texts = model.processor.compressor_texts(QUESTIONS, DOCUMENTS).packed()
    found = []
    for read in (lambda: compressor(texts, model.generator.embed)[:2], None):
        compressor.zero_grad()
        states = naive(model) if read is None else None
        embeddings, scores = ((states[:, :MEMORY], compressor.scores_of(states[:, -1])) if read is None else read())
        ((embeddings * weight[:, :MEMORY]).sum() + (scores * weight[:, -1, 0]).sum()).backward()
        found.append({name: each.grad for name, each in compressor.named_parameters() if each.grad is not None})
    assert found[0].keys() == found[1].keys() and "memory_rows" in found[0]
    for name, wanted in found[1].items():
        error = (found[0][name] - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6)
        assert error < 1e-4, name


def answer_ids(model: ScaleDownModel, prompts: Prompts) -> list[list[int]]:
    """The new tokens of each answer up to the one that ends it."""
    config = GenerationConfig(do_sample=False, max_new_tokens=NEW, eos_token_id=model.stop_ids, pad_token_id=6)
    with model.inference():
        return [ended(row, model.stop_ids) for row in model.generator.generate(prompts, config).tolist()]


def ended(ids: Sequence[int], stops: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(ids) if token in stops), len(ids))
    return list(ids[:end])


def test_answers_are_those_of_transformers_one_at_a_time(model: ScaleDownModel) -> None:
    merged = model.merge()
    memory = model.compress(QUESTIONS, DOCUMENTS)
    wanted = [ended(merged.generate(inputs_embeds=each[None], max_new_tokens=NEW)[0].tolist(), model.stop_ids)
              for each in model.prompt_embeds(QUESTIONS, memory=memory)]
    assert answer_ids(model, model.prefill(QUESTIONS, memory)) == wanted
    assert answer_ids(model, model.prompts(QUESTIONS, memory)) == wanted
    # A model whose logits are made of its embeddings repeats what it read last.
    assert len(set(map(tuple, wanted))) > 1 or model.generator.config.tie_word_embeddings
    texts = model.answer(QUESTIONS, DOCUMENTS, max_new_tokens=NEW)
    assert texts == [model.processor.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in wanted]


def test_full_text_is_read_as_the_untouched_base_reads_it(model: ScaleDownModel, plain: PreTrainedModel) -> None:
    prompts = model.processor.text_prompts(QUESTIONS, DOCUMENTS)
    wanted = []
    for ids in prompts:
        said = plain.generate(torch.tensor([ids]), max_new_tokens=NEW, do_sample=False, eos_token_id=model.stop_ids)
        wanted.append(ended(said[0, len(ids):].tolist(), model.stop_ids))
    assert answer_ids(model, model.prefill_text(QUESTIONS, DOCUMENTS)) == wanted


def records() -> list[SimpleNamespace]:
    return [SimpleNamespace(query=question, documents=documents, answer=answer, reranking_scores=None)
            for question, documents, answer in zip(QUESTIONS, DOCUMENTS, ANSWERS, strict=True)]


def plain_loss(model: ScaleDownModel, memory: Tensor) -> Tensor:
    """Cross-entropy of all answers' tokens, each prompt read whole by itself, all its logits made by the model."""
    prompts = model.processor.memory_prompts(QUESTIONS, list(map(len, DOCUMENTS)))
    base, logits, targets, start = model.generator.base, [], [], 0
    with eager(base) if model.generator.packs else nullcontext():
        for prompt, documents, answer in zip(prompts, DOCUMENTS, ANSWERS, strict=True):
            own = memory[start:start + len(documents)]
            start += len(documents)
            ids = model.processor.answer_ids(answer)
            embeddings = model.generator.splice(torch.tensor([[*prompt, *ids[:-1]]]), own)
            logits.append(base(inputs_embeds=embeddings, use_cache=False).logits[0, len(prompt) - 1:])
            targets += ids
    return cross_entropy(torch.cat(logits).float(), torch.tensor(targets))


def test_two_steps_learn_from_the_plain_loss(folder: str) -> None:
    trained = packed(folder).train()
    optimizer = torch.optim.SGD(trained.parameter_groups(0.02, 0.02, 0.0))
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        wanted = plain_loss(trained, naive(trained)[:, :MEMORY])
        found = trained(trained.processor.collate(records())).answer_loss
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        learnt = [each for each in trained.parameters() if each.requires_grad]
        grads = [torch.autograd.grad(loss, learnt, allow_unused=True) for loss in (wanted, found)]
        for one, other in zip(*grads, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert (one - other).abs().max() < 3e-4 * one.abs().max().clamp(min=1e-2)
        for parameter, gradient in zip(learnt, grads[1], strict=True):
            parameter.grad = gradient
        optimizer.step()
        losses.append(found.item())
    assert losses[0] != losses[1]


def test_bfloat16_answers_alike_but_for_ties(model: ScaleDownModel, folder: str) -> None:
    half = packed(folder, torch.bfloat16)
    half.load_state_dict(model.state_dict())
    memory = model.compress(QUESTIONS, DOCUMENTS)
    in_half = half.compress(QUESTIONS, DOCUMENTS)
    with half.inference():
        read_apart = naive(half)[:, :MEMORY]
    errors = [(each - memory.pairs()).float().square().mean().sqrt() for each in (in_half.pairs(), read_apart)]
    assert errors[0] < 1.3 * errors[1], "more than transformers' own in bfloat16"

    prompts = model.prompts(QUESTIONS, memory)
    found, wanted = answer_ids(half, half.prompts(QUESTIONS, memory)), answer_ids(model, prompts)
    for row, (one, other) in enumerate(zip(found, wanted, strict=True)):
        place = next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
        if place is None:
            continue
        # Where the first token differs, the two are as near to one another as transformers itself rounds here.
        logits, in_half = (plain_logits(each, prompts, row, other[:place]) for each in (model, half))
        rounding = (logits - in_half).abs().max()
        assert logits[other[place]] - logits[one[place]] <= 2 * rounding < 0.5 * logits.abs().max()


def plain_logits(model: ScaleDownModel, prompts: Prompts, row: int, said: list[int]) -> Tensor:
    """Logits (V,) of the token that follows ``said``, all read at once by transformers' own attention."""
    own = prompts.embeddings[row:row + 1, -prompts.num_prompt_tokens[row]:]
    embeddings = torch.cat([own, model.generator.embed(torch.tensor([said], dtype=torch.long)).float()], 1)
    base = model.generator.base
    with model.inference(), eager(base):
        return base(inputs_embeds=embeddings.to(model.dtype), use_cache=False).logits[0, -1].float()
