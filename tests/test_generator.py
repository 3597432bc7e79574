"""The generator: right padding, explicit positions and a decoding loop that agree with transformers' own."""

from __future__ import annotations

import pytest
import tiny
import torch

from scaledown.config import ScaleDownConfig
from scaledown.models.generator import DecodingState, Generator
from scaledown.models.processor import MEMORY, SEPARATOR

PROMPTS = [[3, 9, MEMORY, MEMORY, SEPARATOR, MEMORY, MEMORY, 50, 51], [40], list(range(60, 80)), [7, MEMORY, MEMORY]]
NUM_MEMORY = [4, 0, 0, 2]
LAYOUTS = {"llama": {}, "mistral": {"sliding_window": 8}, "qwen2": {}, "qwen3": {},
           "qwen2, window": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}}
NEVER_STOP = [-1]


def generator(layout: str = "llama") -> Generator:
    """A tiny generator whose adapter has been moved off its start, where it does nothing."""
    base = tiny.generator(layout.split(",")[0], **LAYOUTS[layout])
    torch.manual_seed(3)
    made = Generator(ScaleDownConfig(lora_rank=4), base).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return made


def memory() -> torch.Tensor:
    """Three documents of two embeddings each."""
    return torch.randn(3, 2, tiny.WIDTH, generator=torch.Generator().manual_seed(4))


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@torch.no_grad()
def test_answers_are_those_of_transformers_alone_and_unpadded(layout: str) -> None:
    made, rows = generator(layout), memory()
    found = made.decode(made.prefill(PROMPTS, rows), 12, NEVER_STOP)
    start = 0
    for prompt, number, answer in zip(PROMPTS, NUM_MEMORY, found, strict=True):
        own = rows.flatten(0, 1)[start:start + number].view(-1, 2, tiny.WIDTH)
        start += number
        embeddings = made.splice(torch.tensor([prompt]), own)
        wanted = made.base.generate(inputs_embeds=embeddings, attention_mask=torch.ones(1, len(prompt)),
                                    max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
        assert answer == wanted[0].tolist()


@torch.no_grad()
def test_the_first_logits_do_not_see_padding(layout: str) -> None:
    made, rows = generator(layout), memory()
    together = made.prefill(PROMPTS, rows).logits
    alone = made.prefill(PROMPTS[2:3], None).logits
    torch.testing.assert_close(together[2], alone[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_splice_fills_places_in_order() -> None:
    made, rows = generator(), memory()
    ids = torch.tensor([[3, MEMORY, MEMORY, SEPARATOR, MEMORY, MEMORY, 5], [MEMORY, MEMORY, 8, 0, 0, 0, 0]])
    spliced = made.splice(ids, rows)
    torch.testing.assert_close(spliced[0, [1, 2, 4, 5]], rows[:2].flatten(0, 1))
    torch.testing.assert_close(spliced[1, :2], rows[2])
    torch.testing.assert_close(spliced[0, 3], made.separator_row[0])
    torch.testing.assert_close(spliced[1, 2], made.embed(torch.tensor(8)))


def test_loss_is_the_mean_over_answer_tokens(layout: str) -> None:
    made, rows = generator(layout), memory()
    ids = torch.tensor([[3, MEMORY, MEMORY, 50, 51, 52, 0], [7, MEMORY, MEMORY, SEPARATOR, MEMORY, MEMORY, 61]])
    slots = torch.tensor([0, 1, 2, 3, 4, 5, *range(7, 14)])
    index, targets = torch.tensor([3, 4, 6 + 5]), torch.tensor([51, 52, 61])
    found = made.answer_loss(made.answer_states(ids, slots, rows, index), targets)
    first = made.base(inputs_embeds=made.splice(ids[:1, :6], rows[:1])).logits[0]
    second = made.base(inputs_embeds=made.splice(ids[1:], rows[1:])).logits[0]
    logits = torch.stack([first[3], first[4], second[5]])
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, targets), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_state_can_be_decoded_again() -> None:
    made = generator()
    state = made.prefill(PROMPTS, memory())
    long = made.decode(state, 9, NEVER_STOP)
    assert made.decode(state, 4, NEVER_STOP) == [answer[:4] for answer in long]
    assert made.decode(state, 9, NEVER_STOP) == long
    assert state.cache.length == max(map(len, PROMPTS))


@torch.no_grad()
def test_decoding_stops_as_soon_as_all_have_ended() -> None:
    made = generator()
    state = made.prefill(PROMPTS, memory())
    free = made.decode(state, 10, NEVER_STOP)
    stops = sorted({answer[2] for answer in free})
    wanted = [answer[:next(place for place, token in enumerate(answer) if token in stops)] for answer in free]
    steps = count_steps(made, state, stops)
    assert made.decode(state, 10, stops) == wanted
    assert state.num_new_tokens == [len(answer) + 1 for answer in wanted]
    assert steps == max(map(len, wanted))
    assert state.num_prompt_tokens == [len(prompt) for prompt in PROMPTS]


def count_steps(made: Generator, state: DecodingState, stops: list[int]) -> int:
    calls = []
    hook = made.base.base_model.layers[0].mlp.down_proj.register_forward_hook(lambda *_: calls.append(1))
    made.decode(state, 10, stops)
    hook.remove()
    return len(calls)


@torch.no_grad()
def test_without_the_adapter_it_is_the_base() -> None:
    made, base = generator(), tiny.generator()
    text = [list(range(60, 80))]
    wanted = base(torch.tensor(text)).logits[0, -1]
    torch.testing.assert_close(made.prefill(text, None, with_adapter=False).logits[0], wanted)
    assert (made.prefill(text, None).logits[0] - wanted).abs().max() > 0.01
    answer = base.generate(torch.tensor(text), max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)
    wanted = answer[0, len(text[0]):].tolist()
    assert made.decode(made.prefill(text, None, with_adapter=False), 6, NEVER_STOP) == [wanted]
    assert made.decode(made.prefill(text, None), 6, NEVER_STOP) != [wanted]
    trainable = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert all("lora" in name or name == "separator_row" for name in trainable) and len(trainable) > 1


@torch.no_grad()
def test_a_start_that_was_read_before_changes_nothing(layout: str) -> None:
    """Prompts with one start: read whole, and with the start's keys and values kept from another call."""
    made, rows, start = generator(layout), memory(), list(range(100, 111))
    prompts = [start + prompt for prompt in PROMPTS]
    wanted = made.prefill(prompts, rows)
    for _ in range(2):
        found = made.prefill(prompts, rows, start=start)
        torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-4)
        assert found.num_prompt_tokens == wanted.num_prompt_tokens
        assert made.decode(found, 9, NEVER_STOP) == made.decode(wanted, 9, NEVER_STOP)


@torch.no_grad()
def test_a_start_is_read_again_when_weights_or_the_adapter_change() -> None:
    made, start = generator(), list(range(100, 111))
    prompts = [[*start, 5, 6], [*start, 7]]

    def differ(with_adapter: bool) -> float:
        kept, whole = (made.prefill(prompts, None, with_adapter, start=ids).logits for ids in (start, ()))
        return (kept - whole).abs().max().item()

    assert differ(True) < 1e-4 and differ(False) < 1e-4
    for name, parameter in made.named_parameters():
        if "lora_A" in name:
            parameter.mul_(3.0)
    assert differ(True) < 1e-4 and differ(False) < 1e-4


def test_long_prompts_read_their_start_themselves() -> None:
    made = generator()
    assert made._start_pays([[1, 2, 3, 4]], [1, 2]) and not made._start_pays([[1, 2]], [1, 2])
    assert not made._start_pays([list(range(17))], [0, 1]) and not made._start_pays([[1, 2]], [])
