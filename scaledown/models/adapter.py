"""peft's LoRA with lean arithmetic: the same weights, names and merging, fewer passes over memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.arithmetic import add_low_rank, linear


class AdaptedLinear(Linear):
    """A frozen linear map and its low-rank change, which is added in place."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., D) to (..., E)."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = linear(x, self.base_layer.weight, self.base_layer.bias)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            result = add_low_rank(result, self.lora_dropout[name](x), self.lora_A[name].weight,
                                  self.lora_B[name].weight, self.scaling[name])
        return result


def adapted(base: PreTrainedModel, config: ScaleDownConfig) -> PeftModel:
    """``base`` frozen, with LoRA on all its linear layers (paper, table 7)."""
    lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout,
                      target_modules="all-linear", task_type="CAUSAL_LM")
    if getattr(base, "hf_quantizer", None) is None:
        # A quantised layer is a Linear too, but peft must handle it with a class of its own.
        lora._register_custom_module({nn.Linear: AdaptedLinear})
    return get_peft_model(base, lora)


class Adapters:
    """The LoRA layers of a model, switched together.

    peft's own switch also walks over all parameters, milliseconds a call that baselines would be charged for.
    """

    def __init__(self, model: PeftModel) -> None:
        self._layers = [part for part in model.modules() if isinstance(part, LoraLayer)]

    @contextmanager
    def switched(self, is_on: bool) -> Iterator[None]:
        """Within it the adapters are on or off; off, the model is its base alone, as text baselines are measured."""
        before = [layer.disable_adapters for layer in self._layers]
        self._switch([not is_on] * len(before))
        try:
            yield
        finally:
            self._switch(before)

    def version(self) -> int:
        """A number that changes whenever one of their weights does."""
        return sum(weight._version for layer in self._layers for weight in layer.parameters())

    def _switch(self, are_off: list[bool]) -> None:
        for layer, is_off in zip(self._layers, are_off, strict=True):
            layer._disable_adapters = is_off

