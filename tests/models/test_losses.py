"""The losses: torch's own values and gradients, whatever the chunk; what is not learned counts nowhere."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from scaledown.models.losses import (
    BYTES_A_LOGIT,
    CHUNK_LOGITS,
    FEWEST_LOGITS,
    IGNORED,
    MOST_LOGITS,
    READOUT_SHARPNESS,
    Head,
    counts,
    head_cross_entropy,
    logits_at_a_time,
    readout_loss,
    score_error,
)

HEADS = {"plain": {}, "bias": {"bias": True}, "scaled": {"scale": 0.25}, "capped": {"softcap": 3.0},
         "all": {"bias": True, "scale": 4.0, "softcap": 5.0}}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk_logits", [1, 60, 10**6])
@pytest.mark.parametrize("kind", HEADS)
def test_value_and_gradient_are_those_of_the_whole(kind: str, chunk_logits: int) -> None:
    settings = dict(HEADS[kind])
    states, weight = draw(11, 8).requires_grad_(), draw(30, 8, seed=1)
    bias = draw(30, seed=2) if settings.pop("bias", False) else None
    targets = torch.randint(30, (11,), generator=torch.Generator().manual_seed(3))
    targets[[2, 10]] = IGNORED

    logits = settings.get("scale", 1.0) * F.linear(states, weight, bias)
    if "softcap" in settings:
        logits = settings["softcap"] * torch.tanh(logits / settings["softcap"])
    wanted = F.cross_entropy(logits, targets, ignore_index=IGNORED)
    wanted_gradient, = torch.autograd.grad(3 * wanted, states)

    head = Head(weight, bias, **settings)
    torch.testing.assert_close(head.logits(states), logits)
    found = head_cross_entropy(states, head, targets, chunk_logits)
    gradient, = torch.autograd.grad(3 * found, states)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient, wanted_gradient)
    torch.testing.assert_close(head_cross_entropy(states.detach(), head, targets, chunk_logits), wanted.detach())


def test_no_more_logits_than_a_chunk_exist_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, logits_of = [], Head.logits
    monkeypatch.setattr(Head, "logits", lambda head, states: sizes.append(len(states)) or logits_of(head, states))
    head_cross_entropy(draw(11, 8), Head(draw(30, 8)), torch.arange(11), chunk_logits=100)
    assert sizes == [3, 3, 3, 2]


@pytest.mark.parametrize(("free_gigabytes", "chunk"), [(0.01, 2**22), (2, 2**23), (8, 2**25), (60, 2**27)])
def test_a_gpu_s_free_memory_decides_how_many_exist_once(free_gigabytes: float, chunk: int,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the memory is free for all programs, and half is torch's own, reserved and not in use."""
    half, measured = round(free_gigabytes * 10**9 / 2), []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: measured.append(device) or (half, 10**12))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: half + 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10**9)
    logits_at_a_time.cache_clear()
    gpu = torch.device("cuda", 0)
    try:
        assert logits_at_a_time(gpu) == logits_at_a_time(gpu) == chunk and measured == [gpu]
        assert chunk in (FEWEST_LOGITS, MOST_LOGITS) or chunk * BYTES_A_LOGIT <= free_gigabytes * 10**9 / 16
        assert logits_at_a_time(torch.device("cpu")) == CHUNK_LOGITS and measured == [gpu]
    finally:
        logits_at_a_time.cache_clear()


def test_bfloat16_states_give_a_float32_loss() -> None:
    states = torch.randn(4, 8, dtype=torch.bfloat16, requires_grad=True)
    loss = head_cross_entropy(states, Head(torch.randn(9, 8, dtype=torch.bfloat16)), torch.tensor([1, 2, 3, 8]))
    loss.backward()
    assert loss.dtype == torch.float32 and states.grad.dtype == torch.bfloat16


def test_a_head_that_is_trained_is_not_taken() -> None:
    with pytest.raises(AssertionError, match="frozen"):
        head_cross_entropy(torch.randn(2, 4), Head(torch.randn(5, 4, requires_grad=True)), torch.tensor([0, 1]))


def test_with_nothing_to_learn_the_loss_is_0() -> None:
    for states, targets in ((draw(2, 4), [IGNORED, IGNORED]), (draw(0, 4), [])):
        states.requires_grad_()
        loss = head_cross_entropy(states, Head(draw(5, 4)), torch.tensor(targets, dtype=torch.long))
        loss.backward()
        assert loss.item() == 0 and not states.grad.any()


def test_readout_compares_directions_with_the_tokens() -> None:
    """Worked out by hand: two tokens of length 2 at right angles, memory along the first, of any length."""
    table, memory = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([[[7.0, 0.0], [0.1, 0.0], [3.0, 3.0]]])
    right, wrong = (readout_loss(memory[:, :2], table, torch.full((1, 2), token)).item() for token in (0, 1))
    assert right == pytest.approx(math.log1p(math.exp(-READOUT_SHARPNESS)), abs=1e-6)
    assert wrong == pytest.approx(READOUT_SHARPNESS, abs=1e-4)
    between = readout_loss(memory, table, torch.tensor([[IGNORED, IGNORED, 0]]))
    assert between.item() == pytest.approx(math.log(2), abs=1e-6)


def test_scores_are_learned_where_a_teacher_gave_them() -> None:
    scores = torch.tensor([1.0, 5.0, -1.0], requires_grad=True)
    batch = {"teacher_scores": torch.tensor([2.0, 0.0, 1.0]), "has_score": torch.tensor([True, False, True])}
    error = score_error(scores, batch)
    error.backward()
    assert error.item() == 2.5 and scores.grad.tolist() == [-1.0, 0.0, -2.0]
    batch["has_score"][:] = False
    assert score_error(scores, batch).item() == 0 and score_error(None, batch) is None


def test_what_the_means_are_over_is_counted() -> None:
    batch = {"answer_targets": torch.tensor([4, IGNORED, 0])}
    assert counts(batch).tolist() == [2, 0, 0]
    batch |= {"has_score": torch.tensor([True, False, True]), "readout_targets": torch.tensor([[1, IGNORED], [2, 3]])}
    assert counts(batch).tolist() == [2, 2, 3]
