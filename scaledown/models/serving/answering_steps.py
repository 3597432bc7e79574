"""Answering step by step, for measurements, and for other engines such as vLLM.

    memory --prompts--> Prompts --prefill--> Prompts --decode--> answers
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from scaledown.config import SPLIT, ScaleDownConfig
from scaledown.models.computing import ComputingModule
from scaledown.models.generator import Prompts
from scaledown.models.loading import generator_files
from scaledown.models.loading.merging import merged, write_adapter
from scaledown.models.loading.model_fingerprint import fingerprint
from scaledown.models.memory import Memory
from scaledown.models.processor import Processor, Texts
from scaledown.models.serving import question_answering
from scaledown.models.serving.inputs.long_documents import checked_long_documents
from scaledown.models.serving.inputs.user_input import (
    Documents,
    Questions,
    check_number,
    check_type,
    question_list,
    read_input,
)
from scaledown.models.serving.text_documents import TextDocuments


class AnsweringSteps(ComputingModule):
    """The steps of :meth:`ScaleDownModel.answer`, each by itself."""

    config: ScaleDownConfig
    processor: Processor
    generator_files: generator_files.GeneratorFiles | None
    stop_ids: list[int]
    long_documents: str = SPLIT
    """What becomes of long documents if a call does not say: "split" or "cut" (see :meth:`ScaleDownModel.answer`)."""

    def long_documents_or(self, long_documents: str | None) -> str:
        """Return what becomes of long documents: as a call says, or for None as the model does.

        Raises:
            ValueError: if it is neither "split" nor "cut".
        """
        return checked_long_documents(self.long_documents if long_documents is None else long_documents)

    def prompts(self, questions: Questions, memory: Memory, texts: Texts | None = None,
                document_tokens: int | None = None) -> Prompts:
        """Return the prompts of ``questions`` as embeddings, with their documents' memory, and texts beside it.

        Args:
            texts: for each question its documents in the order of the prompt: the text of one that is read as text, or
                None for the next one of the memory [all are of the memory].
            document_tokens: each of ``texts`` is cut to this length [``config.document_tokens``].

        Raises:
            ValueError: if the memory belongs to other questions or another model, does not fit ``texts``, or lacks the
                numbers and names that a model with ``--keep_numbers`` reads behind it.
        """
        questions = question_list(questions)
        check_type("memory", memory, Memory)
        memory = memory.checked(questions, fingerprint(self))
        num_documents = memory.num_documents.tolist()
        if texts is not None:
            places = [of_question.count(None) for of_question in texts]
            if places != num_documents:
                raise ValueError(f"texts leave {places} places for memory, and there is memory of {num_documents} "
                                 "documents: give None for each that is read from memory, its text for any other")

        # Memory has no texts, so what stands behind it was noted when they were compressed.
        kept_numbers = None if memory.origin is None else memory.origin.kept_numbers
        if self.config.keep_numbers and kept_numbers is None:
            raise ValueError("this model reads numbers and names behind memory (--keep_numbers), and this memory does "
                             "not know them: take what compress returns")
        with self.inference():
            ids = self.processor.memory_prompts(questions, num_documents, memory.embeddings.shape[2], texts,
                                                kept_numbers, document_tokens)
            return self.generator.prompts(ids, memory.to(self.device).pairs())

    def prefill(self, questions: Questions, memory: Memory, texts: Texts | None = None) -> Prompts:
        """Read the prompts of ``questions``, as :meth:`prompts` has them; :meth:`decode` continues from the result."""
        prompts = self.prompts(questions, memory, texts)
        with self.inference():
            self.generator.prefill(prompts)
        return prompts

    def prefill_text(self, questions: Questions, documents: Documents, document_tokens: int | None = None,
                     with_adapter: bool = False, long_documents: str | None = None) -> Prompts:
        """Read the same prompts in full text, unless asked otherwise with LoRA off: the generator as it was.

        Args:
            document_tokens: each document is cut to this length; one that is split for the compressor, to this length
                for each of its passages, from its start [not at all, or with "cut" at ``config.document_tokens``].
            with_adapter: with LoRA on, as a model that was trained on full text (``--compressor_type none``) answers.
            long_documents: "split" or "cut", as in :meth:`answer`: the text is that which the compressor reads.
        """
        given = read_input(questions, documents)
        prompts = question_answering.text_prompts(self, given, document_tokens, with_adapter, long_documents)
        with self.inference():
            self.generator.prefill(prompts)
        return prompts

    def decode(self, prompts: Prompts, max_new_tokens: int, **options: Any) -> list[str]:
        """Return the answers to ``prompts``; sets ``prompts.num_new_tokens``.

        Raises:
            ValueError: if a prompt with an answer of ``max_new_tokens`` is longer than the generator reads exactly.
        """
        check_number("max_new_tokens", max_new_tokens)
        generation = question_answering.generation_of(self, max_new_tokens, options)
        return question_answering.generate(self, prompts, generation)

    def prompt_embeds(self, questions: Questions, documents: Documents | None = None,
                      memory: Memory | None = None, text_documents: TextDocuments = None) -> Tensor | list[Tensor]:
        """Return the input of the generator for each question, (T, D): the prompt with its documents' memory.

        vLLM's ``prompt_embeds`` and transformers' ``generate(inputs_embeds=...)`` take it, for the generator that
        :meth:`merge` returns.

        Raises:
            ValueError: as :meth:`answer`.
        """
        request = question_answering.checked_request(self, questions, documents, memory, text_documents=text_documents)
        embeddings = question_answering.prompt_embeds(self, request)
        return embeddings[0] if request.given.is_one else embeddings

    def merge(self, folder: Path | str | None = None) -> PreTrainedModel:
        """Return the generator with its adapter folded in, as a plain model of transformers on the CPU.

        From :meth:`prompt_embeds` it gives this model's answers (up to rounding, if this one holds its base in 4 or 8
        bits). The base is loaded again, so this model does not change and no device has to hold both.

        Args:
            folder: also write it there with its tokenizer, for transformers, vLLM and others.

        Raises:
            ValueError: if the base cannot be read any more or has changed, ``folder`` holds a model, or the disk is
                full.
        """
        # The adapter was trained on the base as it was; folded into another one, it would give other answers.
        self._check_whole()
        generator_files.check_unchanged(self.config, self.generator_files)
        return merged(self.config, self.generator, self.dtype, self.stop_ids, self.processor.tokenizer, folder)

    def save_adapter(self, folder: Path | str) -> None:
        """Write the generator's adapter in peft's format, for engines that apply it to the base as they answer.

        From :meth:`prompt_embeds` they give this model's answers, if they also take the stop tokens from the folder's
        ``generation_config.json``. One engine can so serve several adapters, and the base itself.

        Raises:
            ValueError: if the adapter was folded in, ``folder`` holds a model, or the disk is full.
        """
        self._check_whole()
        write_adapter(self.config, self.generator, self.stop_ids, self.processor.tokenizer, folder)
