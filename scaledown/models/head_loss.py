"""Losses behind a frozen output head, without ever holding the logits of all tokens.

With 150,000 tokens in a vocabulary the logits of one batch's answers take gigabytes, and their gradient as many
again. Here a few tokens at a time are scored, and what they send back to the hidden states is worked out on the spot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHUNK_LOGITS = 2**25
"""Logits that exist at one time: 128 MiB in float32."""
IGNORED = -1
"""A target that is not learnt: it fills up batches of a fixed shape."""

ChunkLoss = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""From the logits (a, V) of some tokens their summed loss and its gradient (a, V); it may write over the logits."""


def head_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, chunk_logits: int = CHUNK_LOGITS) -> Tensor:
    """Mean cross-entropy of ``hidden @ weight.T`` against ``targets``, in float32; gradients for ``hidden`` alone.

    Args:
        hidden: (A, D) final states.
        weight: (V, D) of the output head, which must be frozen.
        targets: (A,) token ids; those that are ``IGNORED`` do not count.
        chunk_logits: largest number of logits held at a time.
    """

    counts = (targets != IGNORED)[:, None]

    def loss(logits: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        norm, right = logits.logsumexp(-1, keepdim=True), targets[part, None].clamp(min=0)
        total = ((norm - logits.gather(-1, right)) * counts[part]).sum()
        return total, logits.sub_(norm).exp_().scatter_add_(-1, right, -torch.ones_like(norm)).mul_(counts[part])

    return _mean_in_chunks(hidden, weight, loss, counts.sum(), chunk_logits)


def head_divergence(hidden: Tensor, weight: Tensor, teacher: Tensor, chunk_logits: int = CHUNK_LOGITS) -> Tensor:
    """Mean Kullback-Leibler divergence of the distribution that ``hidden`` gives from the one that ``teacher`` gives.

    Args:
        hidden: (A, D) final states; they alone get gradients.
        weight: (V, D) of the output head, which must be frozen.
        teacher: (A, D) final states of whoever is learnt from, through the same head.
        chunk_logits: largest number of logits held at a time; three times as many exist.
    """

    def loss(logits: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        wanted = _logits(teacher[part], weight).log_softmax(-1)
        found = logits.log_softmax(-1)
        probabilities = wanted.exp()
        total = (probabilities * (wanted - found)).sum()
        return total, found.exp_().sub_(probabilities)

    return _mean_in_chunks(hidden, weight, loss, torch.tensor(len(hidden), device=hidden.device), chunk_logits)


def _mean_in_chunks(hidden: Tensor, weight: Tensor, loss: ChunkLoss, number: Tensor, chunk_logits: int) -> Tensor:
    assert not weight.requires_grad, "the output head is frozen"
    return _HeadLoss.apply(hidden, weight, loss, number.clamp(min=1), max(1, chunk_logits // len(weight)))


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    return (hidden.to(weight.dtype) @ weight.T).float()


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, loss: ChunkLoss, number: Tensor, chunk: int) -> Tensor:
        total = torch.zeros((), device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            part_loss, part_gradient = loss(_logits(hidden[part], weight), part)
            total += part_loss
            if gradient is not None:
                gradient[part] = (part_gradient.to(weight.dtype) @ weight).to(hidden.dtype)
        if gradient is not None:
            ctx.save_for_backward(gradient, number)
        return total / number

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None, None, None]:
        gradient, number = ctx.saved_tensors
        return gradient * (outer / number).to(gradient.dtype), None, None, None, None
