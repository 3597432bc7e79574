"""A teacher on this machine: any causal LM of transformers, greedy, in batches of like length."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig, PreTrainedModel

from scaledown import hub
from scaledown.data.pipeline.teacher.teacher import TeacherConfig, TeacherQuestion
from scaledown.hub.number_formats import dtype_to_load
from scaledown.prompt import Prompt

BATCHES_AT_ONCE = 64
"""Batches whose prompts are tokenised and sorted by length together; more would only take memory."""


class LocalTeacher:
    """A causal LM that reads the generator's prompt in full text, with the same tokens as a server would build.

    Attributes:
        num_prompt_tokens: tokens read so far.
        num_answer_tokens: tokens generated so far, with those that end an answer.

    Raises:
        ValueError: if the model cannot be found or read, or --teacher_8bit lacks its library.
    """

    def __init__(self, config: TeacherConfig) -> None:
        if config.teacher_8bit and importlib.util.find_spec("bitsandbytes") is None:
            raise ValueError("--teacher_8bit needs bitsandbytes: pip install bitsandbytes")
        self.num_prompt_tokens = self.num_answer_tokens = 0
        self._config = config

        # Loading also fails for files that are no weights or no tokenizer: the message begins with the flag.
        try:
            self._tokenizer = hub.load_tokenizer(config.teacher_model, config.teacher_revision)
            self._model = _load_model(config)
        except (OSError, ValueError) as fault:
            raise ValueError(f"--teacher_model: {fault}") from fault

        # An answer ends with the chat template's end of turn, or with any end that the model itself declares.
        self._prompt = Prompt(self._tokenizer)
        model_ends = self._model.generation_config.eos_token_id
        if not isinstance(model_ends, list):
            model_ends = [model_ends]
        self._stop_ids = sorted({self._prompt.end_id, self._tokenizer.eos_token_id, *model_ends} - {None})

        # Models ship with penalties and temperatures of their own, which generate() would use for all that we leave
        # unset.
        self._model.generation_config = GenerationConfig(
            do_sample=False, max_new_tokens=config.teacher_max_new_tokens, eos_token_id=self._stop_ids,
            pad_token_id=self._stop_ids[0])

    def answers(self, questions: Sequence[TeacherQuestion]) -> Iterator[tuple[int, str]]:
        """See :class:`~scaledown.data.pipeline.teacher.teacher.Teacher`.

        The longest prompts come first, so that a batch that does not fit the device's memory fails at once.
        """
        batch_size = self._config.teacher_batch_size
        group_size = batch_size * BATCHES_AT_ONCE
        for group_start in range(0, len(questions), group_size):
            # Prompts of like length share a batch, which saves padding.
            prompts = self._prompts(questions[group_start:group_start + group_size])
            order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))

            # ``places`` count within the group; a question's number is its place behind the group's start.
            for start in range(0, len(order), batch_size):
                places = order[start:start + batch_size]
                answers = self._answer([prompts[place] for place in places])
                for place, answer in zip(places, answers, strict=True):
                    yield group_start + place, answer

    def _prompts(self, questions: Sequence[TeacherQuestion]) -> list[list[int]]:
        """Return the questions' prompts as token ids.

        Raises:
            ValueError: if the longest of them and its answer are beyond the model's positions.
        """
        prompts = [self._prompt.as_chat(query, documents) for query, documents in questions]

        # Some models have no limit, such as those without position embeddings.
        limit = getattr(self._model.config, "max_position_embeddings", None)
        longest = max(map(len, prompts), default=0) + self._config.teacher_max_new_tokens
        if limit is not None and longest > limit:
            raise ValueError(f"--teacher_model {self._config.teacher_model} reads and says {limit} tokens at most, and "
                             f"a question with its documents and --teacher_max_new_tokens takes {longest}: give it "
                             "fewer or shorter documents")
        return prompts

    @torch.inference_mode()
    def _answer(self, prompts: list[list[int]]) -> list[str]:
        """Return the answers to B prompts of up to L tokens, padded on the left so that all continue from slot L."""
        length = max(map(len, prompts))
        ids = torch.tensor([[self._stop_ids[0]] * (length - len(prompt)) + prompt for prompt in prompts])  # (B, L)
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])  # (B, L)

        device = self._model.device
        try:
            output = self._model.generate(input_ids=ids.to(device), attention_mask=mask.to(device))  # (B, L + new)
        except torch.OutOfMemoryError:
            raise ValueError(f"{len(prompts)} questions of up to {length} tokens do not fit the device's memory: lower "
                             "--teacher_batch_size") from None

        # After its stop token, an answer is padded as long as others of the batch go on.
        answers = [_until(new_ids, self._stop_ids) for new_ids in output[:, length:].tolist()]

        # The stop token counts, unless the limit came first.
        self.num_prompt_tokens += sum(map(len, prompts))
        self.num_answer_tokens += sum(min(len(answer) + 1, self._config.teacher_max_new_tokens) for answer in answers)

        texts = [self._tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                 for answer in answers]
        return [text.strip() for text in texts]


def _load_model(config: TeacherConfig) -> PreTrainedModel:
    state = PartialState()
    # A single process spreads a large teacher over all devices; several put a copy on a device each.
    device_map: Any = "auto" if state.num_processes == 1 else {"": state.device}
    quantization = BitsAndBytesConfig(load_in_8bit=True) if config.teacher_8bit else None

    # Never the code that comes with a model, and no pickled weights.
    name, revision = config.teacher_model, config.teacher_revision
    return AutoModelForCausalLM.from_pretrained(
        hub.locate(name, revision), revision=revision or "main", trust_remote_code=False, **hub.SAFE_WEIGHTS,
        dtype=dtype_to_load(state.device), device_map=device_map, quantization_config=quantization).eval()


def _until(ids: list[int], stop_ids: list[int]) -> list[int]:
    """Return the ids before the first stop token, or all if there is none."""
    end = next((place for place, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]
