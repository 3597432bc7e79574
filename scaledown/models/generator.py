"""The generator: a frozen causal LM with a LoRA adapter, reading memory embeddings among its tokens.

Texts are padded on the right and attention goes by position, so neither padding nor neighbours change an answer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.compressor import rows_like
from scaledown.models.head_loss import head_cross_entropy
from scaledown.models.processor import MEMORY
from scaledown.models.ragged import NEVER, pad, slots, visible

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

    cache: DynamicCache
    logits: Tensor
    lengths: Tensor
    with_adapter: bool
    num_prompt_tokens: list[int]
    num_new_tokens: list[int] = field(default_factory=list)


class Generator(nn.Module):
    """``base`` frozen, with LoRA on all its linear layers and a trainable row that separates documents."""

    def __init__(self, config: ScaleDownConfig, base: PreTrainedModel) -> None:
        super().__init__()
        lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout,
                          target_modules="all-linear", task_type="CAUSAL_LM")
        self.separator_row = rows_like(base.get_input_embeddings().weight, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that is on its way out
            self.language_model = get_peft_model(base, lora)
        self._adapters = [part for part in self.language_model.modules() if isinstance(part, LoraLayer)]
        self._starts: dict[bool, tuple[Any, Any]] = {}

    @property
    def base(self) -> PreTrainedModel:
        """The causal LM, its linear layers wrapped by LoRA."""
        return self.language_model.get_base_model()

    @property
    def config(self) -> PretrainedConfig:
        """The base's own config."""
        return self.base.config

    def embed(self, ids: Tensor) -> Tensor:
        """The frozen token embeddings of ``ids`` (..., T): (..., T, D)."""
        return self.base.get_input_embeddings()(ids)

    @contextmanager
    def adapter_off(self) -> Iterator[None]:
        """Within it the generator is its base alone, as the text baselines are measured.

        peft's own switch also walks over all parameters, milliseconds a call that baselines would be charged for.
        """
        for layer in self._adapters:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer in self._adapters:
                layer._disable_adapters = False

    def splice(self, ids: Tensor, memory: Tensor | None) -> Tensor:
        """Embeddings (B, T, D) of prompt ids (B, T), the placeholders filled from ``memory`` (P, L, D) in order."""
        tokens = self.embed(ids.clamp(min=0))
        if memory is None:
            return tokens
        rows = torch.cat([self.separator_row, memory.flatten(0, 1).to(self.separator_row.dtype)])
        is_memory = ids == MEMORY
        row = is_memory.flatten().cumsum(0).view_as(ids) * is_memory
        return torch.where((ids < 0)[..., None], F.embedding(row, rows).to(tokens.dtype), tokens)

    def answer_loss(self, ids: Tensor, memory: Tensor, answer_index: Tensor, answer_targets: Tensor) -> Tensor:
        """Mean cross-entropy over the answers' tokens; logits are computed at their positions alone.

        Args:
            ids: (B, T) prompts and answers with placeholders, padded on the right.
            memory: (P, L, D) what fills the placeholders.
            answer_index: (A,) slots of the flattened (B * T) ids that predict an answer token.
            answer_targets: (A,) those tokens.
        """
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        hidden = self._hidden(self.splice(ids, memory), positions, positions)
        return head_cross_entropy(hidden.flatten(0, 1).index_select(0, answer_index),
                                  self.base.get_output_embeddings().weight, answer_targets)

    def prefill(self, prompts: list[list[int]], memory: Tensor | None, with_adapter: bool = True,
                start: Sequence[int] = ()) -> DecodingState:
        """Read prompts (ids with placeholders) and the memory (P, L, D) that fills them; None for text prompts.

        Args:
            start: ids that all prompts begin with. What they leave behind is kept and reused while the weights stay
                as they are, where that pays.
        """
        num_start = len(start) if self._start_pays(prompts, start) else 0
        ids, lengths = (tensor.to(self.separator_row.device) for tensor in pad([ids[num_start:] for ids in prompts]))
        positions = key_positions = None
        with self._adapter(with_adapter):
            if num_start:
                cache = self._start_cache(start, with_adapter, len(prompts))
                key_positions = torch.arange(num_start + ids.shape[1], device=ids.device)[None]
                positions = key_positions[:, num_start:]
            else:
                cache = DynamicCache()
            hidden = self._hidden(self.splice(ids, memory), positions, key_positions, cache)
            last = hidden.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)
            return DecodingState(cache, self._logits(last), lengths + num_start, with_adapter,
                                 [len(ids) for ids in prompts])

    def _start_pays(self, prompts: list[list[int]], start: Sequence[int]) -> bool:
        """Behind keys that are there already attention needs a mask, which long prompts pay more for than they save."""
        return 0 < len(start) < min(map(len, prompts)) and max(map(len, prompts)) <= START_PAYS * len(start)

    def _start_cache(self, start: Sequence[int], with_adapter: bool, batch_size: int) -> DynamicCache:
        """Keys and values of ``start``, for ``batch_size`` prompts; computed anew when a weight has changed."""
        device = self.separator_row.device
        made_for = (tuple(start), device, torch.is_autocast_enabled(device.type),
                    sum(weight._version for layer in self._adapters for weight in layer.parameters()))
        known_for, kept = self._starts.get(with_adapter, (None, None))
        if made_for != known_for:
            kept = DynamicCache()
            self._hidden(self.embed(torch.tensor([list(start)], device=device)), cache=kept)
            self._starts[with_adapter] = (made_for, kept)
        cache = DynamicCache()
        for number, layer in enumerate(kept.layers):
            cache.update(layer.keys.expand(batch_size, -1, -1, -1), layer.values.expand(batch_size, -1, -1, -1), number)
        return cache

    def decode(self, state: DecodingState, max_new_tokens: int, stop_ids: list[int]) -> list[list[int]]:
        """Greedy answers' ids, without what ended them. ``state`` can be decoded again: its cache is cut back."""
        prompt_slots = state.cache.get_seq_length()
        stops = torch.tensor(stop_ids, device=state.lengths.device)
        with self._adapter(state.with_adapter):
            tokens = self._greedy(state, prompt_slots, max_new_tokens, stops)
        state.cache.crop(prompt_slots - state.cache.get_seq_length())
        answers = [_until(row, stop_ids) for row in tokens.tolist()]
        state.num_new_tokens = [min(len(answer) + 1, tokens.shape[1]) for answer in answers]
        return answers

    def _greedy(self, state: DecodingState, prompt_slots: int, max_new_tokens: int, stops: Tensor) -> Tensor:
        """New tokens (B, at most max_new_tokens); a row goes on past its own end until all have ended."""
        index, is_token = slots(state.lengths, prompt_slots)
        new_positions = state.lengths[:, None] + torch.arange(max_new_tokens, device=index.device)
        key_positions = torch.cat([index.masked_fill(~is_token, NEVER), new_positions], dim=1)
        tokens = [state.logits.argmax(-1)]
        has_ended = torch.isin(tokens[-1], stops)
        while len(tokens) < max_new_tokens and not has_ended.all():
            step = len(tokens)
            hidden = self._hidden(self.embed(tokens[-1][:, None]), new_positions[:, step - 1:step],
                                  key_positions[:, :prompt_slots + step], state.cache)
            tokens.append(self._logits(hidden[:, 0]).argmax(-1))
            has_ended |= torch.isin(tokens[-1], stops)
        return torch.stack(tokens, dim=1)

    def _hidden(self, embeddings: Tensor, positions: Tensor | None = None, key_positions: Tensor | None = None,
                cache: DynamicCache | None = None) -> Tensor:
        """Final hidden states (B, T, D). Without positions: a plain causal text from position 0.

        There padding on the right needs no mask (no real token sees it), and the fastest attention applies.
        """
        mask = None if positions is None else self._attention_mask(positions, key_positions, embeddings.dtype)
        return self.base.base_model(inputs_embeds=embeddings, position_ids=positions, attention_mask=mask,
                                    cache=cache, use_cache=cache is not None).last_hidden_state

    def _attention_mask(self, positions: Tensor, key_positions: Tensor,
                        dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """An explicit mask (B, 1, T, S): 0 where a query sees a key. Qwen takes one for each kind of layer."""
        def additive(window: int | None) -> Tensor:
            seen = visible(positions, key_positions, window)
            return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)

        window = getattr(self.config, "sliding_window", None)
        if not hasattr(self.base.base_model, "has_sliding_layers"):
            return additive(window)
        return {"full_attention": additive(None), "sliding_attention": additive(window)}

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.base.get_output_embeddings()(hidden).float()

    def _adapter(self, is_on: bool) -> AbstractContextManager:
        return nullcontext() if is_on else self.adapter_off()


def _until(ids: list[int], stop_ids: list[int]) -> list[int]:
    end = next((place for place, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]
