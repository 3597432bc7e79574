"""Keys and values as few bytes: what float16 and int8 keep of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scaledown.models.serving.disk.stored_numbers import LayerShape, decode, encode

CPU = torch.device("cpu")
NUM_TOKENS = 7


def layers(dtype: torch.dtype = torch.float32, scale: float = 1.0) -> list[tuple[Tensor, Tensor]]:
    """Two layers of different shapes, with keys wider than values."""
    draw = torch.Generator().manual_seed(0)
    made = []
    for heads, key_width, value_width in ((2, 6, 4), (3, 8, 8)):
        made.append((scale * torch.randn(heads, NUM_TOKENS, key_width, generator=draw).to(dtype),
                     scale * torch.randn(heads, NUM_TOKENS, value_width, generator=draw).to(dtype)))
    return made


def stored(given: list[tuple[Tensor, Tensor]], number_format: str) -> list[tuple[Tensor, Tensor]]:
    return decode(encode(given, number_format), [LayerShape.of(layer) for layer in given], NUM_TOKENS, CPU)


def test_numbers_of_bfloat16_come_back_exactly_from_float16() -> None:
    given = layers(torch.bfloat16)
    for found, wanted in zip(stored(given, "float16"), given, strict=True):
        assert all(part.dtype == torch.float16 for part in found)
        for part, exact in zip(found, wanted, strict=True):
            torch.testing.assert_close(part.float(), exact.float(), rtol=0, atol=3e-8)


def test_numbers_of_float32_are_rounded_to_eleven_bits() -> None:
    given = layers()
    for found, wanted in zip(stored(given, "float16"), given, strict=True):
        for part, exact in zip(found, wanted, strict=True):
            assert torch.equal(part, exact.half())


def test_int8_is_off_by_half_a_step_of_a_channel_of_keys_or_a_token_of_values() -> None:
    given = layers()
    # One channel that is large in all tokens, as keys have them: the others must not lose by it.
    given[0][0][..., 0] *= 1000
    for (keys, values), (exact_keys, exact_values) in zip(stored(given, "int8"), given, strict=True):
        key_step = exact_keys.abs().amax(1, keepdim=True) / 127
        value_step = exact_values.abs().amax(2, keepdim=True) / 127
        assert ((keys - exact_keys).abs() <= 0.501 * key_step).all()
        assert ((values - exact_values).abs() <= 0.501 * value_step).all()


def test_int8_takes_half_the_bytes_and_zeros_stay_zeros() -> None:
    given = [(torch.randn(8, 128, 64), torch.randn(8, 128, 64))]
    whole = sum(tensor.nbytes for tensor in encode(given, "float16").values())
    small = sum(tensor.nbytes for tensor in encode(given, "int8").values())
    assert whole == 2 * 2 * 8 * 128 * 64 and small < 0.55 * whole
    zeros = [(torch.zeros(2, NUM_TOKENS, 4), torch.zeros(2, NUM_TOKENS, 4))]
    assert all(not part.any() for part in stored(zeros, "int8")[0])


def test_numbers_beyond_float16_are_refused_and_int8_holds_them() -> None:
    given = layers(scale=1e6)
    with pytest.raises(ValueError, match="65,504.*--number_format int8"):
        encode(given, "float16")
    found, wanted = stored(given, "int8")[0][0], given[0][0]
    assert (found - wanted).abs().max() < 0.01 * wanted.abs().max()


@pytest.mark.parametrize("number_format", ["float16", "int8"])
def test_a_document_without_tokens_is_stored_too(number_format: str) -> None:
    given = [(torch.zeros(2, 0, 4), torch.zeros(2, 0, 6))]
    (keys, values), = decode(encode(given, number_format), [LayerShape(2, 4, 6)], 0, CPU)
    assert keys.shape == (2, 0, 4) and values.shape == (2, 0, 6)


def test_another_number_of_tokens_is_refused() -> None:
    for number_format in ("float16", "int8"):
        tensors = encode(layers(), number_format)
        with pytest.raises(ValueError, match="for a document of 8 tokens"):
            decode(tensors, [LayerShape.of(layer) for layer in layers()], 8, CPU)
