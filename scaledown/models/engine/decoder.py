"""A decoder of transformers as ScaleDown uses it: any family, tested for what it can do instead of known by name."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from scaledown.models.engine import attention, last_layer
from scaledown.models.engine.packing import KeysValues, Packing, Reads

PACKED_LAYERS = ("full_attention", "sliding_attention")
"""Kinds of layers, as transformers names them, whose attention depends on positions alone."""
FINAL_NORMS = ("norm", "final_layer_norm", "final_layernorm", "ln_f")
"""Names that families have for the norm after their last layer."""


def packing_fault(body: PreTrainedModel) -> str | None:
    """Return why packed texts cannot be read by ``body`` (a decoder without its head), or None if they can."""
    # First what the config tells.
    config = body.config
    kinds = set(getattr(config, "layer_types", None) or ("full_attention",))
    if config.is_encoder_decoder:
        return "it is an encoder-decoder"
    if others := sorted(kinds - set(PACKED_LAYERS)):
        return f"it keeps a state beside attention, or attends otherwise ({', '.join(others)})"
    if fault := _looks_up_tokens(config):
        return fault

    # Then what only the model itself tells.
    if not getattr(body, "_supports_attention_backend", False):
        return "its attention does not go through transformers' AttentionInterface"
    if not isinstance(getattr(body, "layers", None), nn.ModuleList) or _final_norm(body) is None:
        return "it has no list of layers with a norm after it"
    if not _passes_settings_on(body):
        return "its layers do not pass extra arguments on to their attention"
    return None


def embedding_fault(model: PreTrainedModel) -> str | None:
    """Return why ``model`` (a causal LM) cannot answer from embeddings, or None if it can."""
    if "inputs_embeds" not in inspect.signature(model.prepare_inputs_for_generation).parameters:
        return "transformers lets it answer from token ids alone, not from embeddings"
    if model.base_model is model:
        return "transformers does not name the part of it that is the decoder"
    return _looks_up_tokens(model.config)


def _looks_up_tokens(config: PretrainedConfig) -> str | None:
    if getattr(config, "hidden_size_per_layer_input", None):
        return "its layers look up each token by its id, which memory embeddings have not"
    return None


@torch.no_grad()
def _passes_settings_on(body: PreTrainedModel) -> bool:
    """Return whether an extra argument reaches the attention: one that stops the first layer at its keys."""
    register(body)
    table = body.get_input_embeddings().weight
    embedding = table.new_zeros(1, 1, table.shape[1])                     # (1, 1, D)
    no_mask = table.new_zeros(1, 1, 1, 1)

    try:
        body(inputs_embeds=embedding, attention_mask=no_mask, use_cache=False, stop_at_keys=True)
    except attention.HaveKeysValues:
        return True
    except TypeError:  # a model whose layers take no extra arguments
        return False
    return False


def register(model: PreTrainedModel) -> None:
    """Let ``model`` attend by :func:`scaledown.models.engine.attention.attention`, packed texts and batches alike."""
    model.set_attn_implementation(attention.NAME)


def read(body: PreTrainedModel, embeddings: Tensor, packing: Packing, reads: Reads | None,
         keep: dict[int, KeysValues] | None = None) -> Tensor:
    """Run all layers over packed tokens and return the final states (M, D) of those that ``reads`` names.

    Args:
        body: a decoder without its head.
        embeddings: (N, D) of the packed tokens.
        packing: which of them belong together.
        reads: the wanted tokens; if None, the result means nothing and only ``keep`` is wanted.
        keep: gets the keys and values (R, G, T, W) of the prefixes, by layer.
    """
    # transformers takes a mask of four dimensions as it is. For None it would build one of N x N tokens, which our
    # attention ignores.
    no_mask = embeddings.new_zeros(1, 1, 1, 1)
    settings = {} if keep is None else {"keep": keep}

    with last_layer.only(body.layers, reads):
        # The packed tokens are one text to the model: (1, N, D).
        output = body(inputs_embeds=embeddings[None], position_ids=packing.position[None], attention_mask=no_mask,
                      packing=packing, use_cache=False, **settings)
    return output.last_hidden_state[0]                                    # (M, D)


def copied_layers(body: PreTrainedModel, numbers: Sequence[int]) -> PreTrainedModel:
    """Return a copy of the layers ``numbers`` of a decoder, as a decoder without embeddings and final norm.

    The other weights are never copied, however large the model is.
    """
    # deepcopy takes objects in its memo for copied already: all that is left out becomes one Identity.
    left_out = nn.Identity()
    memo = {id(layer): left_out for number, layer in enumerate(body.layers) if number not in numbers}
    memo[id(body.get_input_embeddings())] = left_out
    memo[id(getattr(body, _final_norm(body)))] = left_out
    cut = copy.deepcopy(body, memo)

    keep_layers(cut, numbers)
    return cut


def keep_layers(body: PreTrainedModel, numbers: Sequence[int]) -> None:
    """Remove all layers of a decoder but ``numbers``, counted from 0 in rising order."""
    body.layers = nn.ModuleList(body.layers[number] for number in numbers)
    # Attention keeps keys and values by its layer's number, and the config names the layers that there are.
    for number, layer in enumerate(body.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number

    body.config.num_hidden_layers = len(numbers)
    if (kinds := getattr(body.config, "layer_types", None)) is not None:
        body.config.layer_types = [kinds[number] for number in numbers]


def sharing_weights(body: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a decoder whose modules are its own and whose weights are those of ``body``."""
    # deepcopy takes objects in its memo for copied already.
    return copy.deepcopy(body, {id(weight): weight for weight in body.parameters()})


