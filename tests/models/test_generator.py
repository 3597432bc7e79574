"""The generator: answers and losses are those of transformers' own model, one unpadded prompt at a time."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig

from scaledown.config import ScaleDownConfig
from scaledown.models.engine.packing import PackedTexts, TextLists
from scaledown.models.generator import Generator, Prompts
from scaledown.models.losses import IGNORED
from scaledown.models.processor import MEMORY, SEPARATOR

PROMPTS = [[3, 9, MEMORY, MEMORY, SEPARATOR, MEMORY, MEMORY, 50, 51], [40], list(range(60, 80)), [7, MEMORY, MEMORY]]
NUM_MEMORY = [4, 0, 0, 2]
LAYOUTS = {"llama": {}, "mistral": {"sliding_window": 8}, "qwen2": {}, "qwen3": {},
           "qwen2, window": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}}


def generator(layout: str = "llama", **settings: object) -> Generator:
    """A tiny generator whose adapter has been moved off its start, where it does nothing."""
    base = tiny.generator(layout.split(",")[0], **LAYOUTS[layout])
    torch.manual_seed(3)
    made = Generator(ScaleDownConfig(**{"lora_rank": 4} | settings), base).eval()
    tiny.move_adapter(made)
    return made


def memory() -> torch.Tensor:
    """Three documents of two embeddings each."""
    return torch.randn(3, 2, tiny.WIDTH, generator=torch.Generator().manual_seed(4))


def answers(made: Generator, prompts: Prompts, num_tokens: int, stops: list[int] | None = None) -> list[list[int]]:
    """The new tokens of each answer; without ``stops`` nothing ends them."""
    config = GenerationConfig(do_sample=False, max_new_tokens=num_tokens, pad_token_id=0, eos_token_id=stops)
    if stops is None:
        made.base.generation_config.eos_token_id = None
    return made.generate(prompts, config).tolist()


def plain_answer(made: Generator, embeddings: torch.Tensor, num_tokens: int) -> list[int]:
    """Greedy decoding without any cache, by the whole sequence anew for each token."""
    ids: list[int] = []
    for _ in range(num_tokens):
        found = made.base(inputs_embeds=torch.cat([embeddings, made.embed(torch.tensor([ids], dtype=torch.long))], 1),
                          use_cache=False)
        ids.append(found.logits[0, -1].argmax().item())
    return ids


def alone(made: Generator) -> list[torch.Tensor]:
    """The embeddings (1, T, D) of each prompt, put together apart from the others."""
    rows, start, found = memory().flatten(0, 1), 0, []
    for prompt, number in zip(PROMPTS, NUM_MEMORY, strict=True):
        found.append(made.splice(torch.tensor([prompt]), rows[start:start + number].view(-1, 2, tiny.WIDTH)))
        start += number
    return found


def packed(prompts: list[list[int]], num_wanted: list[int]) -> PackedTexts:
    """Prompts of which the last few tokens are wanted."""
    reads = [range(len(ids) - number, len(ids)) for ids, number in zip(prompts, num_wanted, strict=True)]
    return TextLists(prompts, [], [], reads).packed()


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("is_read", [False, True], ids=["at once", "read before"])
@torch.no_grad()
def test_answers_are_those_of_each_prompt_alone_without_a_cache(layout: str, is_read: bool) -> None:
    made = generator(layout)
    prompts = made.prompts(PROMPTS, memory())
    if is_read:
        made.prefill(prompts)
        assert prompts.cache.get_seq_length() == max(map(len, PROMPTS)) - 1
    found = answers(made, prompts, 12)
    made.base.set_attn_implementation("eager")
    assert found == [plain_answer(made, embeddings, 12) for embeddings in alone(made)]
    assert prompts.num_prompt_tokens == [len(prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("is_read", [False, True], ids=["at once", "read before"])
@torch.no_grad()
def test_a_static_cache_gives_the_same_answers(layout: str, is_read: bool) -> None:
    """Longer than the answers need, as one that is made once for many; on a GPU transformers compiles its steps."""
    made = generator(layout)
    expected = answers(made, made.prompts(PROMPTS, memory()), 12)
    for prompts in (PROMPTS, PROMPTS[:1]):
        given = made.prompts(prompts, memory()[:2 if len(prompts) == 1 else 3])
        if is_read:
            made.prefill(given)
        config = GenerationConfig(max_new_tokens=12, pad_token_id=0, cache_implementation="static", max_cache_len=64)
        assert made.generate(given, config).tolist() == expected[:len(prompts)]


@torch.no_grad()
def test_the_first_logits_do_not_see_padding(layout: str) -> None:
    made, rows = generator(layout), memory()
    together = tiny.first_logits(made, made.prompts(PROMPTS, rows))
    for number, embeddings in enumerate(alone(made)):
        wanted = made.base(inputs_embeds=embeddings, use_cache=False).logits[0, -1]
        torch.testing.assert_close(together[number], wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_splice_fills_places_in_order() -> None:
    made, rows = generator(), memory()
    ids = torch.tensor([[3, MEMORY, MEMORY, SEPARATOR, MEMORY, MEMORY, 5], [MEMORY, MEMORY, 8, 0, 0, 0, 0]])
    spliced = made.splice(ids, rows)
    torch.testing.assert_close(spliced[0, [1, 2, 4, 5]], rows[:2].flatten(0, 1))
    torch.testing.assert_close(spliced[1, :2], rows[2])
    torch.testing.assert_close(spliced[0, 3], made.separator_row[0])
    torch.testing.assert_close(spliced[1, 2], made.embed(torch.tensor(8)))
    torch.testing.assert_close(made.splice(ids.flatten(), rows), spliced.flatten(0, 1))


def test_loss_is_the_mean_over_answer_tokens(layout: str) -> None:
    made, rows = generator(layout), memory()
    first, second = [3, MEMORY, MEMORY, 50, 51, 52], [7, MEMORY, MEMORY, SEPARATOR, MEMORY, MEMORY, 61]
    targets = torch.tensor([52, 53, 62])
    found = made.answer_loss(made.states(packed([first, second], [2, 1]), rows), targets)
    logits = torch.cat([made.base(inputs_embeds=made.splice(torch.tensor([ids]), own)).logits[0, -number:]
                        for ids, own, number in ((first, rows[:1], 2), (second, rows[1:], 1))])
    torch.testing.assert_close(found, cross_entropy(logits, targets), rtol=1e-4, atol=1e-5)


def test_texts_that_cannot_be_packed_are_padded_and_learn_the_same(layout: str) -> None:
    """As a generator that keeps a state beside attention does."""
    made, texts = generator(layout), packed(PROMPTS, [3, 1, 2, 1])
    targets, found = torch.tensor([5, 6, 7, 8, 9, IGNORED, 10]), []
    for made.packs in (True, False):
        rows = memory().requires_grad_()
        made.zero_grad()
        loss = made.answer_loss(made.states(texts, rows), targets)
        loss.backward()
        found.append([loss.detach(), rows.grad, *(each.grad for each in made.parameters() if each.requires_grad)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_prompts_can_be_answered_again() -> None:
    made = generator()
    prompts = made.prompts(PROMPTS, memory())
    made.prefill(prompts)
    long = answers(made, prompts, 9)
    assert prompts.cache is None
    assert answers(made, prompts, 4) == [answer[:4] for answer in long]
    assert answers(made, prompts, 9) == long


@torch.no_grad()
def test_decoding_stops_as_soon_as_all_have_ended() -> None:
    made = generator()
    prompts = made.prompts(PROMPTS, memory())
    free = answers(made, prompts, 10)
    stops = sorted({answer[2] for answer in free})
    ends = []
    for answer in free:
        ends.append(next(place for place, token in enumerate(answer) if token in stops) + 1)
    found, calls = answers(made, prompts, 10, stops), []
    assert found == [answer[:end] + [0] * (max(ends) - end) for answer, end in zip(free, ends, strict=True)]
    made.base.base_model.layers[0].mlp.down_proj.register_forward_hook(lambda *_: calls.append(1))
    answers(made, prompts, 10, stops)
    assert len(calls) == max(ends)


@torch.no_grad()
def test_without_the_adapter_it_is_the_base() -> None:
    made, base = generator(), tiny.generator()
    text = [list(range(60, 80))]
    logits = base(torch.tensor(text)).logits[0, -1]
    torch.testing.assert_close(tiny.first_logits(made, made.prompts(text, None, with_adapter=False))[0], logits)
    assert (tiny.first_logits(made, made.prompts(text, None))[0] - logits).abs().max() > 0.01
    base.generation_config.eos_token_id = None
    wanted = base.generate(torch.tensor(text), max_new_tokens=6, do_sample=False, pad_token_id=0)[:, len(text[0]):]
    assert answers(made, made.prompts(text, None, with_adapter=False), 6) == wanted.tolist()
    assert answers(made, made.prompts(text, None), 6) != wanted.tolist()
    trainable = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert all("lora" in name or name == "separator_row" for name in trainable) and len(trainable) > 1


def test_the_first_step_draws_no_random_numbers_of_its_own() -> None:
    """A run that goes on from a checkpoint asks anew how logits are made, and must draw as one that never stopped."""
    made = generator(lora_dropout=0.5).train()
    before = torch.get_rng_state()
    made.head()
    assert torch.get_rng_state().equal(before) and all(part.training for part in made.modules())


def test_logits_that_are_made_otherwise_are_refused() -> None:
    """Also by a generator whose first token is padding, with an embedding of zeros."""
    made = generator()
    with torch.no_grad():
        made.base.get_input_embeddings().weight[0] = 0
    made.base.lm_head.register_forward_hook(lambda module, given, logits: logits * 1.5)
    states = made.states(packed(PROMPTS, [1] * 4), memory())
    with pytest.raises(ValueError, match="--generator_model: .*'llama' computes its logits in a way that cannot be"):
        made.answer_loss(states, torch.tensor([5, 6, 7, 8]))
