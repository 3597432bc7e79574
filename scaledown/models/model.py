"""ScaleDown: a compressor and a generator as one model (paper, section 3).

    question, documents -> processor -> compressor -> memory (B, K, L, D), scores (B, K)
    question, memory    -> processor -> generator  -> answer
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import Tensor, nn

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.models import checkpoint, parts
from scaledown.models.build import build_compressor, resolve
from scaledown.models.compressor import Compressed, CompressorInput
from scaledown.models.generator import DecodingState, Generator
from scaledown.models.memory import Memory
from scaledown.models.objective import Losses, groups, joined
from scaledown.models.processor import Processor
from scaledown.models.selection import Answer, Keep, by_score, check, kept

COMPRESSOR_FILE = "compressor.safetensors"
GENERATOR_FILE = "generator.safetensors"


class ScaleDownModel(nn.Module):
    """Compresses documents with their question, and answers from what is left of them.

    Args:
        config: what to build. Without a checkpoint the compressor, LoRA and special rows are new; new weights are
            drawn from torch's global random state (seed it for a repeatable model).
        device: where to put the model [cpu].
        dtype: of the generator's base and of the arithmetic [float32]; what is trained is held in float32.
        folder: a checkpoint's folder, whose tokenizers are used; :meth:`from_pretrained` is the way to load one.

    Attributes:
        config: the settings, with the number of layers and the revisions that were really used.
        reranking_loss_weight: lambda in the loss; the trainer sets it.

    Raises:
        ValueError: for a generator or compressor that cannot be found, read or used.
    """

    def __init__(self, config: ScaleDownConfig, device: torch.device | str | None = None,
                 dtype: torch.dtype | None = None, folder: Path | None = None) -> None:
        super().__init__()
        self.dtype = dtype or torch.float32
        self.reranking_loss_weight = TrainingConfig.reranking_loss_weight
        base = parts.load_base(config, self.dtype)
        self.config = resolve(config, base.config.num_hidden_layers)
        self.compressor, compressor_tokenizer = build_compressor(self.config, base, folder)
        self.generator = Generator(self.config, base)
        tokenizer = parts.load_generator_tokenizer(self.config, folder)
        self.processor = Processor(tokenizer, self.config, compressor_tokenizer)
        self._stop_ids = _stop_ids(self.processor, base)
        if self.config.memory_init == "reply":
            self._start_memory_as_reply()
        self.processor.num_positions = getattr(base.config, "max_position_embeddings", None)
        self.to(device or "cpu")
        self.eval()

    def _start_memory_as_reply(self) -> None:
        """Memory rows become the tokens after which the generator answers, the last of them repeated.

        A copy of its layers then does there from the start what they do before an answer: look the question up in
        the document.
        """
        reply, rows = self.processor.prompt.reply, self.compressor.memory_rows
        ids = (reply + reply[-1:] * len(rows))[:len(rows)]
        with torch.no_grad():
            rows.copy_(self.generator.embed(torch.tensor(ids, device=rows.device)))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.generator.separator_row.device

    def enable_reranking(self) -> None:
        """Let a model that was trained without it learn to score documents too: its reranking head is new."""
        self.compressor.add_reranking()
        self.config = self.processor.config = dataclasses.replace(self.config, enable_reranking=True)

    def forward(self, batch: dict[str, Tensor]) -> Losses:
        """The training loss of a batch that :meth:`Processor.collate` made (paper, equation 3)."""
        with self._autocast():
            compressed = self.compressor(_texts(batch), self.generator.embed, len(batch["memory_index"]))
            answer_loss = self.generator.answer_loss(batch["prompt_ids"], batch["prompt_slots"], compressed.embeddings,
                                                     batch["answer_index"], batch["answer_targets"])
        return joined(answer_loss, compressed.scores, batch, self.reranking_loss_weight)

    def padding_share(self, batch: dict[str, Tensor]) -> Tensor:
        """Share of padding among the tokens that compressor and generator compute for a batch; a tensor, unread."""
        computed, needed = self.compressor.num_tokens(_texts(batch), len(batch["memory_index"]))
        packed = batch["prompt_slots"].numel()
        return 1 - (needed + packed) / (computed + packed)

    def compress(self, questions: Sequence[str], documents: Sequence[Sequence[str]], batch_size: int = 8,
                 num_memory_tokens: int | None = None) -> Memory:
        """Compress each question's documents; ``batch_size`` questions at a time.

        Args:
            num_memory_tokens: L, one of ``config.memory_token_choices`` [the most].

        Returns:
            embeddings (B, K, L, D), zero-padded over K, scores (B, K) or None, num_documents (B,).

        Raises:
            ValueError: where questions and documents do not go together, or for an L that is not trained.
        """
        documents, num_memory = _checked(questions, documents), self.config.checked_memory_tokens(num_memory_tokens)
        batches = [slice(start, start + batch_size) for start in range(0, max(1, len(questions)), batch_size)]
        with self._inference():
            compressed = [self._compress(questions[batch], documents[batch], num_memory) for batch in batches]
        return Memory.of_pairs(compressed, [len(each) for each in documents])

    def prefill(self, questions: Sequence[str], memory: Memory) -> DecodingState:
        """Read the prompts of ``questions`` with their documents' memory; :meth:`decode` goes on from there."""
        if len(questions) != len(memory):
            raise ValueError(f"{len(questions)} questions, but memory for {len(memory)}")
        prompts = self.processor.memory_prompts(questions, memory.num_documents.tolist(), memory.embeddings.shape[2])
        with self._inference():
            return self.generator.prefill(prompts, memory.pairs(), start=self.processor.prompt.start)

    def prefill_text(self, questions: Sequence[str], documents: Sequence[Sequence[str]],
                     document_tokens: int | None = None) -> DecodingState:
        """Read the same prompts in full text with LoRA off: the generator as it was, for comparison.

        Args:
            document_tokens: each document is cut there [``config.document_tokens``, what the compressor reads].
        """
        prompts = self.processor.text_prompts(questions, _checked(questions, documents), document_tokens)
        with self._inference():
            return self.generator.prefill(prompts, None, with_adapter=False, start=self.processor.prompt.start)

    def decode(self, state: DecodingState, max_new_tokens: int) -> list[str]:
        """Greedy answers; sets ``state.num_new_tokens``."""
        if max_new_tokens < 1:
            raise ValueError(f"--max_new_tokens must be above 0, got {max_new_tokens}")
        with self._inference():
            answers = self.generator.decode(state, max_new_tokens, self._stop_ids)
        return [self.processor.tokenizer.decode(ids, skip_special_tokens=True,
                                                clean_up_tokenization_spaces=False).strip() for ids in answers]

    def answer(self, questions: Sequence[str], documents: Sequence[Sequence[str]] | None = None,
               memory: Memory | None = None, max_new_tokens: int = 64, batch_size: int = 8,
               num_memory_tokens: int | None = None, keep_documents: Keep = None) -> list[str]:
        """Answer questions from their documents, or from memory that :meth:`compress` gave.

        Any number of documents a question, none included; questions of like length are answered together, and the
        answers come back in the order of the questions.

        Args:
            keep_documents: give the generator the best so many of a question's documents, or with "auto" those that
                score above the calibrated threshold [all, in the order given].

        Raises:
            ValueError: where both are given, they do not go together with the questions, or the model cannot choose.
        """
        found = self.answer_with_sources(questions, documents, memory, max_new_tokens, batch_size, num_memory_tokens,
                                         keep_documents)
        return [answer.text for answer in found]

    def answer_with_sources(self, questions: Sequence[str], documents: Sequence[Sequence[str]] | None = None,
                            memory: Memory | None = None, max_new_tokens: int = 64, batch_size: int = 8,
                            num_memory_tokens: int | None = None, keep_documents: Keep = None) -> list[Answer]:
        """As :meth:`answer`, each answer with the documents that it was given, their order and their scores."""
        if documents is not None and memory is not None:
            raise ValueError("give documents or memory, not both")
        check(keep_documents, self.config.enable_reranking, self.config.keep_threshold)
        if memory is not None and num_memory_tokens is not None:
            raise ValueError("num_memory_tokens is chosen where documents are compressed: give it to compress")
        documents = _checked(questions, [[] for _ in questions] if documents is None else documents)
        if memory is not None and len(memory) != len(questions):
            raise ValueError(f"{len(questions)} questions, but memory for {len(memory)}")
        order = sorted(range(len(questions)), key=lambda number: _size(questions[number], documents[number]))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), batch_size):
            numbers = order[start:start + batch_size]
            asked, given = [questions[number] for number in numbers], [documents[number] for number in numbers]
            read = (self.compress(asked, given, batch_size, num_memory_tokens) if memory is None
                    else memory.select(numbers))
            answers |= zip(numbers, self._answers(asked, read, max_new_tokens, keep_documents), strict=True)
        return [answers[number] for number in range(len(questions))]

    def _answers(self, questions: Sequence[str], memory: Memory, max_new_tokens: int,
                 keep_documents: Keep) -> list[Answer]:
        sources = kept(memory, keep_documents, self.config.keep_threshold)
        if keep_documents is not None:
            memory = memory.keep(sources)
        texts = self.decode(self.prefill(questions, memory), max_new_tokens)
        scores = [None] * len(texts) if memory.scores is None else [
            tuple(row[:len(source)]) for row, source in zip(memory.scores.tolist(), sources, strict=True)]
        return [Answer(text, tuple(source), score)
                for text, source, score in zip(texts, sources, scores, strict=True)]

    def rerank(self, question: str, documents: Sequence[str]) -> tuple[list[int], list[float]]:
        """Documents by relevance, best first: their numbers, and each one's score in the order given.

        Raises:
            ValueError: for a model without a reranking head.
        """
        if not self.config.enable_reranking:
            raise ValueError("this model has no reranking head; train one with --enable_reranking")
        scores = self.compress([question], [documents]).scores[0].tolist()
        return by_score(scores), scores

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
            self.config.save(draft)

    @classmethod
    def from_pretrained(cls, name: Path | str, device: torch.device | str | None = None,
                        dtype: torch.dtype | None = None, revision: str | None = None) -> ScaleDownModel:
        """Load a checkpoint: a folder, a Hub id, or "embedded", the one that ships with the project.

        Raises:
            ValueError: where it does not exist, or a file is missing, damaged or of another model.
        """
        folder = checkpoint.find(str(name), revision)
        model = cls(ScaleDownConfig.load(folder), dtype=dtype, folder=folder)
        model.load_trained(folder)
        return model.to(device or "cpu")

    def load_trained(self, folder: Path) -> None:
        """Take what was trained from a checkpoint of the same model.

        Raises:
            ValueError: where a file is missing, damaged or of another model.
        """
        checkpoint.load_weights(self.compressor, folder / COMPRESSOR_FILE)
        checkpoint.load_weights(self.generator, folder / GENERATOR_FILE)

    def push_to_hub(self, repo_id: str) -> None:
        """Upload a checkpoint to the Hub as ``repo_id``, which is made if need be."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "checkpoint")
            HfApi().create_repo(repo_id, exist_ok=True)
            HfApi().upload_folder(repo_id=repo_id, folder_path=Path(folder) / "checkpoint")

    def _compress(self, questions: Sequence[str], documents: Sequence[Sequence[str]], num_memory: int) -> Compressed:
        texts = self.processor.compressor_input(questions, documents)
        texts = CompressorInput(*(ids.to(self.device) for ids in texts))
        return self.compressor(texts, self.generator.embed, num_memory)

    def _autocast(self) -> AbstractContextManager:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """No gradients and no dropout, whatever mode training has the model in."""
        was_training = self.training
        if was_training:
            self.eval()
        try:
            with torch.no_grad(), self._autocast():
                yield
        finally:
            if was_training:
                self.train()


def _texts(batch: dict[str, Tensor]) -> CompressorInput:
    return CompressorInput(*(batch[name] for name in CompressorInput._fields))


def _stop_ids(processor: Processor, base: Any) -> list[int]:
    """Every token that ends an answer: the template's, the tokenizer's and the generation config's."""
    ends = base.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({processor.prompt.end_id, processor.tokenizer.eos_token_id, *ends} - {None})


def _checked(questions: Sequence[str], documents: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    if isinstance(questions, str) or any(isinstance(each, str) for each in documents):
        raise ValueError("questions is a list of strings, and documents has one list of strings for each of them")
    if len(questions) != len(documents):
        raise ValueError(f"{len(questions)} questions, but documents for {len(documents)}")
    return documents


def _size(question: str, documents: Sequence[str]) -> int:
    return len(question) + sum(map(len, documents))