def checkpoint_activations(body: PreTrainedModel) -> None:
    """Compute the layers' activations twice in training, to keep few; the last layer has few and keeps them."""
    body.activation_checkpointing_enable({"use_reentrant": False})
    # It also asks a gradient of the frozen embeddings. Only reentrant checkpointing needs that, and a compiled step
    # cannot have it.
    body.disable_input_require_grads()
    body.layers[-1].gradient_checkpointing = False


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """Return the config of the language model inside a multimodal one, or ``config`` itself."""
    text = config.get_text_config(decoder=True)
    if text is config:
        return config

    text = copy.deepcopy(text)
    # Whether output head and token embeddings are tied is a setting of the whole model.
    text.tie_word_embeddings = config.tie_word_embeddings
    return text


def _final_norm(body: nn.Module) -> str | None:
    return next((name for name in FINAL_NORMS if isinstance(getattr(body, name, None), nn.Module)), None)


@torch.no_grad()
def token_embeddings(model: PreTrainedModel) -> Tensor:
    """Return the embeddings (V, D) of all tokens as the layers of ``model`` get them; Gemma 3, for one, scales them."""
    embedding = model.get_input_embeddings()
    if type(embedding) is nn.Embedding:
        return embedding.weight.detach()

    # An embedding of the family's own kind is applied to all ids.
    return embedding(torch.arange(len(embedding.weight), device=embedding.weight.device))


def head_is_table(body: PreTrainedModel) -> bool:
    """Return whether a causal LM with the decoder ``body`` has the table of its embeddings as output head, unscaled.

    Gemma scales the embeddings and bounds the logits, Granite and Cohere scale the logits.
    """
    config = body.config
    changes = (getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None),
               getattr(config, "final_logit_softcapping", None))
    is_plain = type(body.get_input_embeddings()) is nn.Embedding and not any(changes)
    return is_plain and config.tie_word_embeddings


def rows_like(table: Tensor, num_rows: int) -> nn.Parameter:
    """Return new embeddings (num_rows, D) drawn with the mean and spread of token embeddings ``table`` (V, D).

    At another scale they would be noise to layers that have only ever read tokens.
    """
    table = table.detach().float()
    std, mean = torch.std_mean(table, dim=0)                              # (D,), (D,)

    # Drawn on the CPU, so that a seed gives the same on every device.
    noise = torch.randn(num_rows, table.shape[1]).to(table.device)
    return nn.Parameter(mean + std * noise)
