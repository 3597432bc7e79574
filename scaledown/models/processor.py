"""Text to tensors: the one place that knows the token layout of compressor and generator."""

from __future__ import annotations

import itertools
import logging
import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scaledown.config import ScaleDownConfig
from scaledown.models.compressor import CompressorInput
from scaledown.models.ragged import filled, pad
from scaledown.prompt import Prompt, plain_ids

MEMORY = -1
"""Placeholder in prompt ids: the next memory embedding goes here."""
SEPARATOR = -2
"""Placeholder in prompt ids: the separator row between two documents goes here."""
SHOWN_CHARACTERS = 80
"""So much of a question is shown in a warning."""

logger = logging.getLogger(__name__)


class Processor:
    """Tokenises queries and documents for the compressor, prompts for the generator, and batches for training.

    It holds no tensors and can be sent to data-loading workers.

    Args:
        tokenizer: the generator's.
        config: the budgets: query, document and memory tokens.
        compressor_tokenizer: the compressor's, where it reads with a vocabulary of its own.

    Attributes:
        num_positions: how many positions the generator was made for; the model sets it. A prompt that leaves no room
            for an answer within them is said to be too long.
    """

    num_positions: int | None = None

    def __init__(self, tokenizer: Any, config: ScaleDownConfig, compressor_tokenizer: Any = None) -> None:
        self.tokenizer = tokenizer
        self.compressor_tokenizer = compressor_tokenizer or tokenizer
        self.config = config
        self.prompt = Prompt(tokenizer)
        self._lead, self._separator = _frame(self.compressor_tokenizer)
        self._has_warned = False
        self._has_warned_of_prompt = False

    def compressor_input(self, questions: Sequence[str], documents: Sequence[Sequence[str]]) -> CompressorInput:
        """``[query][separator]`` and documents, apart: queries and documents each have a budget of their own."""
        queries = [self._lead + ids[:self.config.query_tokens] + self._separator
                   for ids in plain_ids(self.compressor_tokenizer, questions)]
        texts = plain_ids(self.compressor_tokenizer, [document for each in documents for document in each])
        pairs = [number for number, each in enumerate(documents) for _ in each]
        return CompressorInput.of_ids(queries, self._cut(texts), pairs)

    def memory_prompts(self, questions: Sequence[str], num_documents: Sequence[int],
                       num_memory_tokens: int | None = None) -> list[list[int]]:
        """Prompt ids with placeholders where each document's memory belongs [``config.num_memory_tokens`` of them]."""
        memory = [MEMORY] * (num_memory_tokens or self.config.num_memory_tokens)
        prompts = [self.prompt.of_memory(question, number, memory, SEPARATOR)
                   for question, number in zip(questions, num_documents, strict=True)]
        self._warn_of_length(questions, prompts)
        return prompts

    def text_prompts(self, questions: Sequence[str], documents: Sequence[Sequence[str]],
                     document_tokens: int | None = None) -> list[list[int]]:
        """The same prompts in full text, each document cut to ``document_tokens`` [the config's] tokens."""
        texts = iter(plain_ids(self.tokenizer, [document for each in documents for document in each]))
        prompts = []
        for question, each in zip(questions, documents, strict=True):
            own = [next(texts) for _ in each]
            own = self._cut(own) if document_tokens is None else [ids[:document_tokens] for ids in own]
            prompts.append(self.prompt.of_texts(question, own))
        self._warn_of_length(questions, prompts)
        return prompts

    def answer_ids(self, answer: str, answer_tokens: int | None = None) -> list[int]:
        """What the generator learns to say: the answer and the token that ends it, cut at ``answer_tokens``."""
        return (plain_ids(self.tokenizer, [answer])[0] + [self.prompt.end_id])[:answer_tokens]

    def collate_for_training(self, records: Iterable[Any], answer_tokens: int | None = None) -> dict[str, Tensor]:
        """As :meth:`collate`, with one of the numbers of memory tokens that are trained together.

        What the records say draws it, so a run that is resumed draws as one that never stopped.
        """
        records = list(records)
        rng = random.Random("\n".join(f"{record.query} {record.answer}" for record in records))
        return self.collate(records, answer_tokens, rng.choice(self.config.memory_token_choices))

    def collate(self, records: Iterable[Any], answer_tokens: int | None = None,
                num_memory_tokens: int | None = None) -> dict[str, Tensor]:
        """Training records (``query``, ``documents``, ``answer``, ``reranking_scores``) to a batch of tensors.

        Returns:
            the fields of :class:`CompressorInput`; ``memory_index`` (L,), the memory rows in use; ``prompt_ids``
            (B, T), prompt and answer (but for the token that ends it, after which nothing is predicted), with
            placeholders; ``prompt_slots`` (N,), the slots of the flattened (B * T) that hold a token; ``answer_index``
            (A,), which of these N predict an answer token, and ``answer_targets`` (A,), those tokens; with reranking
            ``teacher_scores`` (P,) and ``has_score`` (P,).
        """
        records = list(records)
        questions, documents = [record.query for record in records], [record.documents for record in records]
        num_memory_tokens = self.config.checked_memory_tokens(num_memory_tokens)
        prompts = self.memory_prompts(questions, [len(each) for each in documents], num_memory_tokens)
        answers = [self.answer_ids(record.answer, answer_tokens) for record in records]
        rows = [prompt + answer[:-1] for prompt, answer in zip(prompts, answers, strict=True)]
        prompt_ids, _ = pad(rows)
        ends = itertools.accumulate(map(len, rows))
        index = [place for end, answer in zip(ends, answers, strict=True) for place in range(end - len(answer), end)]
        batch = self.compressor_input(questions, documents)._asdict() | {
            "memory_index": torch.arange(num_memory_tokens), "prompt_ids": prompt_ids,
            "prompt_slots": filled([len(row) for row in rows], prompt_ids.shape[1]),
            "answer_index": torch.tensor(index, dtype=torch.long),
            "answer_targets": torch.tensor([token for answer in answers for token in answer], dtype=torch.long)}
        return batch | _teacher_scores(records) if self.config.enable_reranking else batch

    def save(self, folder: Path, compressor_folder: Path) -> None:
        """Write the tokenizers: the generator's, and the compressor's where it is another."""
        self.tokenizer.save_pretrained(folder)
        if self.compressor_tokenizer is not self.tokenizer:
            self.compressor_tokenizer.save_pretrained(compressor_folder)

    def _warn_of_length(self, questions: Sequence[str], prompts: Sequence[list[int]]) -> None:
        """Rotary positions have no hard end, so a prompt beyond them is answered, only badly: no error, a warning."""
        if self.num_positions is None or self._has_warned_of_prompt:
            return
        for question, prompt in zip(questions, prompts, strict=True):
            if len(prompt) >= self.num_positions:
                self._has_warned_of_prompt = True
                logger.warning("the prompt of %r has %d positions, the generator was made for %d, answer included: "
                               "expect bad answers; give fewer documents (keep_documents), a shorter question or fewer "
                               "--num_memory_tokens; said once", question[:SHOWN_CHARACTERS], len(prompt),
                               self.num_positions)
                return

    def _cut(self, texts: list[list[int]]) -> list[list[int]]:
        limit = self.config.document_tokens
        longest = max([0, *map(len, texts)])
        if longest > limit and not self._has_warned:
            self._has_warned = True
            logger.warning("documents longer than %d tokens are cut there (the first such has %d); said once",
                           limit, longest)
        return [ids[:limit] for ids in texts]


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids before and after a query: the sequence start that the model knows, if any, and a separator."""
    start = tokenizer("").input_ids[:1]
    lead = start if start and start[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id) else []
    separator = plain_ids(tokenizer, ["\n"])[0] if tokenizer.sep_token_id is None else [tokenizer.sep_token_id]
    return lead, separator


def _teacher_scores(records: Sequence[Any]) -> dict[str, Tensor]:
    scores = [score for record in records
              for score in (record.reranking_scores or [math.nan] * len(record.documents))]
    teacher = torch.tensor(scores, dtype=torch.float32)
    has_score = ~teacher.isnan()
    return {"teacher_scores": teacher.nan_to_num(), "has_score": has_score}
