"""The generator: a frozen causal LM with a LoRA adapter, reading memory embeddings among its tokens.

Its layers are transformers' own, run as the compressor's are: tokens packed without padding, attention by position, so
that neither padding nor neighbours change an answer.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.adapter import Adapters, adapted
from scaledown.models.arithmetic import linear, rms_norm
from scaledown.models.compressor import rows_like
from scaledown.models.decoder_layer import Places, block, keys_values
from scaledown.models.fixed_shapes import COMPILED_BY_SHAPE, rounded_prompts
from scaledown.models.head_loss import head_cross_entropy, head_divergence
from scaledown.models.key_values import KeyValueCache
from scaledown.models.processor import MEMORY
from scaledown.models.ragged import NEVER, Grid, filled, pad, slots

READOUT_SHARPNESS = 20.0
"""Logit of a memory embedding that points the way of a token's own: enough to be sure among 100,000 tokens."""
START_PAYS = 8
"""Prompts up to so many times as long as their constant start reuse it."""


@dataclass
class DecodingState:
    """What the prompts left behind: keys and values, and the logits (B, V) of each answer's first token.

    Attributes:
        lengths: (B,) prompt lengths on the device.
        with_adapter: whether LoRA was on for the prompt, and so is for the answer.
        num_prompt_tokens: prompt lengths in generator positions (tokens and memory embeddings).
        num_new_tokens: answer lengths with the token that ends them; filled in by decoding.
    """

    cache: KeyValueCache
    logits: Tensor
    lengths: Tensor
    with_adapter: bool
    num_prompt_tokens: list[int]
    num_new_tokens: list[int] = field(default_factory=list)


