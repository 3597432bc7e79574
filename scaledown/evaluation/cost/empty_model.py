"""The model that a config describes, as training has it, with shapes and number formats but without values."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from scaledown.config import CAUSAL_LM, EMBEDDED, ENCODER, GENERATOR, NOTHING, ScaleDownConfig
from scaledown.evaluation.cost.known_shapes import config_of
from scaledown.evaluation.cost.shapes import generator_without_values
from scaledown.models.compressors.base import Compressor
from scaledown.models.compressors.embedded_encoder import embedded_encoder
from scaledown.models.compressors.n_layers import resolve_num_layers
from scaledown.models.compressors.no_compressor import NoCompressor
from scaledown.models.engine.decoder import keep_layers, sharing_weights, text_config
from scaledown.models.generator import Generator
from scaledown.models.loading import parameters
from scaledown.models.loading.build import compressor_of
from scaledown.models.loading.pretrained import compressor_model_name
from scaledown.settings import numbers_in

BYTES_IN_4_BITS = 1 / 2 + 1 / 64 + 4 / (64 * 256)
"""Of a weight: its 4 bits, 8 bits for the scale of each 64 weights, and 32 for each 256 of these scales (QLoRA)."""


@dataclass(frozen=True)
class EmptyModel:
    """A compressor and a generator on the meta device, each trained or frozen as in training.

    Attributes:
        config: with its number of layers resolved.
        dtype: of the generator's base and of the arithmetic.
    """

    config: ScaleDownConfig
    dtype: torch.dtype
    generator: Generator
    compressor: Compressor | NoCompressor

    @classmethod
    def of(cls, asked: ScaleDownConfig, dtype: torch.dtype) -> EmptyModel:
        """Build the model that is ``asked`` for: of its files only the configs are read.

        Raises:
            ValueError: for a model that is not found, or cannot be used.
        """
        # A base in 4 or 8 bits has the same modules.
        config, dtype, *modules = _built(dataclasses.replace(asked, load_in_4bit=False, load_in_8bit=False), dtype)
        bits = {"load_in_4bit": asked.load_in_4bit, "load_in_8bit": asked.load_in_8bit}
        return cls(dataclasses.replace(config, **bits), dtype, *modules)

    @functools.cached_property
    def frozen_bytes(self) -> float:
        """Return the bytes of the weights that training leaves as they are."""
        generator, total = _frozen(self.generator), 0.0
        quantised = self._quantised()
        for parameter in generator.values():
            total += quantised.get(id(parameter), parameter.nbytes)

        # Weights that the compressor shares with the generator count once; a base in 4 or 8 bits is loaded by itself.
        for key, parameter in _frozen(self.compressor).items():
            if key not in generator or quantised:
                total += parameter.nbytes
        return total

    @functools.cached_property
    def trained(self) -> list[nn.Parameter]:
        """Return what training changes."""
        both = (*self.generator.parameters(), *self.compressor.parameters())
        return [parameter for parameter in both if parameter.requires_grad]

    @functools.cached_property
    def groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups, as :meth:`ScaleDownModel.parameter_groups` makes them; rates are left out."""
        return (parameters.groups("generator", self.generator, 0.0, 0.0)
                + parameters.groups("compressor", self.compressor, 0.0, 0.0))

    def _quantised(self) -> dict[int, float]:
        """Return the bytes of each of the base's matrices that is held in 4 or 8 bits: all but the output head."""
        config, sizes = self.config, {}
        if not (config.load_in_4bit or config.load_in_8bit):
            return sizes

        head = self.generator.base.get_output_embeddings()
        for module in self.generator.base.modules():
            if isinstance(module, nn.Linear) and module is not head and not module.weight.requires_grad:
                # In 8 bits each row has a scale of its own.
                in_8_bits = module.weight.numel() + 4 * module.out_features
                sizes[id(module.weight)] = module.weight.numel() * BYTES_IN_4_BITS if config.load_in_4bit else in_8_bits
        return sizes


@functools.lru_cache(maxsize=4)
def _built(config: ScaleDownConfig, dtype: torch.dtype) -> tuple[
        ScaleDownConfig, torch.dtype, Generator, Compressor | NoCompressor]:
    """Return the parts of an :class:`EmptyModel`; of a large model they take seconds, and many tables need the same."""
    with torch.device("meta"):
        base = generator_without_values(config_of(config.generator_model, config.generator_revision)).to(dtype)
        if config.reads_with == GENERATOR and config.layers is None:
            num_layers = resolve_num_layers(config.num_layers, base.config.num_hidden_layers)
            config = dataclasses.replace(config, num_layers=num_layers)
        # The compressor first: its layers are a copy of the generator's, before LoRA.
        compressor = compressor_of(config, _compressor_model(config, base.base_model), base.base_model)
        return config, dtype, Generator(config, base), compressor


def _frozen(module: nn.Module) -> dict[int, nn.Parameter]:
    return {id(parameter): parameter for parameter in module.parameters() if not parameter.requires_grad}


def _compressor_model(config: ScaleDownConfig, body: PreTrainedModel) -> PreTrainedModel:
    """Return what :func:`~scaledown.models.loading.pretrained.load_compressor_model` loads, without values."""
    if config.reads_with in (GENERATOR, NOTHING):
        return body

    name = compressor_model_name(config)
    if name == EMBEDDED and config.reads_with == ENCODER:
        return embedded_encoder(body)

    if config.compressor_lora_rank is not None and name == config.generator_model and config.reads_with == CAUSAL_LM:
        model = sharing_weights(body)
    else:
        # Whatever type the files have: it is loaded in float32.
        model = AutoModel.from_config(text_config(config_of(name, config.compressor_revision))).float()
    if config.layers:
        keep_layers(model, numbers_in(config.layers))
    return model
