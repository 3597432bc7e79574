"""One attention function for every decoder: packed texts that share prefixes, or transformers' own batches.

It is registered with transformers (``AttentionInterface``) under the name :data:`NAME`, so a model's own layers, norms,
rotary embeddings and experts run unchanged. Called with a :class:`Packing` it reads packed texts; called without, as
``generate`` does, it is transformers' own SDPA. Extra arguments of ``model(...)`` reach it through the layers:
``packing``, ``keep``, and those that :mod:`scaledown.models.engine.last_layer` adds.

Shapes: H heads, G key heads (each serves H / G heads), W width of a head, N packed tokens; R padded texts of T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from scaledown.models.engine import varlen
from scaledown.models.engine.packing import KeysValues, Packing, Reads

NAME = "scaledown"


def prepare(device: torch.device) -> None:
    """Rule out cuDNN's attention for this process if ``device`` is CUDA's.

    It builds a plan for each new shape, which takes tens of milliseconds on GPUs from Hopper on; each token of an
    answer, and each padded batch, has a new shape. Torch's other kernels need no plan.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


class HaveKeysValues(Exception):
    """Raised with a layer's keys and values as soon as they are computed, if nothing else of it is wanted."""


def attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
              scaling: float | None = None, dropout: float = 0.0, sliding_window: int | None = None,
              softcap: float | None = None, s_aux: Tensor | None = None, packing: Packing | None = None,
              reads: Reads | None = None, keys_values: KeysValues | None = None, stop_at_keys: bool = False,
              keep: dict[int, KeysValues] | None = None, **settings: Any) -> tuple[Tensor, None]:
    """Attend as transformers' attention functions do.

    Args:
        module: the layer's attention, of which only the layer's number is read.
        query: (1, H, N, W); without a packing (B, H, T, W).
        key: (1, G, N, W).
        value: (1, G, N, W).
        attention_mask: of a batch without a packing.
        scaling: factor of the scores [1 / sqrt(W)].
        dropout: share of the weights that are dropped.
        sliding_window: how many positions back a token sees, itself included [all].
        softcap: bounds the scores to plus and minus this (Gemma 2).
        s_aux: (H,) sinks, which take their share of each token's weights (gpt-oss).
        packing: which of the N tokens belong together.
        reads: the tokens that ``query`` is of [all N].
        keys_values: of all N tokens, if ``query`` is of ``reads`` alone.
        stop_at_keys: only the keys and values are wanted; :class:`HaveKeysValues` returns them.
        keep: gets the keys and values (R, G, T, W) of the prefixes, by layer.

    Returns:
        (1, N, H, W), and None instead of the weights.
    """
    if keep is not None and packing is not None:
        own = (key[0].transpose(0, 1), value[0].transpose(0, 1))          # (N, G, W)
        keep[module.layer_idx] = _prefix_keys_values(packing, *own, module.layer_idx)
    if stop_at_keys:
        raise HaveKeysValues(key, value)
    if packing is None:
        return _attend_batch(module, query, key, value, attention_mask, scaling, dropout, softcap, s_aux,
                             sliding_window=sliding_window, **settings), None

    # transformers has heads before tokens, a packing tokens before heads.
    key, value = keys_values or (key, value)
    query, key, value = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)    # (N, H or G, W)

    score = {"scaling": scaling, "dropout": dropout, "softcap": softcap, "sinks": s_aux}
    if varlen.suits(query, value, packing, reads, **score):
        return varlen.attend(query, key, value, packing, reads, module.layer_idx, scaling, sliding_window)[None], None

    dtype = query.dtype
    if _trains_slowly_in(query):
        query, key, value = query.float(), key.float(), value.float()

    of_prefixes = _prefix_keys_values(packing, key, value, module.layer_idx)                          # (R, G, T1, W)
    of_suffixes = (key[packing.num_prefix_tokens:], value[packing.num_prefix_tokens:])
    states = _attend_padded(query, of_prefixes, of_suffixes, packing, reads, sliding_window, score)   # (N, H, W)
    return states[None].to(dtype), None


def _trains_slowly_in(query: Tensor) -> bool:
    """Return whether attention trains faster in float32 than in the number format of ``query``.

    On a CPU SDPA's backward pass in half precision takes three times as long (64 against 22 ms for 20 texts of 127
    tokens with 9 heads of 64, on two cores with instructions for bfloat16). Its forward pass alone is faster.
    """
    is_trained = torch.is_grad_enabled() and query.requires_grad
    return is_trained and query.device.type == "cpu" and query.element_size() == 2


