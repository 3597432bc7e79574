"""Texts to token ids: the one place that knows the token layout of compressor and generator.

    compressor, query first       start query separator | document MEM x L RR
    compressor, document first    start document        | query MEM x L RR
    generator                     template system MEM x L SEP MEM x L question template | answer end
    and with text                 ... MEM x L numbers and names SEP text of a document SEP MEM x L ...

Left of a compressor's bar is a *prefix*, read once for all *suffixes* that continue it: a query for its documents, a
document for its queries (:mod:`scaledown.models.engine.packing`). An encoder reads every pair whole. Without a query
the layout is that of an empty one.

The L memory tokens MEM, the rerank token RR and the separator SEP between two documents are in no vocabulary, so their
ids are placeholders. The compressor fills them with trained embeddings, the generator with the compressor's memory and
a trained separator.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from scaledown.config import EMBEDDED, ENCODER, ScaleDownConfig, belongs_to_a_compressor
from scaledown.models.engine.fixed_shapes import Shapes
from scaledown.models.engine.packing import TextLists
from scaledown.models.engine.positions import PositionLimit, position_limit
from scaledown.models.processor.training_prompts import training_prompts
from scaledown.models.processor.training_targets import readout_targets, teacher_scores
from scaledown.prompt import QUESTION, Prompt
from scaledown.prompt.kept_numbers import kept_numbers
from scaledown.prompt.plain_text import cut_texts, plain_ids

MEMORY = -1
"""Placeholder in prompt ids: the next memory embedding goes here."""
SEPARATOR = -2
"""Placeholder in prompt ids: the trained separator between two documents goes here."""
NO_QUERY = ""
"""The query that a compressor reads if there is none: in training (``--query_dropout``) and in ``compress(None, ...)``.
"""
SHORTER_PROMPT = "give fewer documents (keep_documents), a shorter question or fewer memory tokens (num_memory_tokens)"
"""Advice if a prompt is too long."""
Texts = Sequence[Sequence[str | None]]
"""For each question its documents in the order of the prompt: a text, or None for the next one of the memory."""
SHOWN_QUESTION_CHARACTERS = 80
"""Length to which a question is cut in a message."""

logger = logging.getLogger(__name__)


class Processor:
    """Tokenises queries and documents for the compressor, prompts for the generator, and training records for both.

    It holds no tensors and can be sent to data-loading workers.

    Args:
        tokenizer: the generator's.
        config: the model's settings, among them the budgets of query, document and memory tokens.
        compressor_tokenizer: the compressor's, if it has a vocabulary of its own.
    """

    num_positions: int | None = None
    """Positions that the generator was made for; a prompt that leaves no room for an answer gets a warning."""
    position_limit: PositionLimit | None = None
    """Positions that the generator reads exactly, if limited; a prompt beyond them is refused."""

    def __init__(self, tokenizer: Any, config: ScaleDownConfig, compressor_tokenizer: Any = None) -> None:
        self.tokenizer = tokenizer
        self.compressor_tokenizer = compressor_tokenizer or tokenizer
        self.config = config
        self.prompt = Prompt(tokenizer, config.system_prompt, config.instruction)
        self._start, self._separator = _start_and_separator(self.compressor_tokenizer)
        self._warnings: set[str] = set()

    # The compressor's texts

    def compressor_texts(self, questions: Sequence[str], documents: Sequence[Sequence[str]],
                         num_memory_tokens: int | None = None) -> TextLists:
        """Return the texts that the compressor reads for the P pairs of a question and one of its documents.

        Each pair ends with L placeholders, ``num_memory_tokens`` [``config.num_memory_tokens``], and with reranking one
        more. Without a compressor there are no texts.
        """
        if self.config.reads_text:
            return TextLists([], [], [], [])

        # All documents are tokenised together, question by question.
        flat_documents: list[str] = []
        question_of_pair: list[int] = []
        for number, of_question in enumerate(documents):
            flat_documents += of_question
            question_of_pair += [number] * len(of_question)
        return self._pairs(questions, self.document_keys(flat_documents), question_of_pair, num_memory_tokens)

    def texts_without_query(self, keys: Sequence[tuple[int, ...]], num_memory_tokens: int) -> TextLists:
        """Return the texts that the compressor reads for documents by themselves, whose ids are known."""
        return self._pairs([NO_QUERY], keys, [0] * len(keys), num_memory_tokens)

    def _pairs(self, questions: Sequence[str], keys: Sequence[tuple[int, ...]], question_of_pair: Sequence[int],
               num_memory_tokens: int | None) -> TextLists:
        """Return the texts of P pairs: of each the document's key, and the number of its question."""
        config = self.config
        num_special = (num_memory_tokens or config.num_memory_tokens) + config.enable_reranking
        special = [0] * num_special

        if config.input_order == "query_first":
            prefixes = [self._start + ids[:config.query_tokens] + self._separator
                        for ids in plain_ids(self.compressor_tokenizer, questions)]
            prefix_of_pair = question_of_pair
            # A key begins as a text does, and these documents follow a query.
            suffixes = [[*key[len(self._start):], *special] for key in keys]
        else:
            # A document of several questions is one prefix.
            numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
            prefixes, prefix_of_pair = list(numbers), [numbers[key] for key in keys]
            queries = self._query_suffixes(questions)
            suffixes = [queries[number] + special for number in question_of_pair]

        if config.reads_with == ENCODER:
            # In an encoder a prefix's states depend on what follows it, so nothing can be shared.
            pairs = [[*prefixes[number], *suffix] for number, suffix in zip(prefix_of_pair, suffixes, strict=True)]
            return TextLists(pairs, [], [], [_last(ids, num_special) for ids in pairs])

        # Final states are wanted of the special tokens alone, so of prefixes none.
        reads = [range(0)] * len(prefixes) + [_last(ids, num_special) for ids in suffixes]
        return TextLists(prefixes, suffixes, prefix_of_pair, reads)

    def document_keys(self, documents: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids of documents as they are read first, cut; by these a store knows them."""
        return [tuple(self._start + ids) for ids in self._cut(plain_ids(self.compressor_tokenizer, documents))]

    def _query_suffixes(self, questions: Sequence[str]) -> list[list[int]]:
        """Return queries as they follow a document: after an encoder's separator, or worded as in the prompt."""
        tokenizer, limit = self.compressor_tokenizer, self.config.query_tokens
        if tokenizer.sep_token_id is not None:
            return [self._separator + ids[:limit] for ids in plain_ids(tokenizer, questions)]

        # The words that lead to the question do not count as part of it.
        limit += len(plain_ids(tokenizer, [QUESTION])[0])
        # Memory tokens that start as the last token of what leads to a reply come after its other tokens.
        reply = self.prompt.reply[:-1] if self.config.memory_init == "reply" else []
        worded = [QUESTION + question.strip() for question in questions]
        return [ids[:limit] + reply for ids in plain_ids(tokenizer, worded)]

    def _cut(self, documents: list[list[int]], document_tokens: int | None = None) -> list[list[int]]:
        """Cut the ids of documents to ``document_tokens`` [``config.document_tokens``, with a warning]."""
        limit = self.config.document_tokens if document_tokens is None else document_tokens
        longest = max(map(len, documents), default=0)
        if document_tokens is None and longest > limit:
            self.warn_once("documents longer than %d tokens are cut there (the first such has %d); long_documents "
                           "split reads all of them; said once", limit, longest)
        return [ids[:limit] for ids in documents]

    # The generator's prompts

    def memory_prompts(self, questions: Sequence[str], num_documents: Sequence[int],
                       num_memory_tokens: int | None = None, texts: Texts | None = None,
                       kept_numbers: Sequence[Sequence[str]] | None = None,
                       document_tokens: int | None = None) -> list[list[int]]:
        """Return prompts with ``num_memory_tokens`` placeholders [``config.num_memory_tokens``] for each document.

        A text among memory is tokenised by itself. A question with all its documents as text has exactly the prompt of
        :meth:`text_prompts`; one without documents that of memory.

        Args:
            num_documents: of each question, those in its memory.
            texts: for each question its documents in the order of the prompt: the text of one that is read as text, or
                None for the next one of the memory [all are of the memory].
            kept_numbers: a text behind each document of the memory (:meth:`kept_numbers`) [none].
            document_tokens: a text is cut there [``config.document_tokens``, with a warning].
        """
        memory = [MEMORY] * (num_memory_tokens or self.config.num_memory_tokens)
        prompts = []
        for number, question in enumerate(questions):
            of_question = [None] * num_documents[number] if texts is None else texts[number]
            assert of_question.count(None) == num_documents[number], "a place for each document of the memory"
            # If nothing is read from memory, it is a prompt in full text.
            if of_question and None not in of_question:
                prompts += self.text_prompts([question], [of_question], document_tokens)
            else:
                behind = [""] * num_documents[number] if kept_numbers is None else kept_numbers[number]
                prompts.append(self._memory_prompt(question, of_question, memory, behind, document_tokens))
        self._check_lengths(questions, prompts)
        return prompts

    def _memory_prompt(self, question: str, texts: Sequence[str | None], memory: Sequence[int],
                       kept_numbers: Sequence[str], document_tokens: int | None) -> list[int]:
        """Return the prompt of one question, of whose documents at least one is read from memory, or that has none."""
        # Every text is tokenised by itself, as nothing can be tokenised across an embedding.
        behind = iter(plain_ids(self.tokenizer, kept_numbers))
        documents = []
        for text in texts:
            if text is None:
                documents.append([*memory, *next(behind)])
            else:
                documents += self._cut(plain_ids(self.tokenizer, [text]), document_tokens)
        return self.prompt.of_documents(question, documents, [text is not None for text in texts], SEPARATOR)

    def kept_numbers(self, questions: Sequence[str], documents: Sequence[Sequence[str]]) -> list[list[str]] | None:
        """Return the numbers and names behind each document's memory; None for a model without ``--keep_numbers``."""
        if not self.config.keep_numbers:
            return None
        return [kept_numbers(self.tokenizer, question, of_question, self.config.keep_numbers)
                for question, of_question in zip(questions, documents, strict=True)]

    def text_prompts(self, questions: Sequence[str], documents: Sequence[Sequence[str]],
                     document_tokens: int | None = None) -> list[list[int]]:
        """Return the same prompts in full text, each document cut to ``document_tokens`` [``config.document_tokens``].

        They are what transformers makes of the chat template over the whole text. Only the demo generator reads
        each document tokenised by itself: it was trained that way, and answers better (0.93 against 0.82 of 300
        questions).
        """
        limit = self.config.document_tokens if document_tokens is None else document_tokens
        prompts = []
        for question, texts in zip(questions, documents, strict=True):
            # Also warns, once, of documents that are cut.
            document_ids = self._cut(plain_ids(self.tokenizer, texts), document_tokens)
            if self.config.generator_model == EMBEDDED:
                prompts.append(self.prompt.of_texts(question, document_ids))
            else:
                prompts.append(self.prompt.as_chat(question, cut_texts(self.tokenizer, texts, limit)))
        self._check_lengths(questions, prompts)
        return prompts

    # Training

    def answer_ids(self, answer: str, answer_tokens: int | None = None) -> list[int]:
        """Return the tokens that the generator is trained to say: answer and end token, cut at ``answer_tokens``."""
        return (plain_ids(self.tokenizer, [answer])[0] + [self.prompt.end_id])[:answer_tokens]

    def checked_memory_tokens(self, num_memory_tokens: int | None) -> int:
        """Return ``num_memory_tokens``, or for None the largest number that the model is trained for.

        Raises:
            ValueError: for a number that the model is not trained for.
        """
        if num_memory_tokens is None:
            return self.config.num_memory_tokens
        # 2.0 and True equal whole numbers, but count nothing.
        is_number = isinstance(num_memory_tokens, int) and not isinstance(num_memory_tokens, bool)
        if not is_number or num_memory_tokens not in self.config.memory_token_choices:
            choices = " ".join(map(str, self.config.memory_token_choices))
            raise ValueError(f"num_memory_tokens={num_memory_tokens!r}: this model is trained for {choices}; others "
                             "are trained with --train_memory_tokens")
        return num_memory_tokens

    def collate(self, records: Iterable[Any], answer_tokens: int | None = None, num_memory_tokens: int | None = None,
                with_readout: bool = False, shapes: Shapes | None = None, batch_size: int = 0,
                text_documents: Sequence[Sequence[int]] | None = None,
                without_query: Sequence[bool] | None = None) -> dict[str, Any]:
        """Return training records (``query``, ``documents``, ``answer``, ``reranking_scores``) as a batch.

        Args:
            answer_tokens: answers are cut there.
            num_memory_tokens: L [``config.num_memory_tokens``].
            with_readout: add the targets of each document's memory by itself.
            shapes: give the batch one shape, that of ``batch_size`` of the longest records.
            text_documents: of each record, the numbers of the documents that the prompt has as text. They are
                compressed all the same, since their scores and readouts are trained as well.
            without_query: of each record, whether its documents are compressed without the query, which the prompt has
                all the same. They have no targets of scores and readouts, which depend on the query [all are with it].

        Returns:
            ``documents`` (:class:`PackedTexts`) for the compressor; ``prompts`` (:class:`PackedTexts`) with their
            answers; ``answer_targets`` (A,), the next tokens of those that ``prompts`` reads; ``num_memory_tokens``, L;
            ``padding_share``, of all tokens that are computed; with reranking ``teacher_scores`` (P,) and
            ``has_score`` (P,); with readout ``readout_targets`` (P, L); with ``text_documents`` also ``in_prompts``,
            the numbers of the pairs whose memory ``prompts`` read. Without a compressor ``documents`` has no text, and
            ``prompts`` have the documents' own.

        Raises:
            ValueError: for readout of a memory that there is none of.
        """
        if with_readout and self.config.reads_text:
            raise ValueError(belongs_to_a_compressor("readout_loss_weight"))
        records = list(records)
        questions, documents = [record.query for record in records], [record.documents for record in records]
        answers = [self.answer_ids(record.answer, answer_tokens) for record in records]
        num_memory_tokens = self.checked_memory_tokens(num_memory_tokens)

        without_query = [False] * len(records) if without_query is None else without_query
        queries = _queries_read(questions, without_query)
        texts = self.compressor_texts(queries, documents, num_memory_tokens)
        batch: dict[str, Any] = {"num_memory_tokens": num_memory_tokens}
        if self.config.reads_text:
            prompts = self.text_prompts(questions, documents)
        else:
            prompts, in_prompts = training_prompts(self, questions, queries, documents, num_memory_tokens,
                                                   text_documents)
            if text_documents is not None:
                batch["in_prompts"] = torch.tensor(in_prompts, dtype=torch.long)

        # A token is predicted by the one before it, the answer's first by the prompt's last. So the end token is not
        # read, and as many tokens are wanted as the answer has.
        whole, reads = [], []
        for prompt, answer in zip(prompts, answers, strict=True):
            whole.append([*prompt, *answer[:-1]])
            reads.append(_last(whole[-1], len(answer)))
        prompt_texts = TextLists(whole, [], [], reads)

        if self.config.enable_reranking:
            batch |= teacher_scores(records, without_query)
        if with_readout:
            batch["readout_targets"] = readout_targets(self, records, num_memory_tokens, without_query)

        num_needed = texts.num_tokens + prompt_texts.num_tokens
        if shapes is not None:
            texts, prompt_texts, answers, batch = shapes.fill(texts, prompt_texts, answers, batch, batch_size)
        batch["documents"], batch["prompts"] = texts.packed(), prompt_texts.packed()
        batch["answer_targets"] = torch.tensor(list(itertools.chain.from_iterable(answers)), dtype=torch.long)

        num_computed = texts.num_tokens
        if self.config.reads_with == ENCODER:
            # An encoder pads its texts, a causal compressor packs them.
            num_computed = len(texts.prefixes) * max(map(len, texts.prefixes), default=0)
        batch["padding_share"] = 1 - num_needed / max(1, num_computed + prompt_texts.num_tokens)
        return batch

    def save(self, folder: Path, compressor_folder: Path) -> None:
        """Write the tokenizers: the generator's, and the compressor's if it is another."""
        self.tokenizer.save_pretrained(folder)
        if self.compressor_tokenizer is not self.tokenizer:
            self.compressor_tokenizer.save_pretrained(compressor_folder)

    # What the models can read

    def limit_positions(self, base: PreTrainedModel, of_compressor: PositionLimit | None) -> None:
        """Set the limits of prompts, and refuse a compressor that cannot read its longest input before training starts.

        Args:
            base: the generator.
            of_compressor: the longest text that the compressor's model reads exactly.

        Raises:
            ValueError: if the longest query with the longest document is beyond the compressor's limit.
        """
        self.num_positions = getattr(base.config, "max_position_embeddings", None)
        self.position_limit = position_limit(base)
        if of_compressor is None:
            return

        config = self.config
        longest = len(self._start) + config.query_tokens + len(self._separator) + config.document_tokens
        longest += config.num_memory_tokens + config.enable_reranking
        if config.input_order == "document_first":
            # The words that lead to the query, and to the reply after it.
            longest += len(plain_ids(self.compressor_tokenizer, [QUESTION])[0]) + len(self.prompt.reply)
        of_compressor.check(longest, "the longest input of the compressor (query, document and memory tokens)",
                            "lower --query_tokens or --compression_rate, or choose another --compressor_model")

    def _check_lengths(self, questions: Sequence[str], prompts: Sequence[list[int]]) -> None:
        """Refuse a prompt beyond the generator's hard limit, and warn of one that leaves no room for an answer."""
        for question, prompt in zip(questions, prompts, strict=True):
            shown = question[:SHOWN_QUESTION_CHARACTERS]
            if self.position_limit is not None:
                self.position_limit.check(len(prompt), f"the prompt of {shown!r}", SHORTER_PROMPT)

            # Ordinary rotary positions have no hard end: beyond them the generator still answers, only badly.
            if self.num_positions is not None and len(prompt) >= self.num_positions:
                self.warn_once("the prompt of %r has %d positions, the generator was made for %d, answer included: "
                               "expect bad answers; %s; said once", shown, len(prompt), self.num_positions,
                               SHORTER_PROMPT)

    def warn_once(self, message: str, *values: object) -> None:
        """Log a warning, if the same one has not been logged before."""
        if message not in self._warnings:
            self._warnings.add(message)
            logger.warning(message, *values)


def _start_and_separator(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids before and after a query: the start of a sequence, if the model knows one, and a separator."""
    start = tokenizer("").input_ids[:1]
    if start and start[0] not in (tokenizer.bos_token_id, tokenizer.cls_token_id):
        start = []
    # Encoders have a token that separates, causal models read a line break.
    separator = plain_ids(tokenizer, ["\n"])[0] if tokenizer.sep_token_id is None else [tokenizer.sep_token_id]
    return start, separator


def _queries_read(questions: Sequence[str], without_query: Sequence[bool]) -> list[str]:
    """Return the queries that the compressor reads."""
    return [NO_QUERY if is_without else question for question, is_without in zip(questions, without_query, strict=True)]


def _last(ids: Sequence[int], number: int) -> range:
    """Return the places of the last ``number`` tokens of a text."""
    return range(len(ids) - number, len(ids))
