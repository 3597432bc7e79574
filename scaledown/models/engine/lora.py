"""LoRA (Hu et al., arXiv:2106.09685) on all linear layers of a frozen model, by peft."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel


def causal_lm_with_adapter(model: PreTrainedModel, rank: int, alpha: float, dropout: float) -> PeftModel:
    """Return a causal LM, frozen, with a new adapter.

    Args:
        model: the causal LM.
        rank: of the change of each weight.
        alpha: the change is scaled by ``alpha / rank``.
        dropout: before the adapter, in training.
    """
    with _no_known_warnings():
        adapted = get_peft_model(model, _settings(model, rank, alpha, dropout, "CAUSAL_LM"))
    _leave_casts_to_autocast(adapted)
    return adapted


def add_adapter(model: PreTrainedModel, rank: int, alpha: float, dropout: float) -> None:
    """Freeze ``model`` (one without a head) and add a new adapter to its layers; arguments as above."""
    with _no_known_warnings():
        inject_adapter_in_model(_settings(model, rank, alpha, dropout, None), model)
    _leave_casts_to_autocast(model)

    # Like all that is trained, it is held in float32.
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _leave_casts_to_autocast(model: nn.Module) -> None:
    """Let the adapters take their input in its own number format.

    peft would cast it to the adapter's float32, and autocast back to the number format of the arithmetic: two copies of
    every layer's input, one of which is kept for the gradient.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False


def _settings(model: PreTrainedModel, rank: int, alpha: float, dropout: float, task: str | None) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear",
                      exclude_modules=_not_plainly_linear(model) or None, task_type=task)


@contextmanager
def _no_known_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # peft uses a deprecated name of transformers.
        warnings.simplefilter("ignore", FutureWarning)
        # peft could also train the fused weights of experts; here only linear maps are trained.
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys", RuntimeWarning)
        # GPT-2 stores its weights transposed, which peft notices and handles.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
        yield


@torch.no_grad()
def _not_plainly_linear(model: PreTrainedModel) -> list[str]:
    """Return the names of linear layers that cannot have an adapter: they return more than a product, or their weights
    are read elsewhere."""
    names = []
    for name, module in model.named_modules():
        # Routers of some mixtures of experts are linear layers that also choose experts.
        is_family_own = isinstance(module, nn.Linear) and type(module).__module__.startswith("transformers.models.")
        if is_family_own and not isinstance(module(module.weight[:1]), Tensor):
            names.append(name)

        # State-space layers (A_log is how fast their state decays) pass all weights but the first map's to kernels.
        if hasattr(module, "A_log"):
            for child_name, child in module.named_children():
                if isinstance(child, nn.Linear) and not child_name.startswith("in_proj"):
                    names.append(f"{name}.{child_name}")
    return names
