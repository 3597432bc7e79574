"""Muon and AdamW as one optimiser: who steps what, with which rate, and that it goes on after a save."""

from __future__ import annotations

import copy
import sys
import types

import pytest
import torch
from torch import nn

from scaledown.training import optimizer as optimizers
from scaledown.training.optimizer import Muon, OptimizerPair, build_optimizer, check_optimizer, orthogonal


class Parts(nn.Module):
    """A compressor in miniature: a linear map, a score's head, rows; beside it a generator's linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.compressor = nn.Module()
        self.compressor.map, self.compressor.rerank_head = nn.Linear(4, 6, bias=False), nn.Linear(4, 1)
        self.compressor.memory_rows = nn.Parameter(torch.randn(2, 4))
        self.adapter = nn.Linear(4, 4, bias=False)
        self.device = torch.device("cpu")

    def groups(self) -> list[dict]:
        part = self.compressor
        return [{"params": [self.adapter.weight], "lr": 0.1, "weight_decay": 0.0, "name": "generator_weights"},
                {"params": [part.map.weight, part.rerank_head.weight], "lr": 0.2, "weight_decay": 0.0,
                 "name": "compressor_weights"},
                {"params": [part.memory_rows, part.rerank_head.bias], "lr": 0.2, "weight_decay": 0.0,
                 "name": "compressor_rows"}]


def step(model: Parts, optimizer: torch.optim.Optimizer, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


@pytest.fixture()
def model() -> Parts:
    torch.manual_seed(0)
    return Parts()


def test_muon_steps_the_compressors_maps_and_adamw_the_rest(model: Parts) -> None:
    """Held against torch's own two optimisers, given the parts by hand."""
    other = copy.deepcopy(model)
    pair = build_optimizer("muon", model.groups(), model)
    muon = torch.optim.Muon([other.compressor.map.weight], lr=0.2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([{"params": [other.adapter.weight], "lr": 0.1},
                               {"params": [other.compressor.rerank_head.weight, other.compressor.rerank_head.bias,
                                           other.compressor.memory_rows], "lr": 0.2}], weight_decay=0.0)
    for seed in range(3):
        step(model, pair, seed)
        step(other, muon, seed)
        adamw.step()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        # PyTorch's Muon iterates in bfloat16, ours on a CPU in float32.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01 if ours is model.compressor.map.weight else 1e-5)


def test_muons_update_is_orthogonal_and_of_adamws_size() -> None:
    """Singular values near 1 (the iteration leaves them between about 0.7 and 1.2), whatever they were."""
    torch.manual_seed(0)
    matrices = torch.randn(3, 12, 5) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    values = torch.linalg.svdvals(orthogonal(matrices, (3.4445, -4.775, 2.0315), 5, 1e-7))
    assert values.min() > 0.6 and values.max() < 1.3
    weights = [nn.Parameter(matrix.clone()) for matrix in matrices] + [nn.Parameter(torch.zeros(4, 4))]
    for weight in weights[:3]:
        weight.grad = torch.randn(12, 5)
    Muon(weights, lr=0.5, weight_decay=0.0).step()
    changes = torch.stack([weight.detach() - matrix for weight, matrix in zip(weights[:2], matrices[:2], strict=True)])
    assert changes.square().mean().sqrt().item() == pytest.approx(0.5 * 0.2, rel=0.2)
    assert not weights[3].any(), "a matrix without a gradient stays"


def test_a_schedule_moves_both(model: Parts) -> None:
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build_optimizer("muon", model.groups(), model)
    assert isinstance(optimizer, OptimizerPair)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    step(model, optimizer)
    schedule.step()
    assert all(now.equal(then) for now, then in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_loaded_state_goes_on_alike(model: Parts, name: str) -> None:
    optimizer = build_optimizer(name, model.groups(), model)
    step(model, optimizer)
    other = copy.deepcopy(model)
    loaded = build_optimizer(name, other.groups(), other)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    schedules = [torch.optim.lr_scheduler.LambdaLR(each, lambda step: 0.5) for each in (optimizer, loaded)]
    step(model, optimizer, 1)
    step(other, loaded, 1)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert [each.get_last_lr() for each in schedules] == [schedules[0].get_last_lr()] * 2


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_on_cuda_adamw_is_one_kernel_whatever_device_its_state_comes_from(model: Parts, name: str) -> None:
    """The kernel exists on a CPU, too; there it is not chosen."""
    other = copy.deepcopy(model)
    other.device = torch.device("cuda")
    plain, fused = build_optimizer(name, model.groups(), model), build_optimizer(name, other.groups(), other)

    def adamw_groups(optimizer: torch.optim.Optimizer) -> list[bool | None]:
        return [group["fused"] for group in optimizer.param_groups if "fused" in group]

    for seed in range(3):
        if seed == 1:
            states = [copy.deepcopy(optimizer.state_dict()) for optimizer in (plain, fused)]
            plain.load_state_dict(states[1])
            fused.load_state_dict(states[0])
        step(model, plain, seed)
        step(other, fused, seed)
        assert set(adamw_groups(plain)) == {None} and set(adamw_groups(fused)) == {True}
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


class In8Bits(torch.optim.AdamW):
    """Stands in for an optimiser of bitsandbytes."""


@pytest.fixture()
def bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of this name whose optimisers step as AdamW does, on the CPU."""
    own = types.SimpleNamespace(optim=types.SimpleNamespace(AdamW8bit=In8Bits, PagedAdamW8bit=In8Bits))
    monkeypatch.setitem(sys.modules, "bitsandbytes", own)
    monkeypatch.setattr(optimizers.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(optimizers, "DEVICES_OF_8_BITS", ("cpu",))


@pytest.mark.parametrize("name", optimizers.IN_8_BITS)
def test_8_bits_hold_the_state_of_weights_and_rows_stay_as_they_are(model: Parts, bitsandbytes, name: str) -> None:
    other = copy.deepcopy(model)
    pair, plain = build_optimizer(name, model.groups(), model), build_optimizer("adamw", other.groups(), other)
    of_weights, of_rows = pair.pair
    assert isinstance(of_weights, In8Bits) and type(of_rows) is torch.optim.AdamW
    assert [group["name"] for group in of_weights.param_groups] == ["generator_weights", "compressor_weights"]
    assert [group["name"] for group in of_rows.param_groups] == ["compressor_rows"]
    assert [group["weight_decay"] for group in of_rows.param_groups] == [0.0]
    for seed in range(2):
        step(model, pair, seed)
        step(other, plain, seed)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_8_bits_that_cannot_run_here_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_optimizer("muon", torch.device("cpu"))
    monkeypatch.setattr(optimizers.importlib.util, "find_spec", lambda name: object())
    check_optimizer("adamw_8bit", torch.device("cuda"))
    with pytest.raises(ValueError, match="--optimizer adamw_8bit works on cuda, not on cpu"):
        check_optimizer("adamw_8bit", torch.device("cpu"))
    monkeypatch.setattr(optimizers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--optimizer paged_adamw_8bit needs bitsandbytes: pip install bitsandbytes"):
        check_optimizer("paged_adamw_8bit", torch.device("cuda"))
