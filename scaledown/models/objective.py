"""What training asks of the model: its loss (paper, equation 3) and its parameters by learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

ROW_NAMES = ("_row", "_rows")


class Losses(NamedTuple):
    """The loss and its parts; ``reranking_loss`` is None without reranking."""

    loss: Tensor
    answer_loss: Tensor
    reranking_loss: Tensor | None


def joined(answer_loss: Tensor, scores: Tensor | None, batch: Mapping[str, Tensor], weight: float) -> Losses:
    """Answer loss + ``weight`` * mean squared error of the scores (P,), over documents that have a teacher's score."""
    if scores is None:
        return Losses(answer_loss, answer_loss, None)
    has_score = batch["has_score"].float()
    error = (scores - batch["teacher_scores"]).square()
    reranking_loss = (error * has_score).sum() / has_score.sum().clamp(min=1)
    return Losses(answer_loss + weight * reranking_loss, answer_loss, reranking_loss)


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
