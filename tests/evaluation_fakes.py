"""A small stand-in for ScaleDownModel, and records whose right answers it can find: for the tests of evaluation.

A document is words; the answer to "find X" is the value of the word "X=value". What a system sees decides whether it
finds it, so that each system's answers are known in advance.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from scaledown.config import EvaluationConfig, ScaleDownConfig
from scaledown.data.records import Record

EVALUATION = EvaluationConfig(eval_examples=20, eval_batch_size=3, max_new_tokens=5, timed_queries=4,
                              bootstrap_resamples=50)
LLAMA = LlamaConfig(num_hidden_layers=3, hidden_size=16, intermediate_size=24, num_attention_heads=4,
                    num_key_value_heads=2, vocab_size=50)
FIRST_LAYERS = LlamaConfig(**LLAMA.to_dict() | {"num_hidden_layers": 2})


def make_records(num_records: int) -> list[Record]:
    """Records of different lengths; the answer is the last word of the second document."""
    return [Record(id=f"r{number}", query=f"find name{number}", answer=f"value{number}", answers=(f"value{number}",),
                   documents=("nothing here", f"{'word ' * (20 + 7 * (number % 5))}name{number}=value{number}"))
            for number in range(num_records)]


@dataclass
class FakeState:
    questions: list[str]
    seen: list[list[str]]
    num_prompt_tokens: list[int]
    num_new_tokens: list[int] = field(default_factory=list)


class FakeCompressor(nn.Sequential):
    """Has the shapes of two layers, and few weights of its own."""

    @property
    def body(self) -> LlamaModel:
        with torch.device("meta"):
            return LlamaModel(FIRST_LAYERS)


class FakeGenerator(nn.Module):
    """Has the shapes of three layers, and 20 weights of its own."""

    config = LLAMA

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)

    @property
    def base(self) -> LlamaForCausalLM:
        with torch.device("meta"):
            return LlamaForCausalLM(LLAMA)


def words_of(documents: list[str], document_tokens: int | None = None) -> list[str]:
    return list(itertools.chain.from_iterable(document.split()[:document_tokens] for document in documents))


class FakeModel(nn.Module):
    """Keeps a list of its calls; a phase named in ``slow_phase`` sleeps 20 ms."""

    def __init__(self, is_trained: bool = True, slow_phase: str = "") -> None:
        super().__init__()
        self.config = ScaleDownConfig(num_layers=2, num_memory_tokens=8, lora_rank=4)
        self.compressor, self.generator = FakeCompressor(nn.Linear(4, 4), nn.Dropout()), FakeGenerator()
        self.is_trained, self.slow_phase, self.long_documents = is_trained, slow_phase, "split"
        self.calls: list[tuple] = []

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def _enter(self, phase: str, questions: list[str]) -> None:
        assert torch.is_inference_mode_enabled() and not any(module.training for module in self.modules())
        self.calls.append((phase, tuple(questions)))
        if phase == self.slow_phase:
            time.sleep(0.02)

    def compress(self, questions: list[str], documents: list[list[str]]) -> SimpleNamespace:
        self._enter("compress", questions)
        return SimpleNamespace(documents=documents)

    def prefill(self, questions: list[str], memory: SimpleNamespace) -> FakeState:
        self._enter("prefill", questions)
        seen = [words_of(each) for each in memory.documents]
        return FakeState(questions, seen if self.is_trained else [[] for _ in seen],
                         [8 * len(each) + 2 for each in memory.documents])

    def prefill_text(self, questions: list[str], documents: list[list[str]],
                     document_tokens: int | None = None) -> FakeState:
        self._enter("prefill_text", questions)
        seen = [words_of(each, document_tokens) for each in documents]
        return FakeState(questions, seen, [len(words) + 2 for words in seen])

    def decode(self, state: FakeState, max_new_tokens: int) -> list[str]:
        self._enter("decode", state.questions)
        assert max_new_tokens == EVALUATION.max_new_tokens
        answers = []
        for question, words in zip(state.questions, state.seen, strict=True):
            key = question.removeprefix("find ") + "="
            answers.append(next((word.removeprefix(key) for word in words if word.startswith(key)), ""))
        state.num_new_tokens = [2 if answer else 1 for answer in answers]
        return answers
