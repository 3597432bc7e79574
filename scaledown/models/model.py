"""ScaleDown: a compressor and a generator as one model (paper, section 3).

    question, documents -> processor -> compressor -> memory (B, K, L, D), scores (B, K)
    question, memory    -> processor -> generator  -> answer

This file is the table of contents: each method says what it does, and calls the module that does it.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models import losses
from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.engine import packing
from scaledown.models.generator import Generator, Prompts
from scaledown.models.loading import checkpoint, generator_files, model_card, parameters, pretrained
from scaledown.models.loading.build import build_compressor, resolve, start_memory_as_reply
from scaledown.models.loading.merging import merged
from scaledown.models.loading.training_progress import TrainingProgress
from scaledown.models.losses import Losses
from scaledown.models.memory import Keep, Memory, by_score
from scaledown.models.processor import Processor
from scaledown.models.serving import compressing, question_answering
from scaledown.models.serving.cache import MemoryCache
from scaledown.models.serving.store import DocumentStore
from scaledown.models.serving.streaming import Piece
from scaledown.models.serving.user_input import Documents, check_number, check_texts

logger = logging.getLogger(__name__)


class ScaleDownModel(nn.Module):
    """Compresses documents with their question, and answers from the compressed documents.

    Args:
        config: what to build. Without a checkpoint the compressor, LoRA and memory tokens are new; new weights are
            drawn from torch's global random state (seed it for a repeatable model).
        device: of the model [cpu].
        dtype: of the generator's base and of the arithmetic [float32]; trained weights are float32.
        folder: a checkpoint's folder, for its tokenizers; call :meth:`from_pretrained` to load a checkpoint.

    Attributes:
        config: the settings, with the number of layers and the revisions in use.
        processor: texts to token ids.
        compressor: documents to memory.
        generator: prompts with memory to answers.
        stop_ids: every token that ends an answer.
        generator_files: fingerprints of the files of the generator's base; None if they are not known.
        progress: the number of steps and scores that it was trained on; the trainer counts.

    Raises:
        ValueError: for a generator or compressor that cannot be found, read or used.
    """

    # Loading

    def __init__(self, config: ScaleDownConfig, device: torch.device | str | None = None,
                 dtype: torch.dtype | None = None, folder: Path | None = None) -> None:
        super().__init__()
        self.dtype = dtype or torch.float32
        self._one_at_a_time = threading.RLock()

        # The compressor first: its layers are a copy of the generator's, before LoRA and quantisation.
        quantised = pretrained.quantisation(config, self.dtype, torch.device(device or "cpu"))
        base = pretrained.load_base(config, self.dtype)
        self.generator_files, self.progress = generator_files.read(config), TrainingProgress()
        self.config = resolve(config, base.config.num_hidden_layers, is_new=folder is None)
        self.compressor, compressor_tokenizer = build_compressor(self.config, base, folder)
        if quantised is not None:
            base = pretrained.load_base(config, self.dtype, quantised)
        self.generator = Generator(self.config, base)

        # The tokenizers, and the texts that both models can read.
        tokenizer = pretrained.load_generator_tokenizer(self.config, folder)
        pretrained.check_vocabulary(tokenizer, base, folder or self.config.generator_model)
        self.processor = Processor(tokenizer, self.config, compressor_tokenizer)
        self.processor.limit_positions(base, self.compressor.position_limit)
        self.stop_ids = question_answering.stop_ids(self.processor, base)
        # generate would take the base's own penalties, temperatures and beams from here.
        base.generation_config = GenerationConfig()
        if self.config.memory_init == "reply":
            start_memory_as_reply(self.config, self.compressor, self.processor.prompt.reply, self.generator.embed)
        self.to(device or "cpu")
        self.eval()

    @classmethod
    def from_pretrained(cls, name: Path | str, device: torch.device | str | None = None,
                        dtype: torch.dtype | None = None, revision: str | None = None) -> ScaleDownModel:
        """Load a checkpoint: a folder, a Hub id, or one that ships, by name.

        Two checkpoints ship: "embedded" answers and scores documents; "embedded_modernbert" compresses with an encoder
        and only answers. Both use the demo generator, which knows its own made-up world and little else.

        Raises:
            ValueError: if it does not exist, a file is missing, damaged or of another model, or its generator is
                missing or is not the one that it was trained on.
        """
        folder = checkpoint.find(str(name), revision)
        config = generator_files.locate(folder, ScaleDownConfig.load(folder))
        # Before anything large is read, if the generator is on this disk already; load_trained checks again.
        generator_files.check(folder, config, generator_files.read(config))
        model = cls(config, device, dtype, folder)
        model.load_trained(folder)
        if config.enable_reranking and (warning := model.progress.warning()):
            logger.warning("%s: %s", folder, warning)
        return model

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.generator.separator_row.device

    # Answering

    def answer(self, questions: Sequence[str], documents: Documents | None = None, memory: Memory | None = None,
               max_new_tokens: int = 64, batch_size: int = 8, num_memory_tokens: int | None = None,
               keep_documents: Keep = None, cache: MemoryCache | None = None, stream: bool = False,
               **options: Any) -> list[str] | Iterator[Piece]:
        """Answer questions from their documents, or from memory that :meth:`compress` gave.

        A question may have any number of documents, even none. Questions of similar length are answered together; the
        answers have the order of the questions. Decoding is greedy unless ``options`` say otherwise.

        Args:
            keep_documents: the generator reads this number of a question's best documents, or with "auto" those that
                score above the calibrated threshold [all, in the order given].
            cache: only documents that it does not hold for their question are compressed.
            stream: yield the answers piece by piece as they grow, each piece with the number of its question.
            options: of transformers' ``generate``, such as ``do_sample``, ``temperature``, ``num_beams``,
                ``stopping_criteria`` or ``generation_config``.

        Raises:
            ValueError: if documents and memory are both given, do not fit the questions, or the model cannot choose.
        """
        if stream and "streamer" in options:
            raise ValueError("give stream or a streamer of your own, not both")

        # Refused, if at all, before anything is computed; a stream would fail only when it is read.
        asked = question_answering.Request(questions, documents, memory, max_new_tokens, batch_size, num_memory_tokens,
                                  keep_documents, cache, options)
        asked.check(self)
        if stream:
            return question_answering.stream(self, asked)
        return [answer.text for answer in question_answering.answers(self, asked)]

    def answer_with_sources(self, questions: Sequence[str], documents: Documents | None = None,
                            memory: Memory | None = None, max_new_tokens: int = 64, batch_size: int = 8,
                            num_memory_tokens: int | None = None, keep_documents: Keep = None,
                            cache: MemoryCache | None = None, **options: Any) -> list[question_answering.Answer]:
        """As :meth:`answer`; an answer also has its documents, in the order in which they were read, and scores."""
        asked = question_answering.Request(questions, documents, memory, max_new_tokens, batch_size, num_memory_tokens,
                                  keep_documents, cache, options)
        asked.check(self)
        return question_answering.answers(self, asked)

    def compress(self, questions: Sequence[str], documents: Documents, batch_size: int = 8,
                 num_memory_tokens: int | None = None, cache: MemoryCache | None = None,
                 store: DocumentStore | None = None) -> Memory:
        """Compress each question's documents; ``batch_size`` questions at a time.

        Args:
            num_memory_tokens: L, one of ``config.memory_token_choices`` [the most].
            cache: only documents that it does not hold for their question are compressed.
            store: documents that :meth:`read_documents` has read; missing ones are read now and added to it.

        Returns:
            embeddings (B, K, L, D), zero-padded over K, scores (B, K) or None, num_documents (B,).

        Raises:
            ValueError: if questions and documents do not fit, L is not trained, or the store is another model's.
        """
        return compressing.compress(self, questions, documents, batch_size, num_memory_tokens, cache, store)

    def rerank(self, question: str, documents: Sequence[str]) -> tuple[list[int], list[float]]:
        """Return the numbers of the documents by relevance, best first, and their scores in the order given.

        Raises:
            ValueError: for a model without a reranking head.
        """
        if not self.config.enable_reranking:
            raise ValueError("this model has no reranking head; train one with --enable_reranking")
        scores = self.compress([question], [documents]).scores[0].tolist()
        return by_score(scores), scores

    def read_documents(self, documents: Sequence[str], store: DocumentStore | None = None,
                       batch_size: int = 32) -> DocumentStore:
        """Read documents ahead of all questions; :meth:`compress` continues from the store, with exactly equal results.

        Args:
            documents: repeated ones are read once.
            store: gets those that it does not have yet [a new store].

        Raises:
            ValueError: if the model reads the query first or with an encoder, or the store is another model's.
        """
        if self.config.input_order != "document_first" or not isinstance(self.compressor, CausalCompressor):
            raise ValueError("only an n_layers or llm compressor trained with --input_order document_first can read "
                             "documents ahead of questions")
        check_texts([""], [documents])
        check_number("batch_size", batch_size)
        store = DocumentStore(self.compressor) if store is None else store
        with self.inference():
            store.read(self.processor.document_keys(documents), self.compressor, self.generator.embed, batch_size)
        return store

    # Answering step by step: for measurements, and for other engines

    def prompts(self, questions: Sequence[str], memory: Memory) -> Prompts:
        """Return the prompts of ``questions`` as embeddings, with their documents' memory."""
        if len(questions) != len(memory):
            raise ValueError(f"{len(questions)} questions, but memory for {len(memory)}")
        with self.inference():
            ids = self.processor.memory_prompts(questions, memory.num_documents.tolist(), memory.embeddings.shape[2])
            return self.generator.prompts(ids, memory.pairs())

    def prefill(self, questions: Sequence[str], memory: Memory) -> Prompts:
        """Read the prompts of ``questions`` with their documents' memory; :meth:`decode` continues from the result."""
        prompts = self.prompts(questions, memory)
        with self.inference():
            self.generator.prefill(prompts)
        return prompts

    def prefill_text(self, questions: Sequence[str], documents: Documents,
                     document_tokens: int | None = None) -> Prompts:
        """Read the same prompts in full text with LoRA off: the generator as it was, for comparison.

        Args:
            document_tokens: each document is cut to this length [``config.document_tokens``, as for the compressor].
        """
        check_texts(questions, documents)
        with self.inference():
            ids = self.processor.text_prompts(questions, documents, document_tokens)
            prompts = self.generator.prompts(ids, None, with_adapter=False)
            self.generator.prefill(prompts)
        return prompts

    def decode(self, prompts: Prompts, max_new_tokens: int, **options: Any) -> list[str]:
        """Return the answers to ``prompts``; sets ``prompts.num_new_tokens``.

        Raises:
            ValueError: if a prompt with an answer of ``max_new_tokens`` is longer than the generator reads exactly.
        """
        check_number("max_new_tokens", max_new_tokens)
        return question_answering.generate(self, prompts, max_new_tokens, **options)

    def prompt_embeds(self, questions: Sequence[str], documents: Documents | None = None,
                      memory: Memory | None = None) -> list[Tensor]:
        """Return the input of the generator for each question, (T, D): the prompt with its documents' memory.

        vLLM's ``prompt_embeds`` and transformers' ``generate(inputs_embeds=...)`` take it, for the generator that
        :meth:`merge` returns.

        Raises:
            ValueError: as :meth:`answer`.
        """
        question_answering.Request(questions, documents, memory).check(self)
        if memory is None:
            memory = self.compress(questions, [[] for _ in questions] if documents is None else documents)
        prompts = self.prompts(questions, memory)

        # Without the padding, which is on the left; dummies of a rounded shape come last and are dropped.
        padded = zip(prompts.embeddings.to(self.dtype), prompts.num_prompt_tokens, strict=False)
        return [embeddings[len(embeddings) - length:] for embeddings, length in padded]

    def merge(self, folder: Path | str | None = None) -> PreTrainedModel:
        """Return the generator with its adapter folded in, as a plain model of transformers on the CPU.

        From :meth:`prompt_embeds` it gives this model's answers (up to rounding, if this one holds its base in 4 or 8
        bits). The base is loaded again, so this model does not change and no device has to hold both.

        Args:
            folder: also write it there with its tokenizer, for transformers, vLLM and others.

        Raises:
            ValueError: if the base cannot be read any more or has changed, or the disk is full.
        """
        generator_files.check_unchanged(self.config, self.generator_files)
        return merged(self.config, self.generator, self.dtype, self.stop_ids, self.processor.tokenizer, folder)

    # Training

    def forward(self, batch: dict[str, Any]) -> Losses:
        """Return the losses of a batch that :meth:`Processor.collate` made (paper, equation 3).

        With readout targets, each memory is also read by itself. Without prompts the generator is not run.
        """
        batch = packing.moved(batch, self.device)

        with self._autocast():
            memory, scores = self.compressor(batch["documents"], self.generator.embed, batch["num_memory_tokens"])
            answer_loss, readout_loss = None, None                            # memory (P, L, D), scores (P,)

            if "prompts" in batch:
                states = self.generator.states(batch["prompts"], memory)      # (A, D)
                answer_loss = self.generator.answer_loss(states, batch["answer_targets"])

            if "readout_targets" in batch:
                table = self.generator.base.get_input_embeddings().weight
                readout_loss = losses.readout_loss(memory, table, batch["readout_targets"])
        return Losses(answer_loss, losses.score_error(scores, batch), readout_loss)

    def parameter_groups(self, lr_generator: float, lr_compressor: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return optimiser groups ``{generator,compressor}_{weights,rows}`` with two learning rates (table 7)."""
        return (parameters.groups("generator", self.generator, lr_generator, weight_decay)
                + parameters.groups("compressor", self.compressor, lr_compressor, weight_decay))

    def gradient_checkpointing_enable(self) -> None:
        """Keep few activations in training, and compute the others twice."""
        self.compressor.gradient_checkpointing_enable()
        self.generator.gradient_checkpointing_enable()

    def enable_reranking(self) -> None:
        """Add a new reranking head to a model that was trained without one."""
        self.compressor.add_reranking()
        self.progress = self.progress.with_new_head()
        self._change(enable_reranking=True)

    def train_for(self, numbers: Sequence[int]) -> None:
        """Prepare training with these numbers of memory tokens; a smaller number uses the first embeddings.

        Raises:
            ValueError: if the largest is not ``config.num_memory_tokens``.
        """
        self._change(train_memory_tokens=tuple(numbers))

    # Saving

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a checkpoint (:mod:`scaledown.models.loading.checkpoint`); an existing one is replaced as a whole."""
        config = generator_files.relative_to(Path(folder), self.config)
        with checkpoint.whole_folder(Path(folder)) as draft:
            checkpoint.save(draft, self.compressor, self.generator, self.processor)
            generator_files.save(self.generator_files, self.config, draft)
            self.progress.save(draft)
            num_trained = sum(map(Tensor.numel, parameters.trained(self).values()))
            model_card.save(config, self.progress, num_trained, draft)
            config.save(draft)

    def load_trained(self, folder: Path) -> None:
        """Load the trained weights of a checkpoint of the same model.

        Raises:
            ValueError: if a file is missing, damaged, of another model or of another generator.
        """
        generator_files.check(folder, self.config, self.generator_files)
        progress = TrainingProgress.load(folder)
        checkpoint.load(folder, self.compressor, self.generator)
        self.progress = progress

    def push_to_hub(self, repo_id: str) -> None:
        """Upload a checkpoint to the Hub as ``repo_id``, created if needed; a model card that is there stays."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "checkpoint")
            checkpoint.upload(Path(folder) / "checkpoint", repo_id)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Disable gradients and dropout within this context, also during training; one thread at a time.

        Adapters and the mode are switched in the model itself, and tokenizers hold settings of their last call, so a
        second thread waits here until the first has left.
        """
        with self._one_at_a_time:
            was_training = self.training
            if was_training:
                self.eval()
            try:
                with torch.no_grad(), self._autocast():
                    yield
            finally:
                if was_training:
                    self.train()

    def _autocast(self) -> Any:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    def _change(self, **settings: Any) -> None:
        self.config = self.processor.config = dataclasses.replace(self.config, **settings)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock out, which can be neither copied nor pickled: a copy gets its own."""
        return {name: value for name, value in super().__getstate__().items() if name != "_one_at_a_time"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._one_at_a_time = threading.RLock()
