"""ScaleDown: a compressor and a generator as one model (paper, section 3).

    question, documents -> processor -> compressor -> memory (B, K, L, D), scores (B, K)
    question, memory    -> processor -> generator  -> answer
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.models import checkpoint, generator_files, model_card, parts
from scaledown.models.answering import Answering
from scaledown.models.build import build_compressor, resolve
from scaledown.models.causal import CausalCompressor
from scaledown.models.compressor import Compressed, CompressorInput
from scaledown.models.document_store import DocumentStore
from scaledown.models.fixed_shapes import rounded_texts
from scaledown.models.generator import Generator
from scaledown.models.inputs import check_number, check_texts
from scaledown.models.memory import Memory
from scaledown.models.memory_cache import MemoryCache
from scaledown.models.objective import Losses, groups, joined, score_error, trained
from scaledown.models.positions import position_limit
from scaledown.models.processor import Processor
from scaledown.models.progress import Progress

logger = logging.getLogger(__name__)

COMPRESSOR_FILE = "compressor.safetensors"
GENERATOR_FILE = "generator.safetensors"
LONGEST_INPUT = "the longest input of the compressor (query, document and memory tokens)"


class ScaleDownModel(Answering, nn.Module):
    """Compresses documents with their question, and answers from what is left of them.

    Args:
        config: what to build. Without a checkpoint the compressor, LoRA and special rows are new; new weights are
            drawn from torch's global random state (seed it for a repeatable model).
        device: where to put the model [cpu].
        dtype: of the generator's base and of the arithmetic [float32]; what is trained is held in float32.
        folder: a checkpoint's folder, whose tokenizers are used; :meth:`from_pretrained` is the way to load one.

    Attributes:
        config: the settings, with the number of layers and the revisions that were really used.
        generator_files: what the files of the generator's base held when they were read; None if they are not known.
        progress: how far it was trained; the trainer counts.
        reranking_loss_weight: lambda in the loss; the trainer sets it.
        distill_logits: weight of the distillation loss, for batches that have the documents in text; the trainer sets
            it too.
        readout_loss_weight: weight of the readout loss, for batches with readout targets; the trainer sets it too, and
            lets it fall.

    Raises:
        ValueError: for a generator or compressor that cannot be found, read or used.
    """

    def __init__(self, config: ScaleDownConfig, device: torch.device | str | None = None,
                 dtype: torch.dtype | None = None, folder: Path | None = None) -> None:
        super().__init__()
        self.dtype = dtype or torch.float32
        self._one_at_a_time = threading.RLock()
        quantised = parts.quantisation(config, self.dtype, torch.device(device or "cpu"))
        self.reranking_loss_weight = TrainingConfig.reranking_loss_weight
        self.distill_logits = TrainingConfig.distill_logits
        self.readout_loss_weight = TrainingConfig.readout_loss_weight
        base = parts.load_base(config, self.dtype)
        self.generator_files, self.progress = generator_files.read(config), Progress()
        self.config = resolve(config, base.config.num_hidden_layers, is_new=folder is None)
        self.compressor, compressor_tokenizer = build_compressor(self.config, base, folder)
        if quantised is not None:
            # Only now: what the compressor copies and trains must be whole.
            base = parts.load_base(config, self.dtype, quantised)
        self.generator = Generator(self.config, base)
        tokenizer = parts.load_generator_tokenizer(self.config, folder)
        parts.check_vocabulary(tokenizer, base, folder or self.config.generator_model)
        self.processor = Processor(tokenizer, self.config, compressor_tokenizer)
        self._stop_ids = _stop_ids(self.processor, base)
        if self.config.memory_init == "reply":
            self._start_memory_as_reply()
        self.processor.num_positions = getattr(base.config, "max_position_embeddings", None)
        self.processor.position_limit = position_limit(base)
        self._check_compressor_length()
        self.to(device or "cpu")
        self.eval()

    def _check_compressor_length(self) -> None:
        """Refuse a compressor whose model cannot read the longest input that may come: now, not in mid-training."""
        limit = self.compressor.position_limit
        if limit is not None:
            limit.check(self.processor.longest_compressor_input(), LONGEST_INPUT,
                        "lower --query_tokens or --compression_rate, or choose another --compressor_model")

    def _start_memory_as_reply(self) -> None:
        """Memory rows become the tokens after which the generator answers, the last of them repeated.

        A copy of its layers then does there from the start what they do before an answer: look the question up in
        the document. What stands behind the layers hands it on as it is. A query behind its document leads to the last
        of them already (:meth:`Processor.compressor_input`), so there they are that one alone.
        """
        reply, rows = self.processor.prompt.reply, self.compressor.memory_rows
        lead = [] if self.config.input_order == "document_first" else reply
        ids = (lead + reply[-1:] * len(rows))[:len(rows)]
        with torch.no_grad():
            rows.copy_(self.generator.embed(torch.tensor(ids, device=rows.device)))
        self.compressor.start_as_identity()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.generator.separator_row.device

    def enable_reranking(self) -> None:
        """Let a model that was trained without it learn to score documents too: its reranking head is new."""
        self.compressor.add_reranking()
        self.progress = self.progress.with_new_head()
        self._change(enable_reranking=True)

    def train_for(self, numbers: Sequence[int]) -> None:
        """Let a model learn to serve these numbers of memory tokens, each with the first rows of those that it has.

        Raises:
            ValueError: where the largest is not ``config.num_memory_tokens``.
        """
        self._change(train_memory_tokens=tuple(numbers))

    def _change(self, **settings: Any) -> None:
        self.config = self.processor.config = dataclasses.replace(self.config, **settings)

    def forward(self, batch: dict[str, Tensor]) -> Losses:
        """The training loss of a batch that :meth:`Processor.collate` made (paper, equation 3).

        A batch that also has its prompts in full text teaches what the generator says of them; one with readout
        targets, what each memory itself is to say. Where it has no prompts at all, the generator is not run.
        """
        with self._autocast():
            compressed = self.compressor(_texts(batch), self.generator.embed, len(batch["memory_index"]))
            answer_loss, divergence, readout = None, None, None
            if "prompt_ids" in batch:
                states = self.generator.answer_states(batch["prompt_ids"], batch["prompt_slots"],
                                                      compressed.embeddings, batch["answer_index"])
                answer_loss = self.generator.answer_loss(states, batch["answer_targets"])
            if "text_ids" in batch:
                teacher = self.generator.teacher_states(batch["text_ids"], batch["text_slots"], batch["text_index"])
                divergence = self.generator.divergence(states, teacher)
            if "readout_targets" in batch:
                readout = self.generator.readout_loss(compressed.embeddings, batch["readout_targets"])
        return joined(answer_loss, (score_error(compressed.scores, batch), self.reranking_loss_weight),
                      (divergence, self.distill_logits), (readout, self.readout_loss_weight))

    def padding_share(self, batch: dict[str, Tensor]) -> Tensor:
        """Share of padding among the tokens that compressor and generator compute for a batch; a tensor, unread."""
        if "padding_share" in batch:
            return batch["padding_share"]
        computed, needed = self.compressor.num_tokens(_texts(batch), len(batch["memory_index"]))
        packed = batch["prompt_slots"].numel()
        return 1 - (needed + packed) / (computed + packed)

    def compress(self, questions: Sequence[str], documents: Sequence[Sequence[str]], batch_size: int = 8,
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
            ValueError: where questions and documents do not go together, for an L that is not trained, or a store that
                is another model's.
        """
        check_texts(questions, documents)
        check_number("batch_size", batch_size)
        num_memory = self.config.checked_memory_tokens(num_memory_tokens)
        compress = partial(self._compress, num_memory=num_memory, store=store)
        if cache is not None:
            version = sum(parameter._version for parameter in self.compressor.parameters())
            compress = partial(cache.compressed, num_memory_tokens=num_memory, version=version, compress=compress)
        batches = [slice(start, start + batch_size) for start in range(0, max(1, len(questions)), batch_size)]
        with self._inference():
            if store is not None:
                self.read_documents([document for each in documents for document in each], store)
            compressed = [compress(questions[batch], documents[batch]) for batch in batches]
        return Memory.of_pairs(compressed, [len(each) for each in documents])

    def read_documents(self, documents: Sequence[str], store: DocumentStore | None = None,
                       batch_size: int = 32) -> DocumentStore:
        """Read documents ahead of all questions, for :meth:`compress` to go on from; exactly the same comes out.

        Args:
            documents: one is read once, however often it is named.
            store: gets them, where it does not have them yet [a new one].

        Raises:
            ValueError: for a model that reads the query first, an encoder, or a store that is another model's.
        """
        if self.config.input_order != "document_first" or not isinstance(self.compressor, CausalCompressor):
            raise ValueError("only an n_layers or llm compressor trained with --input_order document_first can read "
                             "documents ahead of questions")
        check_texts([""], [documents])
        check_number("batch_size", batch_size)
        store = DocumentStore(self.compressor) if store is None else store
        with self._inference():
            store.read(self.processor.document_keys(documents), self.compressor, self.generator.embed, batch_size)
        return store

    def parameter_groups(self, lr_generator: float, lr_compressor: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups ``{generator,compressor}_{weights,rows}`` with two learning rates (paper, table 7)."""
        return (groups("generator", self.generator, lr_generator, weight_decay)
                + groups("compressor", self.compressor, lr_compressor, weight_decay))

    def gradient_checkpointing_enable(self) -> None:
        """Keep few activations in training and compute the others twice."""
        self.compressor.gradient_checkpointing_enable()
        self.generator.gradient_checkpointing_enable()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a checkpoint (see :mod:`scaledown.models.checkpoint`); an existing one is replaced whole."""
        with checkpoint.whole_folder(Path(folder)) as draft:
            checkpoint.save_weights(self.compressor, draft / COMPRESSOR_FILE)
            checkpoint.save_weights(self.generator, draft / GENERATOR_FILE)
            self.processor.save(draft / parts.TOKENIZER_FOLDER, draft / parts.COMPRESSOR_FOLDER)
            if self.compressor.model_config is not None:
                self.compressor.model_config.save_pretrained(draft / parts.COMPRESSOR_FOLDER)
            generator_files.save(self.generator_files, draft)
            self.progress.save(draft)
            model_card.save(self.config, self.progress, sum(map(Tensor.numel, trained(self).values())), draft)
            self.config.save(draft)

    @classmethod
    def from_pretrained(cls, name: Path | str, device: torch.device | str | None = None,
                        dtype: torch.dtype | None = None, revision: str | None = None) -> ScaleDownModel:
        """Load a checkpoint: a folder, a Hub id, or one that ships, by name.

        Two ship: "embedded" answers and scores documents, "embedded_modernbert" compresses with an encoder and answers
        alone. Both are of the embedded generator, which knows its own made-up world and little else.

        Raises:
            ValueError: where it does not exist, a file is missing, damaged or of another model, or its generator is
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

    def load_trained(self, folder: Path) -> None:
        """Take what was trained from a checkpoint of the same model.

        Raises:
            ValueError: where a file is missing, damaged or of another model or generator.
        """
        generator_files.check(folder, self.config, self.generator_files)
        progress = Progress.load(folder)
        checkpoint.load_weights(self.compressor, folder / COMPRESSOR_FILE)
        checkpoint.load_weights(self.generator, folder / GENERATOR_FILE)
        self.progress = progress

    def merge(self, folder: Path | str | None = None) -> PreTrainedModel:
        """The generator with its adapter folded in, as a plain model of transformers on the CPU.

        It answers from :meth:`prompt_embeds` what this model answers (rounding apart, where this one holds its base in
        4 or 8 bits). The base is read anew, so this model stays as it is and no device has to hold both.

        Args:
            folder: also write it there with its tokenizer, as transformers, vLLM and others load it.

        Raises:
            ValueError: where the base cannot be read any more or has changed, or the disk cannot take the weights.
        """
        generator_files.check_unchanged(self.config, self.generator_files)
        generator = Generator(self.config, parts.load_base(self.config, self.dtype))
        learnt = trained(self.generator)
        with torch.no_grad():
            for name, parameter in trained(generator).items():
                parameter.copy_(learnt[name])
        plain = generator.language_model.merge_and_unload().requires_grad_(False).eval()
        # Greedy, and nothing else: a model's own penalties and temperatures would give other answers than this one's.
        pad_id = self.processor.tokenizer.pad_token_id
        plain.generation_config = GenerationConfig(do_sample=False, eos_token_id=self._stop_ids,
                                                   pad_token_id=self._stop_ids[0] if pad_id is None else pad_id)
        if folder is not None:
            with checkpoint.whole_folder(Path(folder)) as draft:
                plain.save_pretrained(draft)
                self.processor.tokenizer.save_pretrained(draft)
        return plain

    def push_to_hub(self, repo_id: str) -> None:
        """Upload a checkpoint to the Hub as ``repo_id``, which is made if need be; a model card that it has stays."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "checkpoint")
            HfApi().create_repo(repo_id, exist_ok=True)
            # A card that is there already may have been written by hand.
            kept = [model_card.FILE] if HfApi().file_exists(repo_id, model_card.FILE) else None
            HfApi().upload_folder(repo_id=repo_id, folder_path=Path(folder) / "checkpoint", ignore_patterns=kept)

    def _compress(self, questions: Sequence[str], documents: Sequence[Sequence[str]], num_memory: int,
                  store: DocumentStore | None = None) -> Compressed:
        texts = self.processor.compressor_input(questions, documents)
        if store is None or not len(texts.second_ids):
            num_documents = len(texts.second_ids)
            if num_documents and self.generator.rounds_shapes:
                texts = rounded_texts(texts)
            compressed = self.compressor(texts.to(self.device), self.generator.embed, num_memory)
            return Compressed(*(None if each is None else each[:num_documents] for each in compressed))
        keys = self.processor.document_keys([document for each in documents for document in each])
        read = store.gather(list(dict.fromkeys(keys)), texts.first_ids.shape[1])
        return self.compressor.follow(texts.to(self.device), read, self.generator.embed, num_memory)

    def _autocast(self) -> AbstractContextManager:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    @contextmanager
    def _inference(self) -> Iterator[None]:
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

    def __getstate__(self) -> dict[str, Any]:
        """A lock can be neither copied nor sent to another process: a copy gets its own."""
        return {name: value for name, value in super().__getstate__().items() if name != "_one_at_a_time"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._one_at_a_time = threading.RLock()


def _texts(batch: dict[str, Tensor]) -> CompressorInput:
    return CompressorInput(*(batch[name] for name in CompressorInput._fields))


def _stop_ids(processor: Processor, base: Any) -> list[int]:
    """Every token that ends an answer: the template's, the tokenizer's and the generation config's."""
    ends = base.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({processor.prompt.end_id, processor.tokenizer.eos_token_id, *ends} - {None})
