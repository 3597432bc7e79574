"""A teacher on this machine: any causal LM that transformers reads, greedy, in batches of like length."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig, PreTrainedModel

from scaledown import hub
from scaledown.data.pipeline.teacher.teacher_config import Question, TeacherConfig
from scaledown.precision import dtype_to_load
from scaledown.prompt import Prompt

BATCHES_AT_ONCE = 64
"""Batches whose prompts are made and sorted together: enough for batches of like length, little to hold."""


class LocalTeacher:
    """A causal LM that reads the generator's prompt in full text, token for token as a server would give it.

    Attributes:
        num_prompt_tokens: tokens read so far.
        num_answer_tokens: tokens said so far, the ones that end an answer counted.

    Raises:
        ValueError: where the model cannot be found or read, or --teacher_8bit lacks its library.
    """

    def __init__(self, config: TeacherConfig) -> None:
        if config.teacher_8bit and importlib.util.find_spec("bitsandbytes") is None:
            raise ValueError("--teacher_8bit needs bitsandbytes: pip install bitsandbytes")
        self.num_prompt_tokens = self.num_answer_tokens = 0
        self._config = config
        try:
            self._tokenizer = hub.load_tokenizer(config.teacher_model, config.teacher_revision)
            self._model = _load_model(config)
        except (OSError, ValueError) as fault:
            raise ValueError(f"--teacher_model: {fault}") from fault
        self._prompt = Prompt(self._tokenizer)
        ends = self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._stop_ids = sorted({self._prompt.end_id, self._tokenizer.eos_token_id, *ends} - {None})
        # Models bring penalties and temperatures of their own, which generate() would put in where we say nothing.
        self._model.generation_config = GenerationConfig(
            do_sample=False, max_new_tokens=config.teacher_max_new_tokens, eos_token_id=self._stop_ids,
            pad_token_id=self._stop_ids[0])

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """See :class:`~scaledown.data.pipeline.teacher.teacher_config.Teacher`; the longest prompts come first, so that
        a batch that does not fit the device's memory shows at once."""
        batch_size = self._config.teacher_batch_size
        for first in range(0, len(questions), batch_size * BATCHES_AT_ONCE):
            prompts = self._prompts(questions[first:first + batch_size * BATCHES_AT_ONCE])
            order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
            for start in range(0, len(order), batch_size):
                numbers = order[start:start + batch_size]
                answers = self._answer([prompts[number] for number in numbers])
                yield from ((first + number, answer) for number, answer in zip(numbers, answers, strict=True))

    def _prompts(self, questions: Sequence[Question]) -> list[list[int]]:
        prompts = [self._prompt.as_chat(query, documents) for query, documents in questions]
        limit = getattr(self._model.config, "max_position_embeddings", None)
        longest = max(map(len, prompts), default=0) + self._config.teacher_max_new_tokens
        if limit is not None and longest > limit:
            raise ValueError(f"--teacher_model {self._config.teacher_model} reads and says {limit} tokens at most, and "
                             f"a question with its documents and --teacher_max_new_tokens takes {longest}: give it "
                             "fewer or shorter documents")
        return prompts

    @torch.inference_mode()
    def _answer(self, prompts: list[list[int]]) -> list[str]:
        """Answers to prompts (B rows of ids), padded on the left so that all go on from the last slot."""
        width = max(map(len, prompts))
        ids = torch.tensor([[self._stop_ids[0]] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        device = self._model.device
        try:
            rows = self._model.generate(input_ids=ids.to(device), attention_mask=mask.to(device))[:, width:].tolist()
        except torch.OutOfMemoryError:
            raise ValueError(f"{len(prompts)} questions of up to {width} tokens do not fit the device's memory: lower "
                             "--teacher_batch_size") from None
        said = [_until(row, self._stop_ids) for row in rows]
        self.num_prompt_tokens += sum(map(len, prompts))
        self.num_answer_tokens += sum(min(len(row) + 1, self._config.teacher_max_new_tokens) for row in said)
        return [self._tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
                for row in said]


def _load_model(config: TeacherConfig) -> PreTrainedModel:
    state = PartialState()
    # One process spreads a large teacher over all devices; among several, each takes its own.
    place: Any = "auto" if state.num_processes == 1 else {"": state.device}
    name, revision = config.teacher_model, config.teacher_revision
    return AutoModelForCausalLM.from_pretrained(
        hub.locate(name, revision), revision=revision or "main", trust_remote_code=False, **hub.SAFE_WEIGHTS,
        dtype=dtype_to_load(state.device), device_map=place,
        quantization_config=BitsAndBytesConfig(load_in_8bit=True) if config.teacher_8bit else None).eval()


def _until(ids: list[int], stop_ids: list[int]) -> list[int]:
    end = next((place for place, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]
