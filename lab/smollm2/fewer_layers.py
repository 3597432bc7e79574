"""A compressor of fewer layers that starts from a trained one: it keeps what its layers have been trained to do.

A pretrained model's middle layers change its states least, so a trained compressor without some of them is damaged, but
not lost, and goes on from there. Take a few away at a time: 30 layers, then 24, 20, 16, 12.
"""

from __future__ import annotations

import dataclasses

import torch

from scaledown.models.model import ScaleDownModel
from scaledown.settings import numbers_in

LAYERS = "body.layers."


def with_fewer_layers(model: ScaleDownModel, layers: str) -> ScaleDownModel:
    """Return a model like ``model`` whose compressor has only ``layers`` of the generator, as trained in ``model``.

    Args:
        model: with an llm compressor made of its generator, trained by LoRA.
        layers: numbers of the generator's layers, such as "0-11,18-29".

    Raises:
        ValueError: if ``model`` lacks one of the layers, or has a compressor of another kind.
    """
    config = model.config
    if config.compressor_type != "llm" or config.compressor_lora_rank is None:
        raise ValueError("--keep_layers takes layers away from an llm compressor that is trained by LoRA; this model "
                         f"has another one ({config.compressor_type})")
    kept = numbers_in(layers)
    had = numbers_in(config.layers) if config.layers else list(range(model.generator.config.num_hidden_layers))
    if missing := sorted(set(kept) - set(had)):
        raise ValueError(f"--keep_layers {layers}: the checkpoint's compressor has no layer {missing[0]}")

    smaller = ScaleDownModel(dataclasses.replace(config, layers=layers), device=model.device, dtype=model.dtype)
    smaller.generator.load_state_dict(model.generator.state_dict())
    weights = model.compressor.state_dict()
    with torch.no_grad():
        for name, weight in smaller.compressor.state_dict().items():
            if name.startswith(LAYERS):
                # body.layers.NUMBER.rest, with the number that the layer has in each of the two.
                number, rest = name.removeprefix(LAYERS).split(".", maxsplit=1)
                name = f"{LAYERS}{had.index(kept[int(number)])}.{rest}"
            weight.copy_(weights[name])
    smaller.progress = model.progress
    return smaller
