"""The last layer at the wanted tokens alone: the whole layer's states and gradients, for less work."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from scaledown.models.engine import decoder, last_layer
from scaledown.models.engine.packing import PackedTexts, Reads, TextLists

LAYOUTS = {"llama": {}, "qwen3": {}, "mistral": {"sliding_window": 4},
           "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}}


def body(family: str = "llama") -> PreTrainedModel:
    made = tiny.generator(family, **LAYOUTS[family]).base_model
    decoder.register(made)
    return made


def texts(reads: list[list[int]] | None = None) -> PackedTexts:
    """Two prefixes and three suffixes; by default some of the tokens are wanted, of prefixes too, and not the last."""
    reads = [[1, 3], [], [0, 4], [5], []] if reads is None else reads
    return TextLists([[7] * 4, [8] * 9], [[9] * 5, [10] * 6, [11] * 2], [0, 1, 1], reads).packed()


def everything() -> PackedTexts:
    return texts([list(range(length)) for length in (4, 9, 5, 6, 2)])


def embeddings(made: PreTrainedModel, packed: PackedTexts) -> Tensor:
    torch.manual_seed(2)
    return made.get_input_embeddings()(packed.ids) + 0.3 * torch.randn(len(packed.ids), tiny.WIDTH)


@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("family", LAYOUTS)
def test_states_and_gradients_are_the_whole_layers(family: str, is_checkpointed: bool) -> None:
    made, some, whole = body(family).train(), texts(), everything()
    if is_checkpointed:
        decoder.checkpoint_activations(made)
    given, found = embeddings(made, some).detach(), []
    weight = torch.randn(len(some.reads.at), tiny.WIDTH)
    for packed in (some, whole):
        made.zero_grad()
        own = given.clone().requires_grad_()
        states = decoder.read(made, own, packed.packing, packed.reads)
        states = states if packed is some else states[some.reads.at]
        (states * weight).sum().backward()
        found.append([states, own.grad, *(each.grad for each in made.parameters() if each.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_only_the_wanted_tokens_are_computed() -> None:
    made, packed = body(), texts()
    sizes: dict[int, list[int]] = {0: [], 3: []}
    for number, seen in sizes.items():
        mlp = made.layers[number].mlp
        mlp.register_forward_pre_hook(lambda module, given, seen=seen: seen.append(given[0].shape[1]))
    states = decoder.read(made, embeddings(made, packed), packed.packing, packed.reads)
    assert sizes == {0: [26], 3: [5]} and states.shape == (5, tiny.WIDTH)


@torch.no_grad()
@pytest.mark.parametrize("reads", ["some", "none"])
def test_queries_are_computed_of_the_wanted_tokens_alone(reads: str) -> None:
    made, packed, sizes = body(), texts(), []
    attention = made.layers[-1].self_attn
    project = attention.q_proj
    project.register_forward_pre_hook(lambda module, given: sizes.append(given[0].shape[1]))
    decoder.read(made, embeddings(made, packed), packed.packing, packed.reads if reads == "some" else None)
    assert sizes == ([5] if reads == "some" else []) and attention.q_proj is project


@torch.no_grad()
def test_for_keys_and_values_alone_the_last_layer_stops_there() -> None:
    made, packed = body(), texts([[]] * 5)
    for part in (made.layers[-1].mlp, made.layers[-1].self_attn.o_proj):
        part.register_forward_pre_hook(lambda *_: pytest.fail("computed for nothing"))
    kept: dict[int, tuple[Tensor, Tensor]] = {}
    decoder.read(made, embeddings(made, packed), packed.packing, None, kept)
    assert sorted(kept) == [0, 1, 2, 3] and all(keys.shape == (2, 2, 9, 8) for keys, _ in kept.values())


def test_the_layers_are_as_they_were_afterwards() -> None:
    made, packed = body(), texts()
    layers, names = list(made.layers), list(made.state_dict())
    with pytest.raises(RuntimeError, match="on the way"), last_layer.only(made.layers, packed.reads):
        assert made.layers[-1] is not layers[-1] and made.layers[-1].hidden_size == layers[-1].hidden_size
        raise RuntimeError("on the way")
    assert list(made.layers) == layers and list(made.state_dict()) == names


def test_attributes_that_the_layer_lacks_are_missing() -> None:
    stand_in = last_layer.LastLayer(nn.Linear(2, 2), None)
    assert stand_in.in_features == 2
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = stand_in.no_such_thing


def test_a_layer_that_attends_by_itself_is_said() -> None:
    class Own(nn.Module):
        def forward(self, hidden_states: Tensor, **settings: object) -> Tensor:
            return hidden_states

    reads: Reads = texts().reads
    with pytest.raises(AssertionError, match="AttentionInterface"):
        last_layer.LastLayer(Own(), reads)(torch.zeros(1, 26, 4))
