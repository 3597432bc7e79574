"""The optimizer of a run: AdamW as in the paper (table 7), or Muon for the compressor's matrices and AdamW beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from scaledown.models.model import ScaleDownModel
from scaledown.training.muon import Muon

ParameterGroup = dict[str, Any]


def build_optimizer(name: str, groups: Sequence[ParameterGroup], model: ScaleDownModel) -> Optimizer:
    """The optimizer ``name`` ("adamw" or "muon") over the parameter groups of ``model``.

    Muon's steps are scaled to AdamW's size, so both take the same learning rates.
    """
    if name == "adamw":
        return torch.optim.AdamW(groups)
    matrices, rest = _split(groups, model.compressor)
    return OptimizerPair(Muon(matrices), torch.optim.AdamW(rest))


class OptimizerPair(Optimizer):
    """Two optimizers that look like one: they share its parameter groups, so a schedule moves both."""

    def __init__(self, first: Optimizer, second: Optimizer) -> None:
        self.pair = (first, second)
        super().__init__(self._groups(), {})
        self._share_groups()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of each; ``closure`` is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.pair:
            optimizer.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of each."""
        return {"pair": [optimizer.state_dict() for optimizer in self.pair]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of each."""
        for optimizer, state in zip(self.pair, state_dict["pair"], strict=True):
            optimizer.load_state_dict(state)
        self._share_groups()

    def _groups(self) -> list[ParameterGroup]:
        return [group for optimizer in self.pair for group in optimizer.param_groups]

    def _share_groups(self) -> None:
        self.param_groups = self._groups()


def _split(groups: Sequence[ParameterGroup],
           compressor: nn.Module) -> tuple[list[ParameterGroup], list[ParameterGroup]]:
    """Groups of the compressor's linear maps, and of everything else; a score's head is a row, not a map."""
    linear = {id(part.weight) for part in compressor.modules() if isinstance(part, nn.Linear) and len(part.weight) > 1}
    matrices, rest = [], []
    for group in groups:
        for kept, is_kept in ((matrices, True), (rest, False)):
            parameters = [each for each in group["params"] if (id(each) in linear) is is_kept]
            if parameters:
                kept.append(group | {"params": parameters})
    return matrices, rest
