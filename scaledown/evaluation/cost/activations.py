"""Bytes of the activations of a stack of layers in training, and of the work on one layer, computed from its sizes.

Per token and layer these are kept for the backward pass: what the norms read (and, if they are trained, what they
scaled), what the linear maps read, the queries, keys, values and output of attention, and the MLP's gate. How often and
in which format depends on what is trained:

- maps whose weights are all trained keep their input. In bfloat16, each map keeps a rounded copy of its own;
- maps with LoRA keep the input of the adapter, and with dropout also what was dropped, each map for itself.

The norms of most families compute in float32. The last layer of a decoder is computed for few tokens (the memory's, or
the answers'), of all others it has keys and values. This is exact for Llama and the families built like it, and near
enough for others.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from scaledown.models.engine.decoder import text_config

FLOAT_BYTES = 4
GATED_WIDTHS, PLAIN_WIDTHS = 3, 1
"""What an MLP keeps beside its maps' inputs, in its inner width: gate, its activation and the other factor; or one."""
NOISE_BYTES = {"cuda": 1}
"""Of a number that dropout may drop; other devices than these keep the factors as numbers."""


@dataclass(frozen=True)
class Read:
    """The tokens of a pass.

    Attributes:
        tokens: N, which the layers read.
        keys: those that attention looks at, text by text: a prefix is looked at by each text that continues it.
        wanted: M, for which the last layer is computed; an encoder's is computed for all.
        pairs: of a query and a key, for which an attention mask has a number; 0 if there is no mask.
    """

    tokens: float
    keys: float
    wanted: float
    pairs: float = 0.0


@dataclass(frozen=True)
class Layers:
    """A stack of equal layers, as trained: sizes of the mean layer, by token.

    Attributes:
        width: D, of the states between the layers.
        queries: width of all heads' queries together; ``keys`` of all heads' keys, or values.
        groups: heads that share a key head; the mask of texts that continue a prefix has a line for each.
        inner: width in which the MLP multiplies.
        mlp_widths: how many numbers of this width the MLP keeps beside its maps' inputs.
        norms: widths of the norms, summed; each is kept ``norm_copies`` times.
        inputs: widths of the linear maps' inputs, summed, and ``distinct_inputs`` with those of several maps once.
        weights: of all its matrices; ``largest`` of the largest one.
        adapters: widths of the adapters' inner states, summed; 0 if all weights are trained.
        dropout: before the adapters.
        value_bytes: of the arithmetic; ``state_bytes`` of the states between the layers, ``attention_bytes`` in
            attention, which trains in float32 on a CPU.
        is_encoder: computes its last layer for all tokens.
    """

    number: int
    width: int
    queries: int
    keys: int
    heads: int
    groups: int
    inner: float
    mlp_widths: int
    norms: float
    norm_copies: int
    inputs: float
    distinct_inputs: float
    weights: float
    largest: int
    adapters: int
    dropout: float
    value_bytes: int
    state_bytes: int
    attention_bytes: int
    noise_bytes: int
    is_encoder: bool = False

    def kept(self, read: Read, twice: bool) -> float:
        """Return the bytes that stay between the passes; if activations are computed ``twice``, of inputs alone."""
        whole = self.number if self.is_encoder else self.number - 1
        of_layer = read.tokens * self.width * self.state_bytes if twice else self.of_layer(read)
        return whole * of_layer + self.of_last(read) + read.pairs * FLOAT_BYTES * self.masks

    def of_layer(self, read: Read) -> float:
        """Return the bytes that one layer keeps, which with checkpointing exist for one layer at a time."""
        in_float, shared = self.attention_bytes == FLOAT_BYTES, 0.0
        if read.pairs and not self.is_encoder:
            # Prefixes are views of all tokens' queries, keys and values, beside the copies of those who continue them.
            # In bfloat16 queries and keys are rounded, which copies the prefixes' alone.
            shared = read.tokens * self.attention_bytes * (self.queries + 2 * self.keys if in_float else self.keys)
        # Each layer rounds the mask that all share.
        mask = 0.0 if in_float else read.pairs * self.groups * self.attention_bytes
        return self._of_layer(read.tokens, read.keys) + shared + mask

    def of_last(self, read: Read) -> float:
        """Return the bytes of a decoder's last layer: for keys and values of all tokens, and for the wanted ones."""
        if self.is_encoder:
            return 0.0
        # A norm of all tokens, which the maps to keys and values read.
        before = self.width * self.norm_copies * FLOAT_BYTES + self._of_maps(2 * self.width, self.width)
        keys = read.keys * 2 * self.keys * self.attention_bytes
        return read.tokens * before + keys + self._of_layer(read.wanted, 0)

    def backward_work(self, read: Read) -> float:
        """Return the bytes in use while the gradients of one layer are computed, beside what it keeps.

        That is most in its MLP: the gradients of its inner states, less the inputs that are no longer needed; and the
        gradient of its largest matrix, or a frozen one of 4 or 8 bits in full.
        """
        of_tokens = read.tokens * (self.inner * 2 * self.value_bytes + 2 * self.width * FLOAT_BYTES)
        return of_tokens + self.largest * (self.value_bytes if self.adapters else FLOAT_BYTES)

    def forward_work(self, read: Read) -> float:
        """Return the bytes in use while one layer is computed without gradients."""
        # Three inner states at a time.
        states = 2 * (self.state_bytes + FLOAT_BYTES) * self.width
        return read.tokens * (self.inner * 3 * self.value_bytes + states) + read.keys * 2 * self.keys * self.value_bytes

    @property
    def masks(self) -> int:
        """Return how many numbers the masks that all layers share have for a pair: encoders have two of them."""
        return 2 if self.is_encoder else self.groups

    def _of_layer(self, tokens: float, keys: float) -> float:
        """Return the bytes that a layer keeps of ``tokens``, which look at ``keys``."""
        attention = tokens * (2 * self.queries * self.attention_bytes + self.heads * FLOAT_BYTES)
        attention += keys * 2 * self.keys * self.attention_bytes
        mlp = tokens * self.inner * self.mlp_widths * self.value_bytes
        norms = self.norms * self.norm_copies * FLOAT_BYTES
        maps = self._of_maps(self.inputs, self.distinct_inputs) + self.adapters * self.value_bytes
        return tokens * (norms + maps) + attention + mlp

    def _of_maps(self, inputs: float, distinct_inputs: float) -> float:
        """Return the bytes that linear maps with inputs of these widths keep of a token."""
        if self.adapters and self.dropout:
            return inputs * (self.value_bytes + self.noise_bytes)
        # What several maps read is one tensor, unless each rounds it.
        is_shared = self.value_bytes == FLOAT_BYTES or (self.adapters and self.state_bytes == self.value_bytes)
        return (distinct_inputs if is_shared else inputs) * self.value_bytes


