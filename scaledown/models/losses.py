"""The losses (paper, equation 3): of the answer's tokens, of the documents' scores, of reading the memory by itself.

With 150,000 tokens in a vocabulary the logits of one batch's answers take gigabytes, and their gradient as much again.
So cross-entropy is computed for a few tokens at a time, together with their gradient of the hidden states. How many
depends on the free memory of a GPU: more of them are faster, and fewer fit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_LOGITS = 2**25
"""Logits that exist at one time: 128 MiB in float32. On CUDA it depends on the free memory."""
FEWEST_LOGITS, MOST_LOGITS = 2**22, 2**27
BYTES_A_LOGIT = 12
"""A logit exists in float32, as a temporary number of the same size, and in half precision with its gradient."""
SHARE_OF_FREE_MEMORY = 1 / 16
"""Small, since the optimizer has not taken its memory yet when the free memory is measured."""
IGNORED = -1
"""A target that does not count: it fills batches of a fixed shape."""
READOUT_SHARPNESS = 20.0
"""Logit of a memory embedding that has the direction of a token's: enough for certainty among 100,000 tokens."""


class Losses(NamedTuple):
    """The parts of the loss, each a mean; None if a batch has no targets for it. The trainer weighs them."""

    answer_loss: Tensor | None
    reranking_loss: Tensor | None = None
    readout_loss: Tensor | None = None


class Head(NamedTuple):
    """The map from final states (A, D) to logits (A, V): ``softcap(scale * (states @ weight.T + bias))``.

    Attributes:
        weight: (V, D), frozen.
        bias: (V,), if there is one.
        scale: factor of the logits (Granite, Cohere).
        softcap: bounds the logits to plus and minus this (Gemma).
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits in float32."""
        logits = F.linear(states.to(self.weight.dtype), self.weight, self.bias).float()
        # Most families scale nothing, and a product with 1 would be one more copy.
        logits = logits if self.scale == 1 else logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def backward(self, logits: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient (A, D) of the states from that (A, V) of their ``logits``."""
        if self.softcap is not None:
            gradient = gradient * (1 - (logits / self.softcap).square())    # the derivative of tanh
        gradient = gradient if self.scale == 1 else gradient * self.scale
        return gradient.to(self.weight.dtype) @ self.weight


@functools.cache
def logits_at_a_time(device: torch.device) -> int:
    """Return how many logits are computed at one time on ``device``: on CUDA by its free memory at the first call.

    It is a power of two and stays the same for the process, so that a run is repeatable; the number changes its results
    by rounding alone.
    """
    if device.type != "cuda":
        return CHUNK_LOGITS
    free, _ = torch.cuda.mem_get_info(device)
    # What torch has reserved and does not use is free, too.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)

    affordable = int(free * SHARE_OF_FREE_MEMORY / BYTES_A_LOGIT)
    largest_power = 1 << max(0, affordable.bit_length() - 1)
    return min(MOST_LOGITS, max(FEWEST_LOGITS, largest_power))


def head_cross_entropy(states: Tensor, head: Head, targets: Tensor, chunk_logits: int | None = None) -> Tensor:
    """Return the mean cross-entropy of what ``states`` predict, in float32; gradients reach the states alone.

    Args:
        states: (A, D).
        head: frozen.
        targets: (A,) token ids; those that are ``IGNORED`` do not count.
        chunk_logits: largest number of logits held at a time [:func:`logits_at_a_time`].
    """
    if chunk_logits is None:
        # A compiled step cannot ask for the free memory.
        chunk_logits = CHUNK_LOGITS if torch.compiler.is_compiling() else logits_at_a_time(states.device)
    assert not head.weight.requires_grad, "the output head is frozen"
    return _HeadCrossEntropy.apply(states, head, targets, max(1, chunk_logits // len(head.weight)))


class _HeadCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Head, targets: Tensor, chunk: int) -> Tensor:
        counts = targets != IGNORED                                       # (A,)
        number = counts.sum().clamp(min=1)
        total = torch.zeros((), device=states.device)
        gradient = torch.empty_like(states) if ctx.needs_input_grad[0] else None

        for start in range(0, len(states), chunk):
            part = slice(start, start + chunk)
            logits = head.logits(states[part])                            # (a, V), a = chunk
            log_normaliser = logits.logsumexp(-1, keepdim=True)           # (a, 1)
            target = targets[part, None].clamp(min=0)                     # (a, 1)
            total += ((log_normaliser - logits.gather(-1, target)) * counts[part, None]).sum()

            if gradient is not None:
                # The gradient of cross-entropy by logits: the probabilities, minus 1 at the target. They replace the
                # logits in memory, unless the derivative of a softcap needs these.
                of_logits = logits if head.softcap is None else logits.clone()
                of_logits.sub_(log_normaliser).exp_().scatter_add_(-1, target, -torch.ones_like(log_normaliser))
                of_logits.mul_(counts[part, None])
                gradient[part] = head.backward(logits, of_logits).to(states.dtype)

        if gradient is not None:
            ctx.save_for_backward(gradient, number)
        return total / number

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None, None]:
        gradient, number = ctx.saved_tensors
        return gradient * (outer / number).to(gradient.dtype), None, None, None


def readout_loss(memory: Tensor, table: Tensor, targets: Tensor, states: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of ``targets`` (P, L), each predicted by the embedding of ``memory`` (P, L, D).

    The logit of a token is the cosine between the memory embedding and the token's in ``table`` (V, D), scaled: nothing
    is trained for it. Memory that is a mixture of tokens comes with ``states`` (P, L, D), whose logits are those of the
    output head, the same table.
    """
    if states is not None:
        return head_cross_entropy(states.flatten(0, 1), Head(table), targets.flatten())

    # Divided by the mean length of the tokens' embeddings, the logit of a perfect match is about READOUT_SHARPNESS.
    scale = READOUT_SHARPNESS / table.norm(dim=-1, dtype=torch.float32).mean()
    states = F.normalize(memory.float(), dim=-1).flatten(0, 1) * scale    # (P * L, D)
    return head_cross_entropy(states, Head(table), targets.flatten())


def score_error(scores: Tensor | None, batch: Mapping[str, Tensor]) -> Tensor | None:
    """Return the mean squared error of scores (P,), over documents that a teacher scored; None without reranking.

    Equation 3 of the paper sums over a question's k documents, where this is a mean over the documents of a batch, as
    the answer's loss is one over tokens: the equation's weight of 0.05 is ``--reranking_loss_weight`` k x 0.05.
    """
    if scores is None:
        return None
    has_score = batch["has_score"].float()
    error = (scores - batch["teacher_scores"]).square()
    return (error * has_score).sum() / has_score.sum().clamp(min=1)


def counts(batch: Mapping[str, Tensor]) -> Tensor:
    """Return over how many items a batch's losses are means (3,): answer tokens, scored documents, readout tokens."""
    num_tokens = (batch["answer_targets"] != IGNORED).sum()
    num_scores, num_read = torch.zeros_like(num_tokens), torch.zeros_like(num_tokens)

    if "has_score" in batch:
        num_scores = batch["has_score"].sum()
    if "readout_targets" in batch:
        num_read = (batch["readout_targets"] != IGNORED).sum()
    return torch.stack([num_tokens, num_scores, num_read])
