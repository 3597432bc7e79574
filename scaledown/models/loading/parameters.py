"""The parameters that training changes, and their groups for the optimiser."""

from __future__ import annotations

from typing import Any

from torch import nn

ROW_NAMES = ("_row", "_rows")
"""Ends of the names of trained token embeddings: memory, rerank and separator tokens."""


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of ``module`` that training changes, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def groups(name: str, module: nn.Module, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return optimiser groups ``{name}_weights``, which decay, and ``{name}_rows``, which do not; none that is empty.

    The rows are special tokens' embeddings, norms and biases.
    """
    parameters = trained(module)
    weight_names = {key for key, value in parameters.items() if value.ndim > 1 and not key.endswith(ROW_NAMES)}
    row_names = parameters.keys() - weight_names

    optimizer_groups = []
    for kind, names, decay in (("weights", weight_names, weight_decay), ("rows", row_names, 0.0)):
        # Sorted: optimisers save their state by a parameter's number, and sets have no order.
        group_parameters = [parameters[key] for key in sorted(names)]
        if group_parameters:
            optimizer_groups.append({"params": group_parameters, "lr": learning_rate, "weight_decay": decay,
                                     "name": f"{name}_{kind}"})
    return optimizer_groups
