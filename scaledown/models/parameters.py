"""What training asks of the model: its parameters, by learning rate."""

from __future__ import annotations

from typing import Any

from torch import nn

ROW_NAMES = ("_row", "_rows")


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