def _attend_batch(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
                  scaling: float | None, dropout: float, softcap: float | None, sinks: Tensor | None,
                  **settings: Any) -> Tensor:
    """Attend in a padded batch, as ``generate`` has it: (B, H, T, W) queries to (B, T, H, W)."""
    uses_sdpa = softcap is None and sinks is None
    if uses_sdpa and (query.shape[2] > 1 or mask is None):
        states, _ = sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling,
                                           **settings)
        return states

    if uses_sdpa:
        # A step of decoding. transformers would repeat every key for the heads that share it, which takes three times
        # as long on a CPU (160 against 49 microseconds for 4 answers of 240 tokens, 8 heads of 2 key heads).
        mask = mask.expand(-1, -1, query.shape[1] // key.shape[1], -1)
    states = _attend(query, key, value, mask, scaling, dropout, softcap, sinks)           # (B, H, T, W)
    return states.transpose(1, 2).contiguous()


def _prefix_keys_values(packing: Packing, key: Tensor, value: Tensor, layer: int) -> KeysValues:
    """Return the keys and values (R, G, T1, W) of the prefixes: of this pass, or those that are stored."""
    if packing.stored is not None:
        return packing.stored_of(layer, key, value)
    num_tokens = packing.num_prefix_tokens
    return packing.prefixes.pad(key[:num_tokens]), packing.prefixes.pad(value[:num_tokens])


def _attend_padded(query: Tensor, of_prefixes: KeysValues, of_suffixes: KeysValues, packing: Packing,
                   reads: Reads | None, window: int | None, score: dict[str, Any]) -> Tensor:
    """Attend in two padded batches: each prefix to itself, then each suffix to its prefix and itself.

    There never is a mask of all N x N tokens. Returns (N, H, W), for ``reads`` (M, H, W).
    """
    prefixes, suffixes = (packing.prefixes, packing.suffixes) if reads is None else (reads.prefixes, reads.suffixes)
    num_prefix_queries = prefixes.num_tokens if packing.stored is None else 0

    # SDPA takes a mask of numbers for stacked heads (see _attend); the formula takes True and False.
    uses_sdpa = score["softcap"] is None and score["sinks"] is None
    dtype, repeats = (query.dtype, query.shape[1] // of_prefixes[0].shape[1]) if uses_sdpa else (None, 1)
    states = [query.new_zeros(0, query.shape[1], of_prefixes[1].shape[-1])]

    if num_prefix_queries:
        # Padding is on the right, behind all tokens: plain causality hides it, and the fastest kernel applies.
        is_plainly_causal = reads is None and (window is None or packing.prefixes.positions.shape[1] <= window)
        mask = None if is_plainly_causal else packing.prefix_mask(prefixes, window, dtype, repeats)
        padded = _attend(prefixes.pad(query[:num_prefix_queries]), *of_prefixes, mask, **score)       # (R, H, T, W)
        states.append(prefixes.pack(padded))

    if suffixes.num_tokens:
        # A suffix's keys: those of its prefix, then its own.
        keys_values = []
        for before, own in zip(of_prefixes, of_suffixes, strict=True):
            keys_values.append(torch.cat([before.index_select(0, packing.prefix), packing.suffixes.pad(own)], dim=2))
        mask = packing.suffix_mask(suffixes, window, dtype, repeats)
        padded = _attend(suffixes.pad(query[num_prefix_queries:]), *keys_values, mask, **score)       # (P, H, T, W)
        states.append(suffixes.pack(padded))
    return torch.cat(states)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, dropout: float,
            softcap: float | None, sinks: Tensor | None) -> Tensor:
    """Attend from queries (R, H, T, W) to keys and values (R, G, S, W): (R, H, T, W); causal if there is no mask."""
    if softcap is not None or sinks is not None:
        return _attend_by_formula(query, key, value, mask, scaling, dropout, softcap, sinks)

    settings = {"scale": scaling, "dropout_p": dropout}
    if mask is None:
        shares_keys = query.shape[1] > key.shape[1]
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=shares_keys, **settings)

    # The H / G heads that share a key head are stacked as one long text, so that no key is repeated.
    stacked = query.unflatten(1, (key.shape[1], -1)).flatten(2, 3)        # (R, G, H / G * T, W)
    states = F.scaled_dot_product_attention(stacked, key, value, attn_mask=mask, **settings)
    return states.unflatten(2, (-1, query.shape[2])).flatten(1, 2)        # (R, H, T, W)


def _attend_by_formula(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None,
                       dropout: float, softcap: float | None, sinks: Tensor | None) -> Tensor:
    """Attend as :func:`_attend`, with softcaps and sinks, which SDPA does not know."""
    num_groups = query.shape[1] // key.shape[1]
    scores = query.unflatten(1, (-1, num_groups)) @ key[:, :, None].transpose(-1, -2)    # (R, G, H / G, T, S)
    scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)

    if mask is None:
        # The queries are the last of as many or more tokens.
        num_queries, num_keys = scores.shape[-2:]
        is_seen = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device).tril(num_keys - num_queries)
    else:
        is_seen = mask[:, :, None]                                        # (R, 1, 1, T, S)
    scores = scores.masked_fill(~is_seen, torch.finfo(scores.dtype).min)

    if sinks is not None:
        # A sink is one more score for every token: it takes its share of the weights, and is dropped.
        sink = sinks.to(scores.dtype).reshape(1, -1, num_groups, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sink], dim=-1)                        # (R, G, H / G, T, S + 1)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    if sinks is not None:
        weights = weights[..., :-1]
    return (F.dropout(weights, dropout) @ value[:, :, None]).flatten(1, 2)


def batch_mask(attention_mask: Tensor | None = None, allow_is_causal_skip: bool = True,
               **settings: Any) -> Tensor | None:
    """Return transformers' mask of a padded batch, (B, 1, T, S), or None if nothing is hidden.

    transformers looks into the padding mask whether anything is hidden, for which the host would wait for a GPU. There
    a batch that comes with a padding mask always gets a mask; one without padding comes without.
    """
    may_wait = attention_mask is None or attention_mask.device.type != "cuda"
    return sdpa_mask(attention_mask=attention_mask, allow_is_causal_skip=allow_is_causal_skip and may_wait, **settings)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, batch_mask)
