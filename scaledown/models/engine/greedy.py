"""Greedy decoding on a GPU that computes the next token while the host looks whether the answers have ended.

After each token transformers' ``generate`` reads whether all answers have ended. So the host waits for the token, and
then the GPU for what the host asks next. Here the host reads one token late: by then the next one is queued, and it is
dropped if it is one too many. Answers are the same. ``generate`` prepares everything, and calls :func:`decode` as its
``custom_generate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation import GenerationMode

DEVICES = ("cuda",)
"""Kinds of devices on which the host runs ahead; on Apple's GPUs transformers reads late by itself."""
OTHER_SETTINGS = ("cache_implementation", "prefill_chunk_size", "return_dict_in_generate", "max_time")
"""Of a config, which :func:`decode` does not know."""


def suits(model: PreTrainedModel, device: torch.device, config: GenerationConfig, options: Mapping[str, Any]) -> bool:
    """Return whether :func:`decode` gives the answers that ``generate`` gives, and sooner.

    Args:
        model: one whose layers take a cache, positions and a mask, and nothing else that grows.
        device: of the model.
        config: of ``generate``.
        options: of ``generate`` beside it. Streamers and others look at each token; there is none, or a cache.
    """
    is_greedy = config.get_generation_mode() == GenerationMode.GREEDY_SEARCH
    is_plain = not any(getattr(config, name, None) for name in OTHER_SETTINGS) and config.pad_token_id is not None
    # For single tokens generate computes a mixture's experts in another way, which is faster on a GPU.
    has_experts = "grouped_mm" in model.get_experts_implementation().values()
    return device.type in DEVICES and is_greedy and is_plain and not has_experts and options.keys() <= {"cache"}


def decode(model: PreTrainedModel, input_ids: Tensor, logits_processor: LogitsProcessorList,
           stopping_criteria: StoppingCriteriaList, generation_config: GenerationConfig, **model_kwargs: Any) -> Tensor:
    """Return the most likely tokens (B, S), as ``generate`` does.

    Args:
        model: a causal LM.
        input_ids: (B, 0), since prompts are embeddings.
        logits_processor: changes the scores of the next token, as the config asks for.
        stopping_criteria: which answers have ended.
        generation_config: of which the token behind the end of an answer is read.
        model_kwargs: for the model: ``inputs_embeds`` (B, T, D), the prompts; their ``position_ids`` (B, T) and
            ``attention_mask`` (B, T), None without padding; a ``cache``, which may hold their first tokens; and more.
    """
    # generate would take those that have a name of their own for settings of this function alone.
    embeddings, positions, mask = (model_kwargs.pop(name) for name in ("inputs_embeds", "position_ids",
                                                                       "attention_mask"))
    num_read = model_kwargs["cache"].get_seq_length()
    # The first pass reads what is left of the prompts, the others read a token each.
    texts, positions = {"inputs_embeds": embeddings[:, num_read:]}, positions[:, num_read:]
    tokens, is_going = input_ids, torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)   # (B,)
    had_ended = _ReadLate(tokens.device)

    while True:
        output = model(**texts, attention_mask=mask, position_ids=positions, **model_kwargs)
        scores = logits_processor(tokens, output.logits[:, -1].float())                   # (B, V)
        next_tokens = scores.argmax(-1).where(is_going, generation_config.pad_token_id)   # (B,)
        tokens = torch.cat([tokens, next_tokens[:, None]], dim=1)

        is_going = is_going & ~stopping_criteria(tokens, None)
        if had_ended(~is_going.any()):
            return tokens[:, :-1]
        if tokens.shape[1] == stopping_criteria.max_length:
            return tokens

        texts = {"input_ids": next_tokens[:, None]}
        positions = positions[:, -1:] + 1
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(tokens), 1)], dim=1)


class _ReadLate:
    """A truth value of the device, read by the host the next time that one is given."""

    def __init__(self, device: torch.device) -> None:
        # Pinned memory, so that the host need not wait until the copy is made.
        self.value, self.is_there = torch.zeros((), dtype=torch.bool), None
        if device.type == "cuda":
            self.value, self.is_there = self.value.pin_memory(), torch.cuda.Event()

    def __call__(self, value: Tensor) -> bool:
        """Return the value that was given before, at first False; ``value`` is on its way."""
        if self.is_there is not None:
            self.is_there.synchronize()
        before = bool(self.value)

        self.value.copy_(value, non_blocking=True)
        if self.is_there is not None:
            self.is_there.record()
        return before
