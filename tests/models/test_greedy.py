"""Decoding that looks one token late whether the answers have ended: the tokens are those of transformers' own."""

from __future__ import annotations

import pytest
import tiny
import torch
from test_generator import LAYOUTS, PROMPTS, generator, memory
from transformers import GenerationConfig

from scaledown.models.engine import greedy
from scaledown.models.generator import Generator, Prompts

CPU = torch.device("cpu")
LONGEST = 8
SAME_LENGTH = [PROMPTS[0], list(range(60, 69))]


def tokens(made: Generator, prompts: Prompts, **settings: object) -> list[list[int]]:
    config = GenerationConfig(**{"max_new_tokens": LONGEST, "pad_token_id": 0, "eos_token_id": None} | settings)
    return made.generate(prompts, config).tolist()


def prompts_of(made: Generator, ids: list[list[int]], is_read: bool) -> Prompts:
    prompts = made.prompts(ids, memory()[:2 if ids is SAME_LENGTH else 3])
    if is_read:
        made.prefill(prompts)
    return prompts


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Decode so on the CPU, too; what the host has read, one for each token that was computed."""
    read, call = [], greedy._ReadLate.__call__

    def noted(self, value):
        read.append(call(self, value))
        return read[-1]

    monkeypatch.setattr(greedy, "DEVICES", ("cpu",))
    monkeypatch.setattr(greedy._ReadLate, "__call__", noted)
    return read


@pytest.mark.parametrize("is_read", [False, True], ids=["at once", "read before"])
@pytest.mark.parametrize("ids", [PROMPTS, SAME_LENGTH, PROMPTS[:1]], ids=["padded", "no padding", "one"])
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_tokens_are_those_of_generate(layout: str, ids: list[list[int]], is_read: bool, late: list[bool],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    made = generator(layout)
    with monkeypatch.context() as patch:
        patch.setattr(greedy, "DEVICES", ())
        longest = tokens(made, prompts_of(made, ids, is_read))
        # All answers end with their first tokens, with their third ones, or not at all.
        ends = [[row[0] for row in longest], [row[2] for row in longest], None, [399]]
        expected = [tokens(made, prompts_of(made, ids, is_read), eos_token_id=end) for end in ends]
        assert not late

    for end, wanted in zip(ends, expected, strict=True):
        late.clear()
        assert tokens(made, prompts_of(made, ids, is_read), eos_token_id=end) == wanted
        # One token more is computed if the answers end before their longest.
        num_tokens = len(wanted[0])
        assert late == [False] * num_tokens + [True] * (num_tokens < LONGEST)
    assert {len(wanted[0]) for wanted in expected} >= {1, LONGEST}


@torch.no_grad()
def test_settings_of_the_scores_count(late: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    made = generator()
    settings = {"no_repeat_ngram_size": 1, "suppress_tokens": list(range(40, 300)), "min_new_tokens": 4,
                "eos_token_id": list(range(300, 390))}
    found = tokens(made, made.prompts(PROMPTS, memory()), **settings)
    assert late and found != tokens(made, made.prompts(PROMPTS, memory()))
    monkeypatch.setattr(greedy, "DEVICES", ())
    assert found == tokens(made, made.prompts(PROMPTS, memory()), **settings)


@torch.no_grad()
def test_one_prompt_of_one_token(late: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    made = generator()
    found = tokens(made, made.prompts([[40]], None))
    monkeypatch.setattr(greedy, "DEVICES", ())
    assert late and found == tokens(made, made.prompts([[40]], None))


def test_whatever_looks_at_each_token_is_left_to_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny.generator()
    plain = {"max_new_tokens": 4, "pad_token_id": 0}
    assert not greedy.suits(base, CPU, GenerationConfig(**plain), {})
    monkeypatch.setattr(greedy, "DEVICES", ("cpu",))
    assert greedy.suits(base, CPU, GenerationConfig(**plain), {"cache": None})
    for others in ({"streamer": None}, {"stopping_criteria": []}, {"logits_processor": []}):
        assert not greedy.suits(base, CPU, GenerationConfig(**plain), others)
    for setting in ({"do_sample": True}, {"num_beams": 2}, {"cache_implementation": "static"}, {"pad_token_id": None},
                    {"prompt_lookup_num_tokens": 2}, {"max_time": 1.0}):
        assert not greedy.suits(base, CPU, GenerationConfig(**plain | setting), {}), setting

    # transformers computes the experts of a mixture in another way for single tokens.
    monkeypatch.setattr(base, "get_experts_implementation", lambda: {"": "grouped_mm"})
    assert not greedy.suits(base, CPU, GenerationConfig(**plain), {})
