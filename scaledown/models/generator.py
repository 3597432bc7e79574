"""The generator: a frozen causal LM with a LoRA adapter, reading memory embeddings among its tokens.

Its layers, caches and ``generate`` are transformers', its adapter is peft's. In training, prompts are packed, and the
last layer and the logits are computed for the answers' tokens alone. For answering, prompts are padded on the left, as
``generate`` wants them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import Cache, DynamicCache, GenerationConfig, PretrainedConfig, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models.engine import decoder, fixed_shapes, greedy, last_layer, lora
from scaledown.models.engine.few_rows import use_few_rows
from scaledown.models.engine.packing import NEVER, PackedTexts
from scaledown.models.losses import Head, head_cross_entropy
from scaledown.models.processor import MEMORY


@dataclass
class Prompts:
    """Prompts as embeddings, ready to be answered.

    Attributes:
        embeddings: (B, T, D), padded on the left.
        mask: (B, T), 1 for tokens and memory embeddings, 0 for padding.
        with_adapter: whether LoRA is on for the prompt and the answer.
        num_prompt_tokens: prompt lengths in generator positions (tokens and memory embeddings).
        num_new_tokens: answer lengths, with the token that ends them; answering sets them.
        cache: keys and values of the first T - 1 tokens, if :meth:`Generator.prefill` has read them.
    """

    embeddings: Tensor
    mask: Tensor
    with_adapter: bool
    num_prompt_tokens: list[int]
    num_new_tokens: list[int] = field(default_factory=list)
    cache: Cache | None = None


def with_adapter(config: ScaleDownConfig, base: PreTrainedModel) -> PeftModel:
    """Return ``base`` frozen, with new LoRA on all its linear layers."""
    return lora.causal_lm_with_adapter(base, config.lora_rank, config.lora_alpha, config.lora_dropout)


class Generator(nn.Module):
    """``base`` frozen, with LoRA on all its linear layers and a trained embedding that separates documents.

    Raises:
        ValueError: if ``base`` cannot answer from embeddings.
    """

    def __init__(self, config: ScaleDownConfig, base: PreTrainedModel) -> None:
        super().__init__()
        if fault := decoder.embedding_fault(base):
            raise ValueError(f"--generator_model: a {base.config.model_type} model cannot read memory: {fault}")
        self.separator_row = decoder.rows_like(decoder.token_embeddings(base), 1)         # (1, D)
        # Nothing separates documents in full text, so there only the adapter is trained.
        self.separator_row.requires_grad_(not config.reads_text)

        # Packing needs layers whose attention depends on positions alone; other causal LMs train on padded prompts.
        self.packs = decoder.packing_fault(base.base_model) is None
        if self.packs:
            decoder.register(base)
        use_few_rows(base.get_output_embeddings())
        self.language_model = with_adapter(config, base)
        self._has_known_head: bool | None = None
        self.is_folded = False

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
        if self.packs:
            decoder.checkpoint_activations(self.base.base_model)
        else:
            self.base.base_model.activation_checkpointing_enable({"use_reentrant": False})

    @contextmanager
    def adapter(self, is_on: bool) -> Iterator[None]:
        """Switch LoRA on or off within this context; off, the model is its base alone, as in text baselines.

        Raises:
            ValueError: if the adapter is folded into the base, so that it cannot be switched off.
        """
        if self.is_folded and not is_on:
            raise ValueError("the adapter is folded in (for_answering): load the checkpoint again for answers without "
                             "it")
        with nullcontext() if is_on else self.language_model.disable_adapter():
            yield

    def embed(self, ids: Tensor) -> Tensor:
        """Return the frozen token embeddings of ``ids`` (..., T): (..., T, D)."""
        return self.base.get_input_embeddings()(ids)

    def splice(self, ids: Tensor, memory: Tensor | None) -> Tensor:
        """Return embeddings (..., T, D) of ids (..., T), with ``memory`` (P, L, D) at the placeholders, in order."""
        tokens = self.embed(ids.clamp(min=0))                                             # (..., T, D)
        if memory is None:
            return tokens

        # Embedding 0 is the separator's; the n-th MEMORY placeholder takes embedding n of the flat memory.
        flat_memory = memory.flatten(0, 1).to(self.separator_row.dtype)                   # (P * L, D)
        embeddings = torch.cat([self.separator_row, flat_memory])
        is_memory = ids == MEMORY
        number = is_memory.flatten().cumsum(0).view_as(ids) * is_memory                   # (..., T)

        is_placeholder = (ids < 0)[..., None]
        return torch.where(is_placeholder, F.embedding(number, embeddings).to(tokens.dtype), tokens)

    def states(self, texts: PackedTexts, memory: Tensor | None) -> Tensor:
        """Return the final states (A, D) of the wanted tokens, with ``memory`` (P, L, D) at its placeholders."""
        embeddings = self.splice(texts.ids, memory)                                       # (N, D)
        if self.packs:
            return decoder.read(self.base.base_model, embeddings, texts.packing, texts.reads)

        # Prompts are prefixes that nothing continues: pad them, run the model, drop the padding again. Padding moves
        # heads, so the embeddings pose as one head.
        padding = texts.packing.prefixes
        padded = padding.pad(embeddings[:, None])[:, 0]                                   # (B, T, D)
        is_token = (padding.positions != NEVER).long()                                    # (B, T)
        output = self.base.base_model(inputs_embeds=padded, attention_mask=is_token, use_cache=False)
        states = padding.pack(output.last_hidden_state[:, None])[:, 0]                    # (N, D)
        return states.index_select(0, texts.reads.at)

    def answer_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of the answers' tokens ``targets`` (A,), predicted from final states (A, D)."""
        return head_cross_entropy(states, self.head(), targets)

    def head(self) -> Head:
        """Return how the base computes logits from its final states.

        Raises:
            ValueError: if it does so in a way that this project does not know.
        """
        layer, config = self.base.get_output_embeddings(), self.config
        # Cohere multiplies by logit_scale, Granite divides by logits_scaling, Gemma bounds the logits.
        scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
        head = Head(layer.weight, getattr(layer, "bias", None), scale, getattr(config, "final_logit_softcapping", None))

        # Tested once with the model itself.
        if self._has_known_head is None:
            self._has_known_head = self._makes_the_same_logits(head)
        if not self._has_known_head:
            raise ValueError(f"--generator_model: a model of the family {config.model_type!r} computes its logits in "
                             "a way that cannot be trained here")
        return head

    @torch.no_grad()
    def _makes_the_same_logits(self, head: Head) -> bool:
        """Return whether ``head`` gives the model's own logits of one embedding; families scale or bound theirs."""
        # Not a token's embedding: that of padding may be all zeros, and any head gives it logits of zero.
        embedding = self.separator_row[None].to(self.base.get_input_embeddings().weight.dtype)    # (1, 1, D)

        # Dropout would make the two passes differ, and change the random state of training.
        was_training = self.training
        self.eval()
        try:
            expected = self.base(inputs_embeds=embedding, use_cache=False).logits[0].float()      # (1, V)
            states = self.base.base_model(inputs_embeds=embedding, use_cache=False).last_hidden_state[0]
        finally:
            self.train(was_training)
        return torch.allclose(head.logits(states), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())

    def prompts(self, prompts: Sequence[Sequence[int]], memory: Tensor | None, with_adapter: bool = True) -> Prompts:
        """Return prompts (ids with placeholders) as embeddings, with ``memory`` (P, L, D) in them; None for text."""
        lengths, device = [len(ids) for ids in prompts], self.separator_row.device
        num_prompts, longest = len(prompts), max(lengths, default=0)
        if device.type in fixed_shapes.COMPILED_BY_SHAPE:
            num_prompts = fixed_shapes.rounded(num_prompts)
            longest = fixed_shapes.rounded(longest, fixed_shapes.SMALLEST_TEXT)
            # A dummy is a prompt of one token.
            prompts = [*prompts, *[[0]] * (num_prompts - len(prompts))]

        # Padded on the left, as generate wants it.
        padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        is_token = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        # Of no prompts, too, the shape is (B, T): (0, 0).
        shape = (len(prompts), longest)
        ids = torch.tensor(padded, dtype=torch.long, device=device).view(shape)
        mask = torch.tensor(is_token, dtype=torch.long, device=device).view(shape)
        return Prompts(self.splice(ids, memory), mask, with_adapter, lengths)

    def prefill(self, prompts: Prompts) -> None:
        """Read all tokens of the prompts but the last, with which :meth:`generate` continues."""
        compiles_by_shape = self.separator_row.device.type in fixed_shapes.COMPILED_BY_SHAPE
        if not self.packs or prompts.mask.shape[1] < 2 or compiles_by_shape:
            return

        prompts.cache = DynamicCache(config=self.config)
        # Counted without the padding on the left.
        positions = (prompts.mask.cumsum(1) - 1).clamp(min=0)                             # (B, T)

        # A mask that hides nothing costs time.
        has_padding = min(prompts.num_prompt_tokens) < prompts.mask.shape[1]
        mask = prompts.mask[:, :-1] if has_padding else None

        # Of the last layer only the keys and values are wanted.
        with self.adapter(prompts.with_adapter), last_layer.only(self.base.base_model.layers, None):
            self.base.base_model(inputs_embeds=prompts.embeddings[:, :-1], attention_mask=mask,
                                 position_ids=positions[:, :-1], cache=prompts.cache, use_cache=True)

    def generate(self, prompts: Prompts, config: GenerationConfig, **options: Any) -> Tensor:
        """Return the new tokens (B, S) of each answer, by transformers' ``generate`` and its ``options``."""
        if self.separator_row.device.type in fixed_shapes.COMPILED_BY_SHAPE:
            config.cache_implementation = config.cache_implementation or "static"
            dummies_end = fixed_shapes.DummiesEnd(len(prompts.num_prompt_tokens), len(prompts.embeddings))
            options["stopping_criteria"] = [*(options.get("stopping_criteria") or ()), dummies_end]

        if prompts.cache is not None:
            # An answer is appended to the cache, so it serves one answer.
            cache, prompts.cache = prompts.cache, None
            # generate copies a cache neither for the beams of a prompt nor into one of another kind: then the prompt is
            # read again.
            if (config.num_beams or 1) == 1 and config.cache_implementation is None:
                options["cache"] = cache
        if self.packs and greedy.suits(self.base, prompts.embeddings.device, config, options):
            options["custom_generate"] = greedy.decode

        with self.adapter(prompts.with_adapter):
            return self.base.generate(inputs_embeds=prompts.embeddings, attention_mask=prompts.mask,
                                      generation_config=config, **options)
