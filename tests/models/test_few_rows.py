"""Linear maps of a few rows, the other way round: torch's own values, and its names and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scaledown.models.engine.few_rows import FEWEST, MOST, FewRowsLinear, use_few_rows


def both(bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    """A linear map and the same one in the other form."""
    torch.manual_seed(0)
    plain = nn.Linear(24, 17, bias=bias)
    other = nn.Sequential(nn.Linear(24, 17, bias=bias))
    other[0].load_state_dict(plain.state_dict())
    use_few_rows(other)
    assert type(other[0]) is FewRowsLinear
    return plain, other[0]


@pytest.mark.parametrize("rows", [0, 1, FEWEST, MOST, MOST + 1])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_a_few_rows_are_mapped_as_ever(rows: int, bias: bool) -> None:
    plain, other = both(bias)
    states = torch.randn(rows, 24)
    for shape in ((rows, 24), (1, rows, 24), (rows, 1, 24)):
        found = other(states.view(shape))
        torch.testing.assert_close(found, plain(states.view(shape)))
        assert found.shape == (*shape[:-1], 17)


def test_gradients_and_mixed_precision_go_the_usual_way() -> None:
    plain, other = both()
    states, gradients = torch.randn(4, 24), []
    for layer in (plain, other):
        given = states.clone().requires_grad_()
        layer(given).square().sum().backward()
        gradients.append((given.grad, layer.weight.grad, layer.bias.grad))
    for wanted, found in zip(*gradients, strict=True):
        assert found.equal(wanted)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(other(states), plain(states), rtol=0.02, atol=0.01)  # of one type, too


def test_other_layers_and_all_names_stay() -> None:
    class Own(nn.Linear):
        """A linear map with a forward of its own, as quantised ones have."""

    model = nn.Sequential(nn.Linear(3, 4), Own(4, 5), nn.LayerNorm(5))
    names, weights = list(model.state_dict()), [each.data_ptr() for each in model.parameters()]
    use_few_rows(model)
    assert [type(each) for each in model] == [FewRowsLinear, Own, nn.LayerNorm]
    assert list(model.state_dict()) == names and [each.data_ptr() for each in model.parameters()] == weights
