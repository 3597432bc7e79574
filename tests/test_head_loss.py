"""The loss in chunks: torch's own value and gradient, whatever the chunk."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scaledown.models.head_loss import head_cross_entropy


@pytest.mark.parametrize("chunk_logits", [1, 60, 10**6])
def test_value_and_gradient_are_those_of_the_whole(chunk_logits: int) -> None:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 8, generator=draw, requires_grad=True)
    weight, targets = torch.randn(30, 8, generator=draw), torch.randint(30, (11,), generator=draw)
    wanted = F.cross_entropy(hidden @ weight.T, targets)
    wanted_gradient, = torch.autograd.grad(3 * wanted, hidden)
    found = head_cross_entropy(hidden, weight, targets, chunk_logits)
    gradient, = torch.autograd.grad(3 * found, hidden)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient, wanted_gradient)
    torch.testing.assert_close(head_cross_entropy(hidden.detach(), weight, targets, chunk_logits), wanted.detach())


def test_bfloat16_states_give_a_float32_loss() -> None:
    hidden = torch.randn(4, 8, dtype=torch.bfloat16, requires_grad=True)
    loss = head_cross_entropy(hidden, torch.randn(9, 8, dtype=torch.bfloat16), torch.tensor([1, 2, 3, 8]))
    loss.backward()
    assert loss.dtype == torch.float32 and hidden.grad.dtype == torch.bfloat16


def test_a_head_that_is_trained_is_not_taken() -> None:
    with pytest.raises(AssertionError, match="frozen"):
        head_cross_entropy(torch.randn(2, 4), torch.randn(5, 4, requires_grad=True), torch.tensor([0, 1]))