class Generator(nn.Module):
    """``base`` frozen, with LoRA on all its linear layers and a trainable row that separates documents."""

    def __init__(self, config: ScaleDownConfig, base: PreTrainedModel) -> None:
        super().__init__()
        self.separator_row = rows_like(base.get_input_embeddings().weight, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that is on its way out
            self.language_model = adapted(base, config)
        self._adapters = Adapters(self.language_model)
        self._starts: dict[bool, tuple[Any, KeyValueCache]] = {}
        self.gradient_checkpointing, self.rounded_on_any_device = False, False

    @property
    def rounds_shapes(self) -> bool:
        """Whether answering keeps to few shapes: on devices that compile a program for each."""
        return self.rounded_on_any_device or self.separator_row.device.type in COMPILED_BY_SHAPE

    @property
    def base(self) -> PreTrainedModel:
        """The causal LM, its linear layers wrapped by LoRA."""
        return self.language_model.get_base_model()

    @property
    def config(self) -> PretrainedConfig:
        """The base's own config."""
        return self.base.config

    def gradient_checkpointing_enable(self) -> None:
        """Compute the layers' activations twice in training, to keep few of them."""
        self.gradient_checkpointing = True

    def embed(self, ids: Tensor) -> Tensor:
        """The frozen token embeddings of ``ids`` (..., T): (..., T, D)."""
        return self.base.get_input_embeddings()(ids)

    def splice(self, ids: Tensor, memory: Tensor | None) -> Tensor:
        """Embeddings (..., T, D) of prompt ids (..., T), the placeholders filled from ``memory`` (P, L, D) in order."""
        tokens = self.embed(ids.clamp(min=0))
        if memory is None:
            return tokens
        rows = torch.cat([self.separator_row, memory.flatten(0, 1).to(self.separator_row.dtype)])
        is_memory = ids == MEMORY
        row = is_memory.flatten().cumsum(0).view_as(ids) * is_memory
        return torch.where((ids < 0)[..., None], F.embedding(row, rows).to(tokens.dtype), tokens)

    def answer_states(self, ids: Tensor, prompt_slots: Tensor, memory: Tensor | None, answer_index: Tensor) -> Tensor:
        """Final states (A, D) where an answer's tokens are predicted; the last layer is computed there alone.

        Args:
            ids: (B, T) prompts and answers with placeholders, padded on the right.
            prompt_slots: (N,) slots of the flattened (B * T) ids that hold a token.
            memory: (P, L, D) what fills the placeholders; None for prompts in full text.
            answer_index: (A,) which of the N tokens predict an answer token.
        """
        places, tokens = self._texts(ids, prompt_slots, memory)
        return self._read(tokens, places, answer_index)

    def teacher_states(self, ids: Tensor, prompt_slots: Tensor, answer_index: Tensor) -> Tensor:
        """As :meth:`answer_states` for prompts in full text, by the base alone: no adapter, nothing to learn."""
        with torch.no_grad(), self._adapters.switched(False):
            return self.answer_states(ids, prompt_slots, None, answer_index)

    def answer_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the answers' tokens ``targets`` (A,), predicted from final states (A, D)."""
        return head_cross_entropy(states, self.base.get_output_embeddings().weight, targets)

    def readout_loss(self, memory: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of ``targets`` (P, L), each predicted by the embedding of ``memory`` (P, L, D) there.

        How near the embedding is to the tokens' own, by their angle, is all that predicts: nothing is learnt for it.
        """
        table = self.base.get_input_embeddings().weight
        scale = READOUT_SHARPNESS / table.norm(dim=-1, dtype=torch.float32).mean()
        return head_cross_entropy(F.normalize(memory.float(), dim=-1).flatten(0, 1) * scale, table, targets.flatten())

    def divergence(self, states: Tensor, teacher: Tensor) -> Tensor:
        """Mean Kullback-Leibler divergence of what ``states`` (A, D) predict from what the teacher's (A, D) do."""
        return head_divergence(states, self.base.get_output_embeddings().weight, teacher)

    def prefill(self, prompts: list[list[int]], memory: Tensor | None, with_adapter: bool = True,
                start: Sequence[int] = ()) -> DecodingState:
        """Read prompts (ids with placeholders) and the memory (P, L, D) that fills them; None for text prompts.

        Args:
            start: ids that the prompts begin with, as a rule. What they leave behind is kept and reused while the
                weights stay as they are, if that pays and all of these prompts do begin so.
        """
        if self.rounds_shapes:
            return self._prefill_rounded(prompts, memory, with_adapter)
        num_start = len(start) if self._start_pays(prompts, start) else 0
        rests, device = [ids[num_start:] for ids in prompts], self.separator_row.device
        ids, lengths = (tensor.to(device) for tensor in pad(rests))
        prompt_slots = filled([len(rest) for rest in rests], ids.shape[1]).to(device)
        last = torch.tensor(list(itertools.accumulate(map(len, rests))), device=device) - 1
        with self._adapters.switched(with_adapter):
            cache = self._start_cache(start, with_adapter).repeated(len(prompts)) if num_start else KeyValueCache()
            places, tokens = self._texts(ids, prompt_slots, memory, num_start)
            logits = self._logits(self._read(tokens, places, last, cache))
        return DecodingState(cache, logits, lengths + num_start, with_adapter, [len(ids) for ids in prompts])

    def _prefill_rounded(self, prompts: list[list[int]], memory: Tensor | None, with_adapter: bool) -> DecodingState:
        """As :meth:`prefill`, with dummy texts behind the prompts and padding counted as text."""
        device, cache = self.separator_row.device, KeyValueCache(in_one_shape=True)
        ids, lengths, memory = rounded_prompts(prompts, memory)
        ids, lengths, all_slots = ids.to(device), lengths.to(device), torch.arange(ids.numel(), device=device)
        with self._adapters.switched(with_adapter):
            places, tokens = self._texts(ids, all_slots, memory)
            last = all_slots[::ids.shape[1]] + lengths - 1
            logits = self._logits(self._read(tokens, places, last, cache))
        return DecodingState(cache, logits, lengths, with_adapter, [len(ids) for ids in prompts])

    def _start_pays(self, prompts: list[list[int]], start: Sequence[int]) -> bool:
        """Behind keys that are there already attention needs a mask, which long prompts pay more for than they save."""
        start = list(start)
        return (0 < len(start) < min(map(len, prompts)) and max(map(len, prompts)) <= START_PAYS * len(start)
                and all(ids[:len(start)] == start for ids in prompts))

    def _start_cache(self, start: Sequence[int], with_adapter: bool) -> KeyValueCache:
        """Keys and values of ``start``; computed anew when a weight has changed."""
        device = self.separator_row.device
        made_for = (tuple(start), device, torch.is_autocast_enabled(device.type), self._adapters.version())
        known_for, cache = self._starts.get(with_adapter, (None, KeyValueCache()))
        if made_for != known_for:
            cache = KeyValueCache()
            places, tokens = self._texts(torch.tensor([list(start)], device=device),
                                         torch.arange(len(start), device=device), None)
            self._read(tokens, places, torch.zeros(1, dtype=torch.long, device=device), cache)
            self._starts[with_adapter] = (made_for, cache)
        return cache

    def decode(self, state: DecodingState, max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
        """Greedy answers' ids, without what ended them. ``state`` can be decoded again: its cache is set back."""
        tokens = torch.stack(list(self.steps(state, max_new_tokens, stop_ids)), dim=1)
        answers = [until(row, stop_ids) for row in tokens.tolist()]
        state.num_new_tokens = [min(len(answer) + 1, tokens.shape[1]) for answer in answers]
        return answers

    def steps(self, state: DecodingState, max_new_tokens: int, stop_ids: list[int]) -> Iterator[Tensor]:
        """The next token (B,) of every answer, step by step until all have ended; a row goes on past its own end."""
        num_prompts = len(state.num_prompt_tokens)
        prompt_slots = state.cache.length
        state.cache.reserve(max_new_tokens - 1)
        tokens = self._greedy(state, prompt_slots, max_new_tokens, torch.tensor(stop_ids, device=state.lengths.device))
        try:
            while True:
                # Entered anew for each step: whoever reads these tokens must find the adapters as they were.
                with self._adapters.switched(state.with_adapter):
                    token = next(tokens, None)
                if token is None:
                    return
                yield token[:num_prompts]
        finally:
            state.cache.length = prompt_slots

    def _greedy(self, state: DecodingState, prompt_slots: int, max_new_tokens: int, stops: Tensor) -> Iterator[Tensor]:
        index, is_token = slots(state.lengths, prompt_slots)
        new_positions = state.lengths[:, None] + torch.arange(max_new_tokens, device=index.device)
        key_positions = torch.cat([index.masked_fill(~is_token, NEVER), new_positions], dim=1)
        if state.cache.in_one_shape:
            num_slots = state.cache.num_slots  # not written yet: at later positions, so that causality hides it
            key_positions = F.pad(key_positions, (0, num_slots), value=NEVER)[:, :num_slots]
        rows = torch.arange(len(index), device=index.device)
        token = state.logits.argmax(-1)
        yield token
        has_ended = torch.isin(token, stops) | (rows >= len(state.num_prompt_tokens))
        for step in range(1, max_new_tokens):
            if has_ended.all():
                return
            embeddings, positions = self.embed(token), new_positions[:, step - 1:step]
            seen = key_positions if state.cache.in_one_shape else key_positions[:, :prompt_slots + step]
            places = Places(Grid(None, len(rows), 1), self._rotary(embeddings, positions.flatten()), positions, seen)
            token = self._logits(self._read(embeddings, places, rows, state.cache)).argmax(-1)
            yield token
            has_ended |= torch.isin(token, stops)

    def _texts(self, ids: Tensor, prompt_slots: Tensor, memory: Tensor | None,
               num_start: int = 0) -> tuple[Places, Tensor]:
        """Where the N tokens of padded ids (B, T) stand, behind ``num_start`` read before, and their embeddings."""
        tokens = self.splice(ids.flatten().index_select(0, prompt_slots), memory)
        key_positions = torch.arange(num_start + ids.shape[1], device=ids.device)[None]
        positions = key_positions[:, num_start:]
        places = Places(Grid.of(prompt_slots, *ids.shape),
                        self._rotary(tokens, prompt_slots % ids.shape[1] + num_start), positions,
                        key_positions if num_start else None)
        return places, tokens

    def _rotary(self, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self.base.base_model.rotary_emb(embeddings, positions[None])
        return cos[0], sin[0]

    def _read(self, hidden: Tensor, places: Places, at: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Final states (A, D) of the packed tokens ``at`` (A,), after all layers have read ``hidden`` (N, D)."""
        body = self.base.base_model
        for number, layer in enumerate(body.layers):
            wanted = at if number == len(body.layers) - 1 else None
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                hidden = checkpoint(_layer, layer, number, hidden, places, wanted, cache, use_reentrant=False)
            else:
                hidden = _layer(layer, number, hidden, places, wanted, cache)
        if cache is not None:
            cache.length += places.grid.size
        return rms_norm(body.norm, hidden)

    def _logits(self, states: Tensor) -> Tensor:
        head = self.base.get_output_embeddings()
        return linear(states, head.weight, head.bias).float()


def _layer(layer: nn.Module, number: int, hidden: Tensor, places: Places, at: Tensor | None,
           cache: KeyValueCache | None) -> Tensor:
    """A decoder layer over packed tokens (N, D); beyond keys and values only for ``at`` (A,), where that is given."""
    normed = rms_norm(layer.input_layernorm, hidden)
    keys, values = keys_values(layer.self_attn, normed, places)
    if cache is not None:
        keys, values = cache.extend(number, keys, values)
    if at is not None:
        hidden, normed, places = hidden.index_select(0, at), normed.index_select(0, at), places.only(at)
    return block(layer, hidden, normed, places, keys, values)


def until(ids: list[int], stop_ids: list[int]) -> list[int]:
    """``ids`` up to the first that ends an answer."""
    end = next((place for place, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]
