"""The optimizer of a run: AdamW as in the paper (table 7), or Muon for the compressor's matrices and AdamW for others.

AdamW can hold its state in 8 bits (bitsandbytes; Dettmers et al., arXiv:2110.02861), which takes a quarter of the
memory. Special tokens' rows, norms and biases are few and sensitive: their state stays in float32.

Muon here (Jordan et al., 2024) iterates in float32 on a CPU, for all matrices of one shape at once. PyTorch's iterates
in bfloat16 on any device. A processor without instructions for it emulates them: with the embedded compressor that took
six times as long as forward and backward pass together (lab/LOG.md).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from scaledown.models.model import ScaleDownModel

ParameterGroup = dict[str, Any]
RMS_OF_ADAMW = 0.2
IN_8_BITS = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}
"""Optimizers of bitsandbytes, by their names here. The state of a paged one moves to the host if the GPU is full."""
DEVICES_OF_8_BITS = ("cuda",)


def build_optimizer(name: str, groups: Sequence[ParameterGroup], model: ScaleDownModel) -> Optimizer:
    """Return the optimizer ``name`` (``config.OPTIMIZERS``) for the parameter groups of ``model``.

    Muon's steps are scaled to AdamW's size, so both use the same learning rates. Without a compressor there are no
    matrices for Muon.

    Raises:
        ValueError: for an optimizer in 8 bits that cannot run here.
    """
    if name == "adamw":
        return _adamw(groups, model.device)
    if name in IN_8_BITS:
        return _in_8_bits(name, groups, model.device)

    # Muon is for matrices alone, and AdamW takes the rest: the generator's LoRA, rows, norms and biases.
    matrices, rest = split(groups, model.compressor)
    if not matrices:
        return _adamw(groups, model.device)
    return OptimizerPair(Muon(matrices), _adamw(rest, model.device))


def check_optimizer(name: str, device: torch.device) -> None:
    """Refuse an optimizer that cannot run on ``device``.

    Raises:
        ValueError: if it needs bitsandbytes and that is not installed, or does not optimise on the device.
    """
    if name not in IN_8_BITS:
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"--optimizer {name} needs bitsandbytes: pip install bitsandbytes")
    if device.type not in DEVICES_OF_8_BITS:
        raise ValueError(f"--optimizer {name} works on {' and '.join(DEVICES_OF_8_BITS)}, not on {device.type}: "
                         "--optimizer adamw runs everywhere")


def _in_8_bits(name: str, groups: Sequence[ParameterGroup], device: torch.device) -> Optimizer:
    """Return an optimizer of bitsandbytes for the groups of weights, beside AdamW in float32 for those of rows."""
    check_optimizer(name, device)
    make = getattr(importlib.import_module("bitsandbytes").optim, IN_8_BITS[name])

    rows = [group for group in groups if group["name"].endswith("_rows")]
    weights = [group for group in groups if not group["name"].endswith("_rows")]
    if not rows:
        return make(weights)
    return OptimizerPair(make(weights), _adamw(rows, device))


def _adamw(groups: Sequence[ParameterGroup], device: torch.device) -> torch.optim.AdamW:
    """Return AdamW, on CUDA in one kernel for many weights.

    That one reads and writes each number once, instead of a dozen times.
    """
    # None, not False, which would also rule out the second best: one kernel an operation for many weights.
    is_fused = True if device.type == "cuda" else None
    optimizer = torch.optim.AdamW(groups, fused=is_fused)

    def keep_own_kernel(loading: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        own_groups = [group | {"fused": is_fused} for group in state_dict["param_groups"]]
        return state_dict | {"param_groups": own_groups}

    # A saved state names the kernel of its device; a run may go on on another one.
    optimizer.register_load_state_dict_pre_hook(keep_own_kernel)
    return optimizer


class OptimizerPair(Optimizer):
    """Two optimizers that look like one: they share its parameter groups, so a schedule moves both."""

    def __init__(self, first: Optimizer, second: Optimizer) -> None:
        self.pair = (first, second)
        super().__init__(self._groups(), {})
        self._share_groups()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Make one step of each; ``closure`` is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.pair:
            optimizer.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each."""
        return {"pair": [optimizer.state_dict() for optimizer in self.pair]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of each."""
        for optimizer, state in zip(self.pair, state_dict["pair"], strict=True):
            optimizer.load_state_dict(state)
        # Loading gives each of them new groups.
        self._share_groups()

    def _groups(self) -> list[ParameterGroup]:
        first, second = self.pair
        return [*first.param_groups, *second.param_groups]

    def _share_groups(self) -> None:
        self.param_groups = self._groups()


def split(groups: Sequence[ParameterGroup],
          compressor: nn.Module) -> tuple[list[ParameterGroup], list[ParameterGroup]]:
    """Return groups of the compressor's matrices, and of all other parameters, each with its group's settings."""
    # The head that scores documents has one output: a vector, not a matrix.
    linear = [part for part in compressor.modules() if isinstance(part, nn.Linear) and len(part.weight) > 1]
    matrix_ids = {id(part.weight) for part in linear}

    matrix_groups, other_groups = [], []
    for group in groups:
        matrices = [parameter for parameter in group["params"] if id(parameter) in matrix_ids]
        others = [parameter for parameter in group["params"] if id(parameter) not in matrix_ids]
        if matrices:
            matrix_groups.append(group | {"params": matrices})
        if others:
            other_groups.append(group | {"params": others})
    return matrix_groups, other_groups


class Muon(torch.optim.Muon):
    """``torch.optim.Muon`` with steps of AdamW's size: the same settings and state, but fewer and faster operations."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, adjust_lr_fn="match_rms_adamw", **settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Make one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        # Matrices of one shape are iterated together.
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[tuple(parameter.shape)].append(parameter)
            for parameters in by_shape.values():
                self._step_together(parameters, group)
        return loss

    def _step_together(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        updates = torch.stack([self._momentum(parameter, group) for parameter in parameters])    # (N, H, W)
        updates = orthogonal(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])

        # An orthogonal matrix (H, W) has entries of RMS 1 / sqrt(max(H, W)); AdamW's steps have an RMS of about 0.2.
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
    """Return matrices (N, H, W) with all their singular values brought near 1, by Newton-Schulz iterations."""
    a, b, c = coefficients
    result = matrices.to(torch.float32 if matrices.device.type == "cpu" else torch.bfloat16)

    # The products are smaller if the matrices are wide.
    is_tall = result.shape[1] > result.shape[2]
    if is_tall:
        result = result.mT

    # Singular values of at most 1, for which the iteration converges.
    result = result / result.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(num_steps):
        gram = result @ result.mT                                         # (N, H, H)
        # X becomes a X + (b G + c G G) X.
        result = torch.baddbmm(result, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), result, beta=a)

    if is_tall:
        result = result.mT
    return result.to(matrices.dtype)
