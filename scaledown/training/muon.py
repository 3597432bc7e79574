"""Muon as PyTorch has it (Jordan et al., 2024), quick on a CPU too.

``torch.optim.Muon`` orthogonalises each matrix by itself and in bfloat16, which a CPU without bfloat16 instructions
emulates: for 28 matrices of 128 x 320 a step took 0.95 s there, ten times what the model itself took. Here it is
float32 on a CPU, and all matrices of one shape go together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ADAMW_STEP = 0.2
"""Root mean square of AdamW's usual steps, to which Muon's are scaled: both then take the same learning rates."""


class Muon(torch.optim.Muon):
    """``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"``; same settings, same state, other arithmetic."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of all matrices that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            matrices: list[Tensor] = []
            gradients: list[Tensor] = []
            momenta: list[Tensor] = []
            self._init_group(group, matrices, gradients, momenta)
            for shape in sorted({each.shape for each in matrices}):
                rows = [number for number, each in enumerate(matrices) if each.shape == shape]
                self._step_together(group, *([each[row] for row in rows] for each in (matrices, gradients, momenta)))
        return loss

    @staticmethod
    def _step_together(group: dict, matrices: list[Tensor], gradients: list[Tensor], momenta: list[Tensor]) -> None:
        """Step matrices of one shape."""
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, momenta, group["momentum"]) if group["nesterov"] else momenta
        directions = orthogonal(torch.stack(updates), group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = group["lr"] * ADAMW_STEP * math.sqrt(max(matrices[0].shape))
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(matrices, list(directions.to(matrices[0].dtype)), alpha=-rate)


def orthogonal(matrices: Tensor, coefficients: Sequence[float], num_steps: int, eps: float) -> Tensor:
    """Bring the singular values of matrices (N, R, C) near 1 by a Newton-Schulz iteration of degree five."""
    first, third, fifth = coefficients
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    found = matrices.float() if matrices.device.type == "cpu" else matrices.bfloat16()
    found = found.mT if is_tall else found
    found = found / found.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(num_steps):
        square = found @ found.mT
        found = first * found + torch.baddbmm(square, square, square, beta=third, alpha=fifth) @ found
    return found.mT if is_tall else found
