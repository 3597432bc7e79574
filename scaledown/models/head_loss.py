"""Cross-entropy behind a frozen output head, without ever holding the logits of all tokens.

With 150,000 tokens in a vocabulary the logits of one batch's answers take gigabytes, and their gradient as many
again. Here a few tokens at a time are scored, and what they send back to the hidden states is worked out on the spot.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_LOGITS = 2**25
"""Logits that exist at one time: 128 MiB in float32."""
IGNORED = -1
"""A target that is not learnt: it fills up batches of a fixed shape."""


def head_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, chunk_logits: int = CHUNK_LOGITS) -> Tensor:
    """Mean cross-entropy of ``hidden @ weight.T`` against ``targets``, in float32; gradients for ``hidden`` alone.

    Args:
        hidden: (A, D) final states.
        weight: (V, D) of the output head, which must be frozen.
        targets: (A,) token ids; those that are ``IGNORED`` do not count.
        chunk_logits: largest number of logits held at a time.
    """
    assert not weight.requires_grad, "the output head is frozen"
    return _HeadCrossEntropy.apply(hidden, weight, targets, max(1, chunk_logits // len(weight)))


class _HeadCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
        total = torch.zeros((), device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = (hidden[part].to(weight.dtype) @ weight.T).float()
            norm, right = logits.logsumexp(-1, keepdim=True), targets[part, None].clamp(min=0)
            counts = (targets[part, None] != IGNORED).to(norm.dtype)
            total += ((norm - logits.gather(-1, right)) * counts).sum()
            if gradient is not None:
                probabilities = logits.sub_(norm).exp_()
                probabilities.scatter_add_(-1, right, -torch.ones_like(norm)).mul_(counts)
                gradient[part] = (probabilities.to(weight.dtype) @ weight).to(hidden.dtype)
        number = (targets != IGNORED).sum().clamp(min=1)
        if gradient is not None:
            ctx.save_for_backward(gradient, number)
        return total / number

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None, None]:
        gradient, number = ctx.saved_tensors
        return gradient * (outer / number).to(gradient.dtype), None, None, None
