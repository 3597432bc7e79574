"""Compressed documents as they travel between compressing and answering.

A long document that was split is in a memory as its passages, which are counted, scored and chosen like documents.

Memory holds what matters for its own question, and serves no other. Documents that were compressed without a query
(``compress(None, documents)``, arXiv:2504.07109 calls it query-independent) serve any question, and have no scores.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scaledown.models.compressors.base import Compressed
from scaledown.models.loading import tensor_file
from scaledown.models.loading.memory_origin import MemoryOrigin

FILE = "memory.safetensors"


@dataclass(frozen=True, repr=False)
class Memory:
    """The documents of B questions, compressed once, to be answered from any number of times.

    Memory of one list of documents without a query is shared by any number of questions.

    Attributes:
        embeddings: (B, K, L, D), zeros for the missing documents of a question with fewer than K. Each passage of a
            document that was split is one of the K.
        scores: (B, K) relevance, -inf for missing documents; None without reranking or without a query.
        num_documents: (B,), passages counted one by one; on the CPU wherever the rest is.
        origin: the model, questions and documents that it was made from; None, for memory that was not made by
            :meth:`ScaleDownModel.compress`, is not checked.
    """

    embeddings: Tensor
    scores: Tensor | None
    num_documents: Tensor
    origin: MemoryOrigin | None = None

    @classmethod
    def joined(cls, memories: Sequence[Memory]) -> Memory:
        """Return the documents of several memories as one: of each question those of the first, then of the next.

        So memory without a query stands in a prompt beside that of the question. It has no scores unless all have some,
        and its documents are numbered on from one memory to the next.

        Raises:
            ValueError: if there are none, or they are of different questions, models or numbers of memory tokens.
        """
        if not memories:
            raise ValueError("there is no memory to join: give at least one")
        num_questions = max(map(len, memories))
        memories = [memory.shared_by(num_questions) for memory in memories]
        if any(len(memory) != num_questions for memory in memories):
            raise ValueError(f"memory of {list(map(len, memories))} questions cannot be joined: give that of the same "
                             "questions; only one list without a query, compress(None, documents), is shared by all")
        sizes = {tuple(memory.embeddings.shape[2:]) for memory in memories}
        if len(sizes) > 1:
            raise ValueError(f"memory of different sizes cannot be joined, (memory tokens, width) {sorted(sizes)}: "
                             "compress all documents with the same num_memory_tokens")

        origins = [memory.origin for memory in memories]
        origin = None if None in origins else functools.reduce(MemoryOrigin.beside, origins)

        # Side by side with the padding of each, (B, K1 + K2 + ..., L, D); then without it.
        device = memories[0].embeddings.device
        embeddings = torch.cat([memory.embeddings.to(device) for memory in memories], 1)
        scores = None
        if all(memory.scores is not None for memory in memories):
            scores = torch.cat([memory.scores.to(device) for memory in memories], 1)
        counts = torch.stack([memory.num_documents for memory in memories]).sum(0)
        documents = cls(embeddings, scores, counts)._keep(_places_side_by_side(memories))
        return dataclasses.replace(documents, origin=origin)

    @classmethod
    def of_pairs(cls, compressed: Sequence[Compressed], num_documents: Sequence[int],
                 origin: MemoryOrigin | None = None) -> Memory:
        """Gather batches of P pairs, in the order of their questions, into one padded memory."""
        pairs, pair_scores, _ = Compressed.joined(compressed)                     # (P, L, D), (P,)
        counts = torch.tensor(num_documents, dtype=torch.long)
        shape = len(counts), max(num_documents, default=0)                        # B, K
        if len(pairs) == shape[0] * shape[1]:
            # Nothing is missing: no copy, which of thousands of passages would be large.
            scores = None if pair_scores is None else pair_scores.unflatten(0, shape)
            return cls(pairs.unflatten(0, shape), scores, counts, origin)
        at = _places_of_pairs(counts, shape[1]).to(pairs.device)                  # (P,)

        # Padding stays zero, and scores lowest.
        embeddings = pairs.new_zeros(shape[0] * shape[1], *pairs.shape[1:]).index_copy_(0, at, pairs)
        embeddings = embeddings.unflatten(0, shape)                               # (B, K, L, D)
        if pair_scores is None:
            return cls(embeddings, None, counts, origin)

        scores = pair_scores.new_full((shape[0] * shape[1],), -torch.inf).index_copy_(0, at, pair_scores)
        return cls(embeddings, scores.unflatten(0, shape), counts, origin)

    def __len__(self) -> int:
        return len(self.num_documents)

    def __repr__(self) -> str:
        num_questions, _, num_memory, width = self.embeddings.shape
        counts = self.num_documents.tolist()
        # One question has as many documents as there are.
        spread = f" ({min(counts)} to {max(counts)} each)" if num_questions > 1 else ""
        read = "documents"
        if self.origin is not None and self.origin.has_split_documents:
            read = "documents and passages"
        documents = f"{sum(counts)} {read}{spread}{', scored' if self.scores is not None else ''}"
        cut = "" if self.origin is None else f", for up to {self.origin.document_tokens} document tokens"
        of_whom = f"{num_questions} question{'' if num_questions == 1 else 's'}"
        if self.origin is not None and self.origin.serves_all:
            of_whom = "any questions"
        return (f"Memory({of_whom}, {documents}\n"
                f"  a document: {num_memory} memory tokens of width {width}{cut}\n"
                f"  {str(self.embeddings.dtype).removeprefix('torch.')} on {self.embeddings.device}, "
                f"{self.embeddings.nbytes:,} bytes)")

    def pairs(self) -> Tensor:
        """Return the embeddings without padding (P, L, D)."""
        at = _places_of_pairs(self.num_documents, self.embeddings.shape[1]).to(self.embeddings.device)
        return self.embeddings.flatten(0, 1).index_select(0, at)

    def select(self, questions: Sequence[int]) -> Memory:
        """Return the memory of some of the questions, by number."""
        numbers = torch.tensor(questions, dtype=torch.long)
        at = numbers.to(self.embeddings.device)
        scores = None if self.scores is None else self.scores[at]
        origin = None if self.origin is None else self.origin.select(questions)
        return Memory(self.embeddings[at], scores, self.num_documents[numbers], origin)

    def shared_by(self, num_questions: int) -> Memory:
        """Return one list of documents without a query as the memory of each of some questions, without copying it.

        Any other memory is returned as it is.
        """
        if self.origin is None or not self.origin.serves_all:
            return self
        return Memory(self.embeddings.expand(num_questions, -1, -1, -1), None, self.num_documents.expand(num_questions),
                      self.origin.select([0] * num_questions))

    def keep(self, documents: Sequence[Sequence[int]]) -> Memory:
        """Return the memory of some of each question's documents, by number, in the order in which they are named.

        Passages of a document that was split are numbered one by one, among all texts of their question. For one list
        without a query there may be numbers for any number of questions, such as a search finds.

        Raises:
            ValueError: if there is no list for each question, or a number that a question does not have.
        """
        if len(documents) != len(self) and self.origin is not None and self.origin.serves_all:
            return self.shared_by(len(documents)).keep(documents)
        return self._keep(_numbers(documents, self.num_documents.tolist()))

    def _keep(self, documents: Sequence[Sequence[int]]) -> Memory:
        questions: list[int] = []
        numbers: list[int] = []
        for question, of_question in enumerate(documents):
            questions += [question] * len(of_question)
            numbers += of_question

        # One index into the first two dimensions, (B, K), for each of the P pairs that stay.
        at = tuple(torch.tensor([questions, numbers], dtype=torch.long, device=self.embeddings.device))
        scores = None if self.scores is None else self.scores[at]
        origin = None if self.origin is None else self.origin.keep(documents)
        return Memory.of_pairs([Compressed(self.embeddings[at], scores)], list(map(len, documents)), origin)

    def checked(self, questions: Sequence[str], model: str) -> Memory:
        """Return the memory of each of these questions; refuse that of another model or of other questions.

        Args:
            questions: B texts, or any number of them for one list of documents without a query.
            model: the fingerprint of the model that is to answer.

        Raises:
            ValueError: if the memory does not belong to them, as far as its origin is known.
        """
        # One list without a query serves any number of questions; of other memory each question has its own.
        memory = self.shared_by(len(questions))
        if len(questions) != len(memory):
            raise ValueError(f"{len(questions)} questions, but memory for {len(memory)}")
        if memory.origin is not None:
            memory.origin.check(questions, model)
        return memory

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Memory:
        """Return the memory on another device, its embeddings in another number format; scores stay exact."""
        scores = None if self.scores is None else self.scores.to(device)
        return dataclasses.replace(self, embeddings=self.embeddings.to(device=device, dtype=dtype), scores=scores)

    def save(self, path: Path | str) -> None:
        """Write the memory with its origin into a safetensors file, or a folder as ``memory.safetensors``.

        The file holds the questions as text.

        Raises:
            ValueError: if the disk cannot take it; a file that was there then stays.
        """
        tensors = {"embeddings": self.embeddings, "num_documents": self.num_documents}
        if self.scores is not None:
            tensors["scores"] = self.scores
        origin = None if self.origin is None else dataclasses.asdict(self.origin)
        tensor_file.write(_file(path), tensors, {"memory": origin})

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str | None = None) -> Memory:
        """Read what :meth:`save` wrote, onto ``device`` [the CPU]; :meth:`ScaleDownModel.answer` moves it if needed.

        Raises:
            ValueError: if the file is missing, damaged, or holds something else.
        """
        path = _file(path)
        tensors, description = tensor_file.read(path)
        try:
            origin = MemoryOrigin.from_json(description["memory"])
            memory = cls(tensors["embeddings"], tensors.get("scores"), tensors["num_documents"], origin)
            memory._check_shapes()
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as fault:
            raise ValueError(f"{path}: not a memory that Memory.save wrote, or a damaged one ({fault})") from None
        return memory.to(device)

    def _check_shapes(self) -> None:
        """Refuse parts that do not fit together, as in a file that was changed.

        Raises:
            ValueError: if they do not.
        """
        # (B, K, L, D), and for each of the B questions at most K documents.
        shape, counts = self.embeddings.shape, self.num_documents.tolist()
        fits = len(shape) == 4 and len(counts) == shape[0] and all(0 <= count <= shape[1] for count in counts)
        if fits and self.scores is not None:
            fits = self.scores.shape == shape[:2]
        if fits and self.origin is not None:
            fits = len(self.origin.questions) == shape[0] and list(map(len, self.origin.document_ids)) == counts
        if fits and self.origin is not None:
            for of_documents in (self.origin.passages, self.origin.kept_numbers):
                fits = fits and (of_documents is None or list(map(len, of_documents)) == counts)
        if not fits:
            raise ValueError("its parts do not fit together")


def _places_side_by_side(memories: Sequence[Memory]) -> list[list[int]]:
    """Return where the documents of each question stand, if its padded ones of all ``memories`` lie side by side."""
    places: list[list[int]] = [[] for _ in memories[0].num_documents]
    start = 0
    for memory in memories:
        for question, count in enumerate(memory.num_documents.tolist()):
            places[question] += range(start, start + count)
        # The next memory's documents come behind this one's padding.
        start += memory.embeddings.shape[1]
    return places


def _numbers(documents: Sequence[Sequence[int]], counts: Sequence[int]) -> list[list[int]]:
    """Return the numbers of each question's documents, also of arrays, as a search gives them.

    Raises:
        ValueError: if there is no list for each question, or a number that a question does not have.
    """
    try:
        numbers = [list(map(operator.index, of_question)) for of_question in documents]
    except TypeError:
        raise ValueError("documents must be a list of numbers for each question, such as [[0, 2], [1]], got "
                         f"{documents!r}") from None
    if len(numbers) != len(counts):
        raise ValueError(f"{len(counts)} questions, but documents to keep for {len(numbers)}")

    # A negative number, which a search may give for nothing, would be taken for one from the end.
    faults = []
    for question, (of_question, count) in enumerate(zip(numbers, counts, strict=True)):
        missing = [number for number in of_question if not 0 <= number < count]
        if missing:
            faults.append(f"question {question} has no documents {missing}, only {count} of them, counted from 0")
    if faults:
        raise ValueError("; ".join(faults))
    return numbers


def _places_of_pairs(num_documents: Tensor, longest: int) -> Tensor:
    """Return where P pairs stand in (B * K,) places, of which each question has ``longest``, K.

    All on the CPU: to count them on another device, the host would wait for it.
    """
    is_document = torch.arange(longest) < num_documents.cpu()[:, None]            # (B, K)
    return is_document.flatten().nonzero()[:, 0]


def _file(path: Path | str) -> Path:
    path = Path(path)
    return path / FILE if path.is_dir() or not path.suffix else path
