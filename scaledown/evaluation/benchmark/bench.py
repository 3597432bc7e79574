"""The systems of the benchmark: random weights of the right shape, and three other ways to run them beside ours.

The naive compressor is the plain reading of the paper: ``[query][document][MEM]`` through all its layers, the query
again for each document, every text padded to its budget, and in training logits for every position of the prompt.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PretrainedConfig

from scaledown.config import ScaleDownConfig
from scaledown.evaluation.benchmark.ratios import MEMORY_TOKENS
from scaledown.evaluation.cost.known_shapes import config_of
from scaledown.hub.number_formats import dtype_for
from scaledown.models.compressors.n_layers import NLayersCompressor, resolve_num_layers
from scaledown.models.engine import attention
from scaledown.models.engine.decoder import token_embeddings
from scaledown.models.engine.folding import fold
from scaledown.models.engine.packing import TextLists
from scaledown.models.generator import Generator, Prompts
from scaledown.models.processor import MEMORY, SEPARATOR
from scaledown.models.serving.compressing import DOCUMENTS_AT_ONCE
from scaledown.training.devices import resolve_device

IGNORED = -100


@dataclass(frozen=True)
class Preset:
    """A generator's shape, and the number of its layers that the compressor has."""

    config: PretrainedConfig
    num_layers: int


