"""Muon (Jordan et al., 2024) whose iterations run in float32 on a CPU, and together for matrices of one shape.

PyTorch's own iterates in bfloat16, whatever the device. A processor without instructions for it emulates them: with
the embedded compressor that took six times as long as forward and backward pass together (lab/LOG.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

RMS_OF_ADAMW = 0.2


class Muon(torch.optim.Muon):
    """``torch.optim.Muon`` with steps of AdamW's size: the same settings and state, in fewer and faster operations."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, adjust_lr_fn="match_rms_adamw", **settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[tuple(parameter.shape)].append(parameter)
            for parameters in by_shape.values():
                self._step_alike(parameters, group)
        return loss

    def _step_alike(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        updates = torch.stack([self._momentum(parameter, group) for parameter in parameters])
        updates = orthogonal(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
        size = group["lr"] * RMS_OF_ADAMW * max(parameters[0].shape) ** 0.5
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-size)

    def _momentum(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad)
        mean = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
        return parameter.grad.lerp(mean, group["momentum"]) if group["nesterov"] else mean


def orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], num_steps: int, eps: float) -> Tensor:
    """Matrices (N, H, W) with all their singular values brought near 1, by Newton-Schulz iterations."""
    a, b, c = coefficients
    found = matrices.to(torch.float32 if matrices.device.type == "cpu" else torch.bfloat16)
    is_tall = found.shape[1] > found.shape[2]
    found = found.mT if is_tall else found
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(num_steps):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return (found.mT if is_tall else found).to(matrices.dtype)
