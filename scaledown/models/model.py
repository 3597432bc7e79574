"""ScaleDown: a compressor and a generator as one model (paper, section 3).

    question, documents -> processor -> compressor -> memory (B, K, L, D), scores (B, K)
    question, memory    -> processor -> generator  -> answer

This file is the table of contents: each method says what it does and where that is done.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from scaledown.config import ScaleDownConfig
from scaledown.models import (
    answering,
    checkpoint,
    decoder,
    fixed_shapes,
    generator_files,
    loading,
    losses,
    model_card,
    packing,
    parameters,
)
from scaledown.models.compressors.base import Compressed
from scaledown.models.compressors.build import build_compressor, resolve
from scaledown.models.compressors.causal import CausalCompressor
from scaledown.models.generator import Generator, Prompts
from scaledown.models.inputs import Documents, check_number, check_texts
from scaledown.models.losses import Losses
from scaledown.models.memory import Memory
from scaledown.models.merging import merged
from scaledown.models.processor import Processor
from scaledown.models.progress import TrainingProgress
from scaledown.models.selection import Answer, Keep, by_score
from scaledown.models.serving.cache import MemoryCache
from scaledown.models.serving.store import DocumentStore
from scaledown.models.serving.streaming import Piece

logger = logging.getLogger(__name__)

class ScaleDownModel(nn.Module):
    """Compresses documents with their question, and answers from what is left of them.

    Args:
        config: what to build. Without a checkpoint the compressor, LoRA and memory tokens are new; new weights are
            drawn from torch's global random state (seed it for a repeatable model).
        device: where to put the model [cpu].
        dtype: of the generator's base and of the arithmetic [float32]; what is trained is held in float32.
        folder: a checkpoint's folder, whose tokenizers are used; :meth:`from_pretrained` is the way to load one.

    Attributes:
        config: the settings, with the number of layers and the revisions that were really used.
        processor: texts to token ids.
        compressor: documents to memory.
        generator: prompts with memory to answers.
        stop_ids: every token that ends an answer.
        generator_files: what the files of the generator's base held when they were read; None if they are not known.
        progress: how far it was trained; the trainer counts.

    Raises:
        ValueError: for a generator or compressor that cannot be found, read or used.
    """

    # Loading

    def __init__(self, config: ScaleDownConfig, device: torch.device | str | None = None,
                 dtype: torch.dtype | None = None, folder: Path | None = None) -> None:
        super().__init__()
        self.dtype = dtype or torch.float32
        self._one_at_a_time = threading.RLock()
        quantised = loading.quantisation(config, self.dtype, torch.device(device or "cpu"))
        base = loading.load_base(config, self.dtype)
        self.generator_files, self.progress = generator_files.read(config), TrainingProgress()
        self.config = resolve(config, base.config.num_hidden_layers, is_new=folder is None)
        self.compressor, compressor_tokenizer = build_compressor(self.config, base, folder)
        if quantised is not None:
            # Only now: what the compressor copies and trains must be whole.
            base = loading.load_base(config, self.dtype, quantised)
        self.generator = Generator(self.config, base)

        tokenizer = loading.load_generator_tokenizer(self.config, folder)
        loading.check_vocabulary(tokenizer, base, folder or self.config.generator_model)
        self.processor = Processor(tokenizer, self.config, compressor_tokenizer)
        self.processor.limit_positions(base, self.compressor.position_limit)
        self.stop_ids = answering.stop_ids(self.processor, base)
        # generate would take from here what a call leaves open: the base's own penalties, temperatures and beams.
        base.generation_config = GenerationConfig()
        if self.config.memory_init == "reply":
            self._start_memory_as_reply()
        self.to(device or "cpu")
        self.eval()

    @classmethod
    def from_pretrained(cls, name: Path | str, device: torch.device | str | None = None,
                        dtype: torch.dtype | None = None, revision: str | None = None) -> ScaleDownModel:
        """Load a checkpoint: a folder, a Hub id, or one that ships, by name.

        Two ship: "embedded" answers and scores documents, "embedded_modernbert" compresses with an encoder and answers
        alone. Both are of the embedded generator, which knows its own made-up world and little else.

        Raises:
            ValueError: if it does not exist, a file is missing, damaged or of another model, or its generator is
                missing or another one than it was trained on.
        """
        folder = checkpoint.find(str(name), revision)
        config = ScaleDownConfig.load(folder)
        generator_files.check_place(folder, config)
        # Before anything large is read, if the generator is on this disk already; load_trained checks in any case.
        generator_files.check(folder, config, generator_files.read(config))
        model = cls(config, device, dtype, folder)
        model.load_trained(folder)
        if config.enable_reranking and (warning := model.progress.warning()):
            logger.warning("%s: %s", folder, warning)
        return model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.generator.separator_row.device

    # Answering

    def answer(self, questions: Sequence[str], documents: Documents | None = None, memory: Memory | None = None,
               max_new_tokens: int = 64, batch_size: int = 8, num_memory_tokens: int | None = None,
               keep_documents: Keep = None, cache: MemoryCache | None = None, stream: bool = False,
               **options: Any) -> list[str] | Iterator[Piece]:
        """Answer questions from their documents, or from memory that :meth:`compress` gave.

        Any number of documents a question, none included; questions of like length are answered together, and the
        answers come back in the order of the questions. Greedy, unless ``options`` say otherwise.

        Args:
            keep_documents: give the generator this number of a question's best documents, or with "auto" those that
                score above the calibrated threshold [all, in the order given].
            cache: compress only documents that it does not know with their question.
            stream: hand on the answers as they grow, piece by piece, each with the number of its question.
            options: of transformers' ``generate``, such as ``do_sample``, ``temperature``, ``num_beams``,
                ``stopping_criteria`` or ``generation_config``.

        Raises:
            ValueError: if both are given, they do not go together with the questions, or the model cannot choose.
        """
        if stream and "streamer" in options:
            raise ValueError("give stream or a streamer of your own, not both")
        asked = answering.Asked(questions, documents, memory, max_new_tokens, batch_size, num_memory_tokens,
                                keep_documents, cache, options)
        asked.check(self)
        if stream:
            return answering.stream(self, asked)
        return [answer.text for answer in answering.answers(self, asked)]

    def answer_with_sources(self, questions: Sequence[str], documents: Documents | None = None,
                            memory: Memory | None = None, max_new_tokens: int = 64, batch_size: int = 8,
                            num_memory_tokens: int | None = None, keep_documents: Keep = None,
                            cache: MemoryCache | None = None, **options: Any) -> list[Answer]:
        """As :meth:`answer`, each answer with the documents that it was given, their order and their scores."""
        asked = answering.Asked(questions, documents, memory, max_new_tokens, batch_size, num_memory_tokens,
                                keep_documents, cache, options)
        asked.check(self)
        return answering.answers(self, asked)

    def compress(self, questions: Sequence[str], documents: Documents, batch_size: int = 8,
                 num_memory_tokens: int | None = None, cache: MemoryCache | None = None,
                 store: DocumentStore | None = None) -> Memory:
        """Compress each question's documents; ``batch_size`` questions at a time.

        Args:
            num_memory_tokens: L, one of ``config.memory_token_choices`` [the most].
            cache: compress only documents that it does not know with their question.
            store: documents that :meth:`read_documents` has read; those that are missing are read now, and kept.

        Returns:
            embeddings (B, K, L, D), zero-padded over K, scores (B, K) or None, num_documents (B,).

        Raises:
            ValueError: if questions and documents do not go together, for an L that is not trained, or a store that is
                another model's.
        """
        check_texts(questions, documents)
        check_number("batch_size", batch_size)
        num_memory = self.config.checked_memory_tokens(num_memory_tokens)
        compress = partial(self._compress, num_memory=num_memory, store=store)
        if cache is not None:
            version = decoder.weights_version(self.compressor)
            compress = partial(cache.compressed, num_memory_tokens=num_memory, version=version, compress=compress)

        batches = [slice(start, start + batch_size) for start in range(0, max(1, len(questions)), batch_size)]
        with self.inference():
            if store is not None:
                self.read_documents([document for each in documents for document in each], store)
            compressed = [compress(questions[batch], documents[batch]) for batch in batches]
        return Memory.of_pairs(compressed, [len(each) for each in documents])

    def rerank(self, question: str, documents: Sequence[str]) -> tuple[list[int], list[float]]:
        """Return documents by relevance, best first: their numbers, and each one's score in the order given.

        Raises:
            ValueError: for a model without a reranking head.
        """
        if not self.config.enable_reranking:
            raise ValueError("this model has no reranking head; train one with --enable_reranking")
        scores = self.compress([question], [documents]).scores[0].tolist()
        return by_score(scores), scores

    def read_documents(self, documents: Sequence[str], store: DocumentStore | None = None,
                       batch_size: int = 32) -> DocumentStore:
        """Read documents ahead of all questions, for :meth:`compress` to go on from; exactly the same comes out.

        Args:
            documents: one is read once, however often it is named.
            store: gets them, if it does not have them yet [a new one].

        Raises:
            ValueError: for a model that reads the query first, an encoder, or a store that is another model's.
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

    # Answering, step by step: what is measured, and what other engines go on from

    def prompts(self, questions: Sequence[str], memory: Memory) -> Prompts:
        """Put the prompts of ``questions`` together with their documents' memory."""
        if len(questions) != len(memory):
            raise ValueError(f"{len(questions)} questions, but memory for {len(memory)}")
        with self.inference():
            ids = self.processor.memory_prompts(questions, memory.num_documents.tolist(), memory.embeddings.shape[2])
            return self.generator.prompts(ids, memory.pairs())

    def prefill(self, questions: Sequence[str], memory: Memory) -> Prompts:
        """Read the prompts of ``questions`` with their documents' memory; :meth:`decode` goes on from there."""
        return self._read(self.prompts(questions, memory))

    def prefill_text(self, questions: Sequence[str], documents: Documents,
                     document_tokens: int | None = None) -> Prompts:
        """Read the same prompts in full text with LoRA off: the generator as it was, for comparison.

        Args:
            document_tokens: each document is cut there [``config.document_tokens``, what the compressor reads].
        """
        check_texts(questions, documents)
        with self.inference():
            ids = self.processor.text_prompts(questions, documents, document_tokens)
            return self._read(self.generator.prompts(ids, None, with_adapter=False))

    def decode(self, prompts: Prompts, max_new_tokens: int, **options: Any) -> list[str]:
        """Return the answers to ``prompts``; sets ``prompts.num_new_tokens``.

        Raises:
            ValueError: if a prompt with an answer of ``max_new_tokens`` goes beyond what the generator reads exactly.
        """
        check_number("max_new_tokens", max_new_tokens)
        return answering.generate(self, prompts, max_new_tokens, **options)

    def prompt_embeds(self, questions: Sequence[str], documents: Documents | None = None,
                      memory: Memory | None = None) -> list[Tensor]:
        """Return what the generator reads, one (T, D) for each question: the prompt with its documents' memory.

        This is what vLLM's ``prompt_embeds`` and transformers' ``generate(inputs_embeds=...)`` take, for the generator
        that :meth:`merge` makes.

        Raises:
            ValueError: as :meth:`answer`.
        """
        answering.Asked(questions, documents, memory).check(self)
        if memory is None:
            memory = self.compress(questions, [[] for _ in questions] if documents is None else documents)
        prompts = self.prompts(questions, memory)
        rows = zip(prompts.embeddings.to(self.dtype), prompts.num_prompt_tokens, strict=False)
        return [row[len(row) - length:] for row, length in rows]

    def merge(self, folder: Path | str | None = None) -> PreTrainedModel:
        """Return the generator with its adapter folded in, as a plain model of transformers on the CPU.

        It answers from :meth:`prompt_embeds` what this model answers (rounding apart, if this one holds its base in 4
        or 8 bits). The base is read anew, so this model stays as it is and no device has to hold both.

        Args:
            folder: also write it there with its tokenizer, as transformers, vLLM and others load it.

        Raises:
            ValueError: if the base cannot be read any more or has changed, or the disk cannot take the weights.
        """
        generator_files.check_unchanged(self.config, self.generator_files)
        return merged(self.config, self.generator, self.dtype, self.stop_ids, self.processor.tokenizer, folder)

    # Training

    def forward(self, batch: dict[str, Any]) -> Losses:
        """Return the losses of a batch that :meth:`Processor.collate` made (paper, equation 3).

        A batch with readout targets also says what each memory by itself is to say. If it has no prompts, the
        generator is not run.
        """
        batch = packing.moved(batch, self.device)
        with self._autocast():
            memory, scores = self.compressor(batch["documents"], self.generator.embed, batch["num_memory_tokens"])
            answer_loss, readout_loss = None, None
            if "prompts" in batch:
                states = self.generator.states(batch["prompts"], memory)
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
        """Keep few activations in training and compute the others twice."""
        self.compressor.gradient_checkpointing_enable()
        self.generator.gradient_checkpointing_enable()

    def enable_reranking(self) -> None:
        """Let a model that was trained without it learn to score documents too: its reranking head is new."""
        self.compressor.add_reranking()
        self.progress = self.progress.with_new_head()
        self._change(enable_reranking=True)

    def train_for(self, numbers: Sequence[int]) -> None:
        """Let a model learn to serve these numbers of memory tokens, each with the first of those that it has.

        Raises:
            ValueError: if the largest is not ``config.num_memory_tokens``.
        """
        self._change(train_memory_tokens=tuple(numbers))

    # Saving

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a checkpoint (see :mod:`scaledown.models.checkpoint`); an existing one is replaced whole."""
        with checkpoint.whole_folder(Path(folder)) as draft:
            checkpoint.save(draft, self.compressor, self.generator, self.processor)
            generator_files.save(self.generator_files, draft)
            self.progress.save(draft)
            num_trained = sum(map(Tensor.numel, parameters.trained(self).values()))
            model_card.save(self.config, self.progress, num_trained, draft)
            self.config.save(draft)

    def load_trained(self, folder: Path) -> None:
        """Take what was trained from a checkpoint of the same model.

        Raises:
            ValueError: if a file is missing, damaged, of another model or of another generator.
        """
        generator_files.check(folder, self.config, self.generator_files)
        progress = TrainingProgress.load(folder)
        checkpoint.load(folder, self.compressor, self.generator)
        self.progress = progress

    def push_to_hub(self, repo_id: str) -> None:
        """Upload a checkpoint to the Hub as ``repo_id``, which is made if need be; a model card that it has stays."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "checkpoint")
            HfApi().create_repo(repo_id, exist_ok=True)
            # A card that is there already may have been written by hand.
            left_out = [model_card.FILE] if HfApi().file_exists(repo_id, model_card.FILE) else None
            HfApi().upload_folder(repo_id=repo_id, folder_path=Path(folder) / "checkpoint", ignore_patterns=left_out)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """No gradients and no dropout, whatever mode training has the model in; one thread at a time.

        The adapters and the mode are switched in the model itself, and tokenizers are set anew for each text, so a
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

    def _compress(self, questions: Sequence[str], documents: Documents, num_memory: int,
                  store: DocumentStore | None = None) -> Compressed:
        lists = self.processor.compressor_texts(questions, documents, num_memory)
        num_documents = sum(map(len, documents))
        if num_documents and self.device.type in fixed_shapes.COMPILED_BY_SHAPE:
            lists = fixed_shapes.rounded_texts(lists)
        texts = lists.packed()
        if num_documents and store is not None:
            texts = texts.behind(store.gather(lists.prefixes))
        found = self.compressor(texts.to(self.device), self.generator.embed, num_memory)
        return Compressed(found.embeddings[:num_documents], None if found.scores is None else
                          found.scores[:num_documents])

    def _read(self, prompts: Prompts) -> Prompts:
        with self.inference():
            self.generator.prefill(prompts)
        return prompts

    def _start_memory_as_reply(self) -> None:
        """Let memory tokens start as the tokens after which the generator answers, the last of them repeated.

        A copy of its layers then does there from the start what they do before an answer: look the question up in the
        document. What stands behind the layers hands it on as it is. A query behind its document leads to the last of
        them already (:meth:`Processor.compressor_texts`), so there they are that one alone.
        """
        reply, rows = self.processor.prompt.reply, self.compressor.memory_rows
        lead = [] if self.config.input_order == "document_first" else reply
        ids = (lead + reply[-1:] * len(rows))[:len(rows)]
        with torch.no_grad():
            rows.copy_(self.generator.embed(torch.tensor(ids, device=rows.device)))
        self.compressor.start_as_identity()

    def _change(self, **settings: Any) -> None:
        self.config = self.processor.config = dataclasses.replace(self.config, **settings)

    def __getstate__(self) -> dict[str, Any]:
        """A lock can be neither copied nor sent to another process: a copy gets its own."""
        return {name: value for name, value in super().__getstate__().items() if name != "_one_at_a_time"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._one_at_a_time = threading.RLock()
