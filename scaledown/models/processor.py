"""Text to tensors: the one place that knows the token layout of compressor and generator."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from scaledown.config import EMBEDDED, ScaleDownConfig
from scaledown.models.fixed_shapes import Shapes
from scaledown.models.losses import IGNORED
from scaledown.models.packing import TextLists
from scaledown.models.positions import PositionLimit, position_limit
from scaledown.prompt import QUESTION, Prompt, cut_texts, plain_ids

MEMORY = -1
"""Placeholder in prompt ids: the next memory embedding goes here."""
SEPARATOR = -2
"""Placeholder in prompt ids: the separator row between two documents goes here."""
UNSTATED = "unknown"
"""What the memory of a document that does not state the answer is to say, where it is to say something."""
SHORTER_PROMPT = "give fewer documents (keep_documents), a shorter question or fewer --num_memory_tokens"
"""What helps if a prompt is too long."""
LONGEST_INPUT = "the longest input of the compressor (query, document and memory tokens)"
SHORTER_INPUT = "lower --query_tokens or --compression_rate, or choose another --compressor_model"
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
        position_limit: how many positions the generator reads exactly, if there is such a limit; the model sets it. A
            prompt beyond it is refused.
    """

    num_positions: int | None = None
    position_limit: PositionLimit | None = None

    def __init__(self, tokenizer: Any, config: ScaleDownConfig, compressor_tokenizer: Any = None) -> None:
        self.tokenizer = tokenizer
        self.compressor_tokenizer = compressor_tokenizer or tokenizer
        self.config = config
        self.prompt = Prompt(tokenizer)
        self._lead, self._separator = _frame(self.compressor_tokenizer)
        self._has_warned = False
        self._has_warned_of_prompt = False

    def compressor_texts(self, questions: Sequence[str], documents: Sequence[Sequence[str]],
                         num_memory_tokens: int | None = None) -> TextLists:
        """Return what the compressor reads of each document with its query, and the memory tokens that it wants.

        Query first, ``[query][separator]`` is the prefix of all its documents; document first, a document is the prefix
        of all its queries, and is there once. Memory tokens (and the rerank token) come directly behind the suffix. An
        encoder's texts share nothing: each is a whole pair.
        """
        special = [0] * (num_memory_tokens or self.config.num_memory_tokens) + [0] * self.config.enable_reranking
        flat = [document for each in documents for document in each]
        pair_query = [number for number, each in enumerate(documents) for _ in each]

        if self.config.input_order == "document_first":
            queries, keys = self._queries_behind(questions), self.document_keys(flat)
            numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
            prefixes, prefix = list(numbers), [numbers[key] for key in keys]
            suffixes = [[*queries[number], *special] for number in pair_query]
        else:
            prefixes, prefix = self._queries_before(questions), pair_query
            texts = self._cut(plain_ids(self.compressor_tokenizer, flat))
            suffixes = [[*ids, *special] for ids in texts]

        if self.config.compressor_type == "modernbert":
            wholes = [[*prefixes[number], *suffix] for number, suffix in zip(prefix, suffixes, strict=True)]
            return TextLists(wholes, [], [], [_last(ids, len(special)) for ids in wholes])
        reads = [range(0)] * len(prefixes) + [_last(ids, len(special)) for ids in suffixes]
        return TextLists(prefixes, suffixes, prefix, reads)

    def _queries_before(self, questions: Sequence[str]) -> list[list[int]]:
        budget = self.config.query_tokens
        return [self._lead + ids[:budget] + self._separator for ids in plain_ids(self.compressor_tokenizer, questions)]

    def document_keys(self, documents: Sequence[str]) -> list[tuple[int, ...]]:
        """What the compressor reads of documents that come first, by which a store knows them."""
        return [tuple(self._lead + ids) for ids in self._cut(plain_ids(self.compressor_tokenizer, documents))]

    def _queries_behind(self, questions: Sequence[str]) -> list[list[int]]:
        """Queries as they follow a document: behind an encoder's separator, or as the generator's prompt puts them.

        Where the memory starts as the reply, what leads to the reply's last token stands between query and memory.
        """
        tokenizer, budget = self.compressor_tokenizer, self.config.query_tokens
        if tokenizer.sep_token_id is not None:
            return [self._separator + ids[:budget] for ids in plain_ids(tokenizer, questions)]
        budget += len(plain_ids(tokenizer, [QUESTION])[0])
        lead = self.prompt.reply[:-1] if self.config.memory_init == "reply" else []
        return [ids[:budget] + lead for ids in plain_ids(tokenizer, [QUESTION + each.strip() for each in questions])]

    def limit_positions(self, base: PreTrainedModel, of_compressor: PositionLimit | None) -> None:
        """Refuse prompts that the generator cannot read, and now, not in mid-training, a compressor that cannot read.

        Args:
            base: the generator.
            of_compressor: how long a text the compressor's model reads exactly.

        Raises:
            ValueError: if the longest document with the longest query would be beyond that.
        """
        self.num_positions = getattr(base.config, "max_position_embeddings", None)
        self.position_limit = position_limit(base)
        if of_compressor is not None:
            of_compressor.check(self.longest_compressor_input(), LONGEST_INPUT, SHORTER_INPUT)

    def longest_compressor_input(self) -> int:
        """Return how many positions the longest document with the longest query takes, memory tokens included."""
        config = self.config
        frame = len(self._lead) + len(self._separator)
        if config.input_order == "document_first":
            # The words that lead to a query and, behind it, to the reply.
            frame += len(plain_ids(self.compressor_tokenizer, [QUESTION])[0]) + len(self.prompt.reply)
        return frame + config.query_tokens + config.document_tokens + config.num_memory_tokens + config.enable_reranking

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
        """The same prompts in full text, each document cut to ``document_tokens`` [the config's] tokens.

        They are what transformers makes of the chat template over the whole text. The embedded generator alone reads
        its documents tokenised apart: so it was trained, and so it answers better (0.93 against 0.82 of 300 questions).
        """
        prompts = []
        budget = self.config.document_tokens if document_tokens is None else document_tokens
        for question, each in zip(questions, documents, strict=True):
            texts = plain_ids(self.tokenizer, each)
            if document_tokens is None:
                self._warn_of_cut(texts)
            if self.config.generator_model == EMBEDDED:
                prompts.append(self.prompt.of_texts(question, [ids[:budget] for ids in texts]))
            else:
                prompts.append(self.prompt.as_chat(question, cut_texts(self.tokenizer, each, budget)))
        self._warn_of_length(questions, prompts)
        return prompts

    def answer_ids(self, answer: str, answer_tokens: int | None = None) -> list[int]:
        """What the generator learns to say: the answer and the token that ends it, cut at ``answer_tokens``."""
        return (plain_ids(self.tokenizer, [answer])[0] + [self.prompt.end_id])[:answer_tokens]

    def readout_targets(self, records: Iterable[Any], num_memory_tokens: int) -> Tensor:
        """What the memory of each document is to say by itself, token by token: (P, num_memory_tokens).

        A document that states the answer is to say it, as far as it goes, and another of the same record ``UNSTATED``.
        Where no document of a record states it, as with answers in a teacher's own words, nothing is asked for.
        """
        rows = []
        for record in records:
            stated = record.stated_answers
            asks = any(stated)
            rows += [self._read_ids(answer or UNSTATED, num_memory_tokens) if asks else [] for answer in stated]
        return torch.tensor([ids + [IGNORED] * (num_memory_tokens - len(ids)) for ids in rows],
                            dtype=torch.long).view(-1, num_memory_tokens)

    def _read_ids(self, answer: str, num_memory_tokens: int) -> list[int]:
        """An answer as it stands in a document, behind a space, where that is one word to the tokenizer."""
        bare, spaced = (self.answer_ids(text) for text in (answer, f" {answer}"))
        return (spaced if len(spaced) <= len(bare) else bare)[:num_memory_tokens]

    def draw_memory_tokens(self, records: Iterable[Any]) -> int:
        """One of the numbers of memory tokens that are trained together, for a step on ``records``.

        What they say draws it: a run that is resumed draws as one that never stopped, and all processes draw alike.
        """
        rng = random.Random("\n".join(f"{record.query} {record.answer}" for record in records))
        return rng.choice(self.config.memory_token_choices)

    def collate(self, records: Iterable[Any], answer_tokens: int | None = None, num_memory_tokens: int | None = None,
                with_readout: bool = False, shapes: Shapes | None = None, batch_size: int = 0) -> dict[str, Any]:
        """Return training records (``query``, ``documents``, ``answer``, ``reranking_scores``) as a batch.

        Args:
            answer_tokens: answers are cut there.
            num_memory_tokens: L [``config.num_memory_tokens``].
            with_readout: also say what each memory by itself is to say.
            shapes: give the batch one shape, that of ``batch_size`` of the longest records.

        Returns:
            ``documents`` (:class:`PackedTexts`) for the compressor; ``prompts`` (:class:`PackedTexts`), each with its
            answer but for the token that ends it, after which nothing is predicted; ``answer_targets`` (A,), the tokens
            that the wanted ones of ``prompts`` predict; ``num_memory_tokens``, L; ``padding_share``, of the tokens that
            are computed; with reranking ``teacher_scores`` (P,) and ``has_score`` (P,); with readout
            ``readout_targets`` (P, L).
        """
        records = list(records)
        questions, documents = [record.query for record in records], [record.documents for record in records]
        num_memory_tokens = self.config.checked_memory_tokens(num_memory_tokens)
        answers = [self.answer_ids(record.answer, answer_tokens) for record in records]

        texts = self.compressor_texts(questions, documents, num_memory_tokens)
        prompts = self.memory_prompts(questions, [len(each) for each in documents], num_memory_tokens)
        # A token is predicted by the one before it: the answer's first by the prompt's last.
        whole = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
        prompts = TextLists(whole, [], [], [_last(ids, len(own)) for ids, own in zip(whole, answers, strict=True)])
        batch: dict[str, Any] = {"num_memory_tokens": num_memory_tokens}
        if self.config.enable_reranking:
            batch |= _teacher_scores(records)
        if with_readout:
            batch["readout_targets"] = self.readout_targets(records, num_memory_tokens)

        num_needed = texts.num_tokens + prompts.num_tokens
        if shapes is not None:
            texts, prompts, answers, batch = shapes.fill(texts, prompts, answers, batch, batch_size)
        batch["documents"], batch["prompts"] = texts.packed(), prompts.packed()
        batch["answer_targets"] = torch.tensor([token for answer in answers for token in answer], dtype=torch.long)
        num_computed = prompts.num_tokens + self._num_computed(texts)
        return batch | {"padding_share": 1 - num_needed / max(1, num_computed)}

    def _num_computed(self, texts: TextLists) -> int:
        """An encoder computes padded texts, a causal compressor packed ones."""
        if self.config.compressor_type == "modernbert":
            return len(texts.prefixes) * max(map(len, texts.prefixes), default=0)
        return texts.num_tokens

    def save(self, folder: Path, compressor_folder: Path) -> None:
        """Write the tokenizers: the generator's, and the compressor's where it is another."""
        self.tokenizer.save_pretrained(folder)
        if self.compressor_tokenizer is not self.tokenizer:
            self.compressor_tokenizer.save_pretrained(compressor_folder)

    def _warn_of_length(self, questions: Sequence[str], prompts: Sequence[list[int]]) -> None:
        """Say which prompt is too long.

        Ordinary rotary positions have no hard end, so a prompt beyond what the generator was made for is answered, only
        badly: no error, a warning.

        Raises:
            ValueError: if a prompt is beyond the generator's hard limit.
        """
        if self.position_limit is not None:
            for question, prompt in zip(questions, prompts, strict=True):
                self.position_limit.check(len(prompt), f"the prompt of {question[:SHOWN_CHARACTERS]!r}", SHORTER_PROMPT)
        if self.num_positions is None or self._has_warned_of_prompt:
            return
        for question, prompt in zip(questions, prompts, strict=True):
            if len(prompt) >= self.num_positions:
                self._has_warned_of_prompt = True
                logger.warning("the prompt of %r has %d positions, the generator was made for %d, answer included: "
                               "expect bad answers; %s; said once", question[:SHOWN_CHARACTERS], len(prompt),
                               self.num_positions, SHORTER_PROMPT)
                return

    def _cut(self, texts: list[list[int]]) -> list[list[int]]:
        self._warn_of_cut(texts)
        return [ids[:self.config.document_tokens] for ids in texts]

    def _warn_of_cut(self, texts: list[list[int]]) -> None:
        limit = self.config.document_tokens
        longest = max([0, *map(len, texts)])
        if longest > limit and not self._has_warned:
            self._has_warned = True
            logger.warning("documents longer than %d tokens are cut there (the first such has %d); said once",
                           limit, longest)


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids before and after a query: the sequence start that the model knows, if any, and a separator."""
    start = tokenizer("").input_ids[:1]
    lead = start if start and start[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id) else []
    separator = plain_ids(tokenizer, ["\n"])[0] if tokenizer.sep_token_id is None else [tokenizer.sep_token_id]
    return lead, separator


def _last(ids: Sequence[int], number: int) -> range:
    """The places of the last ``number`` of some tokens."""
    return range(len(ids) - number, len(ids))


def _teacher_scores(records: Sequence[Any]) -> dict[str, Tensor]:
    scores = [score for record in records
              for score in (record.reranking_scores or [math.nan] * len(record.documents))]
    teacher = torch.tensor(scores, dtype=torch.float32)
    has_score = ~teacher.isnan()
    return {"teacher_scores": teacher.nan_to_num(), "has_score": has_score}
