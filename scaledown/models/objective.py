"""What training asks of the model: its loss (paper, equation 3) and its parameters by learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scaledown.models.head_loss import IGNORED

ROW_NAMES = ("_row", "_rows")


class Losses(NamedTuple):
    """The loss and its parts; those that are not learnt are None."""

    loss: Tensor
    answer_loss: Tensor | None
    reranking_loss: Tensor | None = None
    distillation_loss: Tensor | None = None
    readout_loss: Tensor | None = None


def joined(answer_loss: Tensor | None, reranking: tuple[Tensor | None, float],
           distillation: tuple[Tensor | None, float], readout: tuple[Tensor | None, float]) -> Losses:
    """The answer loss and each other loss times its weight; a loss that is None is not learnt (one of them is)."""
    loss = answer_loss
    for part, weight in (reranking, distillation, readout):
        if part is not None:
            loss = weight * part if loss is None else loss + weight * part
    return Losses(loss, answer_loss, reranking[0], distillation[0], readout[0])


def score_error(scores: Tensor | None, batch: Mapping[str, Tensor]) -> Tensor | None:
    """Mean squared error of the scores (P,), over documents that have a teacher's score; None without reranking."""
    if scores is None:
        return None
    has_score = batch["has_score"].float()
    error = (scores - batch["teacher_scores"]).square()
    return (error * has_score).sum() / has_score.sum().clamp(min=1)


def counts(batch: Mapping[str, Tensor]) -> Tensor:
    """What a batch's losses are means over (3,): tokens of answers, documents with a score, tokens read out."""
    num_tokens = (batch["answer_targets"] != IGNORED).sum()
    num_scores, num_read = torch.zeros_like(num_tokens), torch.zeros_like(num_tokens)
    if "has_score" in batch:
        num_scores = batch["has_score"].sum()
    if "readout_targets" in batch:
        num_read = (batch["readout_targets"] != IGNORED).sum()
    return torch.stack([num_tokens, num_scores, num_read])


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of ``module`` that training changes, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def groups(name: str, module: nn.Module, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups ``{name}_weights``, which decay, and ``{name}_rows``: rows, norms and biases, which do not."""
    parameters = trained(module)
    weights = {key for key, value in parameters.items() if value.ndim > 1 and not key.endswith(ROW_NAMES)}
    rows = parameters.keys() - weights
    return [{"params": [parameters[key] for key in sorted(keys)], "lr": learning_rate, "weight_decay": decay,
             "name": f"{name}_{kind}"}
            for kind, keys, decay in (("weights", weights, weight_decay), ("rows", rows, 0.0))]