def preset(name: str) -> Preset:
    """Return ``tiny`` (to try the benchmark itself), ``small`` (CPU) or ``paper`` (Mistral-7B, 8 layers)."""
    if name == "paper":
        return Preset(config_of("mistralai/Mistral-7B-Instruct-v0.2"), 8)

    width, layers, vocabulary = {"tiny": (64, 4, 500), "small": (512, 12, 32000)}[name]
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=True)
    return Preset(config, layers // 4)  # a quarter, as 8 of Mistral's 32


@dataclass(frozen=True)
class Texts:
    """Token ids of questions: queries, each one's documents, and answers."""

    queries: list[list[int]]
    documents: list[list[list[int]]]
    answers: list[list[int]]

    @classmethod
    def drawn(cls, lengths: Sequence[tuple[int, Sequence[int], int]], vocab_size: int, seed: int = 0) -> Texts:
        """Draw random ids with the lengths (query, documents, answer) of each question."""
        rng = random.Random(seed)

        def ids(length: int) -> list[int]:
            return [rng.randrange(5, vocab_size) for _ in range(length)]  # the first few are special tokens

        queries = [ids(query) for query, _, _ in lengths]
        documents = []
        for _, document_lengths, _ in lengths:
            documents.append([ids(length) for length in document_lengths])
        return cls(queries, documents, [ids(answer) for _, _, answer in lengths])


def _in_dtype(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method of :class:`Bench` compute in the bench's number format, as the model does (``ComputingModule``)."""

    @functools.wraps(method)
    def computed(bench: Bench, *given: Any, **settings: Any) -> Any:
        has_autocast = not bench.only_answers and bench.dtype != torch.float32
        with torch.autocast(bench.device.type, bench.dtype, enabled=has_autocast):
            return method(bench, *given, **settings)

    return computed


class Bench(nn.Module):
    """A generator and its compressor with random weights, and all the ways to run them that are compared.

    What is trained is held in float32, and all of them compute in ``dtype``.

    Attributes:
        only_answers: whether :meth:`for_answering` has been called.
    """

    def __init__(self, shape: Preset, config: ScaleDownConfig, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        attention.prepare(device)
        torch.manual_seed(0)
        with torch.device(device):
            base = AutoModelForCausalLM.from_config(shape.config, dtype=dtype)
            base.requires_grad_(False)
            # Answers have a given length, so no token of the family's own config may end them.
            base.generation_config = GenerationConfig()
            config = dataclasses.replace(config, num_layers=shape.num_layers)
            self.compressor = NLayersCompressor(config, base.base_model, token_embeddings(base)).to(device)
            self.generator = Generator(config, base).to(device)
        self.shape, self.config, self.device, self.dtype = shape, config, device, dtype
        self.only_answers = False

    def for_answering(self) -> None:
        """Fold the adapter in and hold all weights in ``dtype``, as a model that only answers does."""
        fold(self.generator, self.compressor, self.dtype)
        self.only_answers = True
        self.eval()

    @_in_dtype
    def compress(self, texts: Texts) -> Tensor:
        """Return the memory of our compressor, which reads each query once: (P, L, D) for P documents."""
        # A query is the prefix of its documents, and each document with its memory tokens is a suffix.
        num_memory = self.config.num_memory_tokens
        suffixes: list[list[int]] = []
        prefix: list[int] = []
        for number, documents in enumerate(texts.documents):
            for ids in documents:
                suffixes.append([*ids, *[0] * num_memory])
                prefix.append(number)

        # Nothing is read at the queries; of each suffix the states at its last L positions.
        reads = [range(0)] * len(texts.queries) + [range(len(ids) - num_memory, len(ids)) for ids in suffixes]
        lists = TextLists(texts.queries, suffixes, prefix, reads)
        memory = []
        for part in lists.parts(DOCUMENTS_AT_ONCE):
            memory.append(self.compressor(part.packed().to(self.device), self.generator.embed).embeddings)
        return torch.cat(memory)

    @_in_dtype
    def compress_naively(self, texts: Texts) -> Tensor:
        """Return the memory of the naive compressor: (P, L, D) for P documents."""
        config, memory_tokens = self.config, self.compressor.memory_rows
        queries, documents = [], []
        for query, query_documents in zip(texts.queries, texts.documents, strict=True):
            queries += [query] * len(query_documents)  # again for each document
            documents += query_documents

        query_ids, query_mask = self._padded(queries, config.query_tokens)
        document_ids, document_mask = self._padded(documents, config.document_tokens)
        tokens = self.generator.embed(torch.cat([query_ids, document_ids], dim=1)).to(memory_tokens.dtype)  # (P, T, D)
        memory_tokens = memory_tokens.expand(len(documents), -1, -1)  # (P, L, D)
        memory_mask = document_mask.new_ones(memory_tokens.shape[:2])

        # Without a packing the compressor's decoder is transformers' own.
        hidden = self.compressor.body(inputs_embeds=torch.cat([tokens, memory_tokens], dim=1),
                                      attention_mask=torch.cat([query_mask, document_mask, memory_mask], dim=1),
                                      use_cache=False)
        return hidden.last_hidden_state[:, -memory_tokens.shape[1]:]

    @_in_dtype
    def prefill(self, texts: Texts, memory: Tensor | None, document_tokens: int | None = None) -> Prompts:
        """Read the prompts: with memory, or with each document's first ``document_tokens`` tokens."""
        prompts = self.generator.prompts(self.prompts(texts, memory is not None, document_tokens), memory)
        self.generator.prefill(prompts)
        return prompts

    @_in_dtype
    def decode(self, prompts: Prompts, answer_tokens: int, **settings: Any) -> Tensor:
        """Return answers of exactly this number of tokens: (B, S); ``settings`` are more of ``generate``'s."""
        config = GenerationConfig(do_sample=False, max_new_tokens=answer_tokens, eos_token_id=None, pad_token_id=0,
                                  **settings)
        return self.generator.generate(prompts, config)

    def prompts(self, texts: Texts, from_memory: bool, document_tokens: int | None = None) -> list[list[int]]:
        """Return the ids of each prompt: the documents one after the other, then the query."""
        prompts = []
        for query, documents in zip(texts.queries, texts.documents, strict=True):
            ids: list[int] = []
            for document in documents:
                if not from_memory:
                    ids += document[:document_tokens]
                    continue
                # Placeholders for the memory embeddings, with a separator between two documents.
                if ids:
                    ids.append(SEPARATOR)
                ids += [MEMORY] * self.config.num_memory_tokens
            prompts.append(ids + query)

        return prompts

    @_in_dtype
    def loss(self, texts: Texts, memory: Tensor | None, document_tokens: int | None = None) -> Tensor:
        """Return our loss: logits at the answers' positions alone, in chunks."""
        prompts = self.prompts(texts, memory is not None, document_tokens)
        inputs, reads, targets = [], [], []
        for prompt, answer in zip(prompts, texts.answers, strict=True):
            # A token is predicted at the position before it: from the prompt's last to the answer's last but one.
            ids = [*prompt, *answer[:-1]]
            inputs.append(ids)
            reads.append(range(len(ids) - len(answer), len(ids)))
            targets += answer

        packed = TextLists(inputs, [], [], reads).packed().to(self.device)
        states = self.generator.states(packed, memory)
        return self.generator.answer_loss(states, torch.tensor(targets, device=self.device))

    @_in_dtype
    def naive_loss(self, texts: Texts, memory: Tensor, num_tokens: int) -> Tensor:
        """Return the plain loss: prompts and answers padded to ``num_tokens``, logits everywhere."""
        inputs = [prompt + answer for prompt, answer in zip(self.prompts(texts, True), texts.answers, strict=True)]
        ids, mask = self._padded(inputs, num_tokens, side="right")  # both (B, T)

        labels = torch.full_like(ids, IGNORED)  # (B, T), of which only the answers count
        for label, sequence, answer in zip(labels, inputs, texts.answers, strict=True):
            label[len(sequence) - len(answer):len(sequence)] = torch.tensor(answer, device=self.device)

        logits = self.generator.base(inputs_embeds=self.generator.splice(ids, memory), attention_mask=mask,
                                     use_cache=False).logits.float()  # (B, T, V)
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)

    def _padded(self, sequences: list[list[int]], size: int, side: str = "left") -> tuple[Tensor, Tensor]:
        """Return ids and mask (N, size), padded as by a tokenizer with ``padding="max_length"``."""
        ids = torch.zeros(len(sequences), size, dtype=torch.long)
        mask = torch.zeros(len(sequences), size, dtype=torch.long)
        for number, sequence in enumerate(sequences):
            # Padding stands on ``side``, the tokens at the other end.
            place = slice(size - len(sequence), size) if side == "left" else slice(0, len(sequence))
            ids[number, place] = torch.tensor(sequence, dtype=torch.long)
            mask[number, place] = 1

        return ids.to(self.device), mask.to(self.device)


def build_bench(args: argparse.Namespace) -> Bench:
    """Build a model of the requested shape with random weights."""
    shape = preset(args.preset)
    if args.generator_model:
        config = config_of(args.generator_model)
        shape = Preset(config, resolve_num_layers(None, config.num_hidden_layers))
    if args.num_layers:
        shape = Preset(shape.config, resolve_num_layers(args.num_layers, shape.config.num_hidden_layers))

    # Dropout costs a little time, and its random masks would make the ways to train differ.
    config = ScaleDownConfig(num_memory_tokens=MEMORY_TOKENS, compression_rate=args.document_tokens // MEMORY_TOKENS,
                             query_tokens=args.query_tokens, lora_dropout=0.0)
    device = resolve_device(args.device)
    return Bench(shape, config, dtype_for(device), device)
