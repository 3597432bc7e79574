"""What the benchmark compares: random weights of the right shape, and three ways around them beside ours.

The naive compressor is the plain reading of the paper: ``[query][document][MEM]`` through all its layers, the query
again for each document, every text padded to its budget, and in training logits for every position of the prompt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PretrainedConfig

from scaledown.config import ScaleDownConfig
from scaledown.evaluation.cost.known_shapes import config_of
from scaledown.models.compressors.n_layers import NLayersCompressor
from scaledown.models.engine.packing import TextLists
from scaledown.models.generator import Generator, Prompts
from scaledown.models.processor import MEMORY, SEPARATOR

IGNORED = -100


@dataclass(frozen=True)
class Preset:
    """A generator's shape and how many of its layers the compressor has."""

    config: PretrainedConfig
    num_layers: int


def preset(name: str) -> Preset:
    """``tiny`` (a check of the benchmark itself), ``small`` (CPU) or ``paper`` (Mistral-7B, 8 layers)."""
    if name == "paper":
        return Preset(config_of("mistralai/Mistral-7B-Instruct-v0.2"), 8)
    width, layers, vocabulary = {"tiny": (64, 4, 500), "small": (512, 12, 32000)}[name]
    return Preset(LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=True), layers // 4)


@dataclass(frozen=True)
class Texts:
    """Token ids of questions: queries, each one's documents, and answers."""

    queries: list[list[int]]
    documents: list[list[list[int]]]
    answers: list[list[int]]

    @classmethod
    def drawn(cls, lengths: Sequence[tuple[int, Sequence[int], int]], vocab_size: int, seed: int = 0) -> Texts:
        """Random ids of the lengths (query, documents, answer) of each question."""
        rng = random.Random(seed)

        def ids(length: int) -> list[int]:
            return [rng.randrange(5, vocab_size) for _ in range(length)]

        return cls([ids(query) for query, _, _ in lengths],
                   [[ids(each) for each in documents] for _, documents, _ in lengths],
                   [ids(answer) for _, _, answer in lengths])


class Bench(nn.Module):
    """A generator and its compressor with random weights, and every way to run them that is compared."""

    def __init__(self, shape: Preset, config: ScaleDownConfig, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        torch.manual_seed(0)
        with torch.device(device):
            base = AutoModelForCausalLM.from_config(shape.config, dtype=dtype)
            base.requires_grad_(False)
            # What a family's own config says ends an answer must not end those whose length is given.
            base.generation_config = GenerationConfig()
            self.compressor = NLayersCompressor(config, base.base_model, shape.num_layers).to(device)
            self.generator = Generator(config, base).to(device)
        self.shape, self.config, self.device, self.dtype = shape, config, device, dtype

    def compress(self, texts: Texts) -> Tensor:
        """Our compressor: (P, L, D)."""
        num_memory, suffixes, prefix = self.config.num_memory_tokens, [], []
        for number, each in enumerate(texts.documents):
            suffixes += [[*ids, *[0] * num_memory] for ids in each]
            prefix += [number] * len(each)
        reads = [range(0)] * len(texts.queries) + [range(len(ids) - num_memory, len(ids)) for ids in suffixes]
        packed = TextLists(texts.queries, suffixes, prefix, reads).packed()
        return self.compressor(packed.to(self.device), self.generator.embed).embeddings

    def compress_naively(self, texts: Texts) -> Tensor:
        """The naive compressor: (P, L, D)."""
        config, rows = self.config, self.compressor.memory_rows
        pairs = [(query, ids) for query, each in zip(texts.queries, texts.documents, strict=True) for ids in each]
        query_ids, query_mask = self._padded([query for query, _ in pairs], config.query_tokens)
        ids, mask = self._padded([ids for _, ids in pairs], config.document_tokens)
        tokens = self.generator.embed(torch.cat([query_ids, ids], dim=1)).to(rows.dtype)
        rows = rows.expand(len(pairs), -1, -1)
        seen = torch.cat([query_mask, mask, torch.ones(rows.shape[:2], device=mask.device, dtype=mask.dtype)], dim=1)
        # Without a packing the compressor's decoder is transformers' own.
        whole = torch.cat([tokens, rows], dim=1)
        hidden = self.compressor.body(inputs_embeds=whole, attention_mask=seen, use_cache=False)
        return hidden.last_hidden_state[:, -rows.shape[1]:]

    def prefill(self, texts: Texts, memory: Tensor | None, document_tokens: int | None = None) -> Prompts:
        """Read the prompts: with memory, or with each document's first ``document_tokens`` tokens."""
        prompts = self.generator.prompts(self.prompts(texts, memory is not None, document_tokens), memory)
        self.generator.prefill(prompts)
        return prompts

    def decode(self, prompts: Prompts, answer_tokens: int) -> Tensor:
        """Return answers of exactly this number of tokens: (B, S)."""
        settings = GenerationConfig(do_sample=False, max_new_tokens=answer_tokens, eos_token_id=None, pad_token_id=0)
        return self.generator.generate(prompts, settings)

    def prompts(self, texts: Texts, from_memory: bool, document_tokens: int | None = None) -> list[list[int]]:
        """Documents, one after the other, then the query."""
        found = []
        for query, documents in zip(texts.queries, texts.documents, strict=True):
            ids: list[int] = []
            for document in documents:
                ids += ([SEPARATOR] if ids and from_memory else [])
                ids += [MEMORY] * self.config.num_memory_tokens if from_memory else document[:document_tokens]
            found.append(ids + query)
        return found

    def loss(self, texts: Texts, memory: Tensor | None, document_tokens: int | None = None) -> Tensor:
        """Our loss: logits at the answers' positions alone, in chunks."""
        prompts = self.prompts(texts, memory is not None, document_tokens)
        whole = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, texts.answers, strict=True)]
        reads = [range(len(ids) - len(answer), len(ids)) for ids, answer in zip(whole, texts.answers, strict=True)]
        packed = TextLists(whole, [], [], reads).packed().to(self.device)
        targets = torch.tensor([token for answer in texts.answers for token in answer], device=self.device)
        return self.generator.answer_loss(self.generator.states(packed, memory), targets)

    def naive_loss(self, texts: Texts, memory: Tensor, num_tokens: int) -> Tensor:
        """The plain loss: prompts and answers padded to ``num_tokens``, logits everywhere."""
        rows = [prompt + answer for prompt, answer in zip(self.prompts(texts, True), texts.answers, strict=True)]
        ids, mask = self._padded(rows, num_tokens, side="right")
        labels = torch.full_like(ids, IGNORED)
        for label, row, answer in zip(labels, rows, texts.answers, strict=True):
            label[len(row) - len(answer):len(row)] = torch.tensor(answer, device=self.device)
        logits = self.generator.base(inputs_embeds=self.generator.splice(ids, memory), attention_mask=mask,
                                     use_cache=False).logits.float()
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)

    def _padded(self, rows: list[list[int]], size: int, side: str = "left") -> tuple[Tensor, Tensor]:
        """Ids and mask (N, size), padded to the budget, as a tokenizer with ``padding="max_length"`` gives them."""
        ids, mask = torch.zeros(len(rows), size, dtype=torch.long), torch.zeros(len(rows), size, dtype=torch.long)
        for row, values, seen in zip(rows, ids, mask, strict=True):
            place = slice(size - len(row), size) if side == "left" else slice(0, len(row))
            values[place], seen[place] = torch.tensor(row, dtype=torch.long), 1
        return ids.to(self.device), mask.to(self.device)

