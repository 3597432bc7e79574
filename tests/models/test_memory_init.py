"""--memory_init: where memory starts, and that the MLP behind what reads as the generator does changes nothing."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from scaledown.config import EMBEDDED, ScaleDownConfig
from scaledown.models.compressors.base import memory_mlp, start_mlp_as_identity
from scaledown.models.model import ScaleDownModel

NARROW = 24


def build(**settings: object) -> ScaleDownModel:
    torch.manual_seed(0)
    return ScaleDownModel(ScaleDownConfig(**settings))


@pytest.mark.parametrize("kind", ["n_layers", "modernbert", "llm"])
def test_with_the_embedded_generator_rows_start_as_its_reply(kind: str) -> None:
    model = build(generator_model=EMBEDDED, compressor_type=kind, mlp_width=512)
    reply = model.processor.prompt.reply
    ids = torch.tensor((reply + [reply[-1]] * 8)[:8])
    assert model.config.memory_init == "reply"
    torch.testing.assert_close(model.compressor.memory_rows.detach(), model.generator.embed(ids))


@pytest.mark.parametrize("kind", ["modernbert", "llm"])
def test_the_memory_is_at_first_what_the_layers_made_of_it(kind: str) -> None:
    model = build(generator_model=EMBEDDED, compressor_type=kind, mlp_width=512)
    with torch.no_grad():
        found = model.compress(["Where does Tom live?"], [["Tom lives in Rome."]]).pairs()
        model.compressor.mlp = nn.Identity()
        layers = model.compress(["Where does Tom live?"], [["Tom lives in Rome."]]).pairs()
    assert nn.functional.cosine_similarity(found, layers, dim=-1).min() > 0.95


def test_an_mlp_no_wider_than_it_must_be_is_the_identity() -> None:
    mlp = memory_mlp(ScaleDownConfig(mlp_width=2 * NARROW), NARROW, NARROW)
    start_mlp_as_identity(mlp)
    states = torch.randn(5, NARROW)
    torch.testing.assert_close(mlp(states), states)


def test_a_narrower_mlp_is_refused() -> None:
    with pytest.raises(ValueError, match="--mlp_width 255: .* at least 256; .* --memory_init tokens"):
        build(generator_model=EMBEDDED, compressor_type="modernbert", mlp_width=255)
    model = build(generator_model=EMBEDDED, compressor_type="modernbert", mlp_width=255, memory_init="tokens")
    assert model.config.memory_init == "tokens"


def test_with_another_generator_rows_start_like_tokens(tmp_path) -> None:
    folder = tiny.generator_folder(tmp_path)
    assert build(generator_model=folder).config.memory_init == "tokens"
    model = build(generator_model=folder, memory_init="reply")
    reply = torch.tensor(model.processor.prompt.reply[:1])
    torch.testing.assert_close(model.compressor.memory_rows[:1].detach(), model.generator.embed(reply))


@pytest.mark.parametrize("compressor_type", ["modernbert", "llm"])
def test_what_is_made_of_any_generator_may_start_as_its_reply(tmp_path, compressor_type) -> None:
    folder = tiny.generator_folder(tmp_path)
    made_of = EMBEDDED if compressor_type == "modernbert" else folder
    model = build(generator_model=folder, compressor_type=compressor_type, compressor_model=made_of,
                  memory_init="reply", mlp_width=256)
    reply = torch.tensor(model.processor.prompt.reply[:1])
    torch.testing.assert_close(model.compressor.memory_rows[:1].detach(), model.generator.embed(reply))


@pytest.mark.parametrize("settings", [{"generator_model": "some/model", "compressor_type": "llm"},
                                      {"generator_model": "some/model", "compressor_type": "llm",
                                       "compressor_model": EMBEDDED},
                                      {"generator_model": EMBEDDED, "compressor_type": "modernbert",
                                       "compressor_model": "some/encoder"}])
def test_a_compressor_that_is_not_the_generators_cannot_start_as_its_reply(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="--memory_init reply belongs to"):
        ScaleDownConfig(**settings, memory_init="reply")
    ScaleDownConfig(**settings)