@functools.lru_cache(maxsize=16)
def layers_of(body: PreTrainedModel, value_bytes: int, state_bytes: int, dropout: float, device_type: str,
              is_encoder: bool = False) -> Layers:
    """Read the sizes of ``body``, a model without its head, from its modules; it may be one without values."""
    config = text_config(body.config)
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    stack = _stack(body)

    number = len(stack)
    maps, adapters, norms, copies = _maps_and_norms(stack, head, heads, key_heads)
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    inner *= getattr(config, "num_experts_per_tok", None) or 1

    # What is left of the maps' outputs without attention's four and the MLP's last: one or two inner states.
    outputs = sum(height for _, height in maps) / number
    is_gated = outputs - (heads + 2 * key_heads) * head - 2 * config.hidden_size > 1.5 * inner
    sizes = [width * height for width, height in maps]
    return Layers(
        number=number, width=config.hidden_size, queries=heads * head, keys=key_heads * head, heads=heads,
        groups=heads // key_heads, inner=inner, mlp_widths=GATED_WIDTHS if is_gated else PLAIN_WIDTHS,
        norms=norms / number, norm_copies=copies, inputs=sum(width for width, _ in maps) / number,
        # Queries, keys and values read one tensor, and so do the maps into the MLP.
        distinct_inputs=2 * config.hidden_size + heads * head + inner,
        weights=sum(sizes) / number, largest=max(sizes, default=0), adapters=adapters // number, dropout=dropout,
        value_bytes=value_bytes, state_bytes=state_bytes,
        attention_bytes=FLOAT_BYTES if device_type == "cpu" and not is_encoder else value_bytes,
        noise_bytes=NOISE_BYTES.get(device_type, value_bytes),
        is_encoder=is_encoder)


def _maps_and_norms(stack: nn.ModuleList, head: int, heads: int,
                    key_heads: int) -> tuple[list[tuple[int, int]], int, float, int]:
    """Return the sizes of all linear maps, the summed ranks and widths of norms, and the copies that a norm keeps."""
    maps, adapters, norms, copies = [], 0, 0.0, 1
    for name, module in stack.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear) and "lora_" in name:
            # An adapter's first map is as wide as its rank; its input is that of the map beside it.
            adapters += module.out_features if "lora_A" in name else 0
        elif isinstance(module, nn.Linear | Conv1D):
            # transformers' Conv1D has no sizes but its weights', which lie the other way round.
            maps.append(tuple(weight.shape if isinstance(module, Conv1D) else weight.shape[::-1]))
        elif "Norm" in type(module).__name__ and weight is not None:
            # A norm of each head's queries or keys is applied to all heads.
            repeats = heads if "q_norm" in name else key_heads if "k_norm" in name else 1
            norms += weight.numel() * (repeats if weight.numel() == head else 1)
            # torch's own norms keep their input alone.
            is_fused = isinstance(module, nn.LayerNorm | nn.RMSNorm)
            copies = 2 if weight.requires_grad and not is_fused else 1
    return maps, adapters, norms, copies


def _stack(body: PreTrainedModel) -> nn.ModuleList:
    """Return the layers of any family: its first list of modules."""
    for module in body.modules():
        if isinstance(module, nn.ModuleList):
            return module
    raise AssertionError("a model without layers")
