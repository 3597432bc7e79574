"""Answers from memory, and if the generator is unsure of its answer, a second one with text in the place of memory.

    question, memory                 -> answer, probability of its first token
    below the threshold: the best documents as text, the others as memory -> the answer that counts

Most questions cost no more than without it. Peers let the generator ask for the text by a token of its own (EXPAND);
here its own probability decides, so that nothing new is trained.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from scaledown.models.serving import question_answering
from scaledown.models.serving.choosing import check_scored
from scaledown.models.serving.compressing import check_compresses, compress
from scaledown.models.serving.question_answering import Answer, Generation, Request

if TYPE_CHECKING:
    from scaledown.config import ScaleDownConfig
    from scaledown.models.model import ScaleDownModel


@dataclass(frozen=True)
class ExpandedAnswer:
    """An answer, what the generator read for it, and what that cost.

    Attributes:
        text: the answer: the second one, if text was read.
        first_text: the answer from memory alone.
        probability: that of the first answer's first token.
        text_documents: numbers of the documents that were read as text, or of which a passage was; none if it was sure.
        document_ids: the ids of these.
        num_prompt_tokens: lengths of the prompts that were read, memory included: of one, or two if text was read.
        num_new_tokens: lengths of their answers.
    """

    text: str
    first_text: str
    probability: float
    text_documents: tuple[int, ...]
    document_ids: tuple[str, ...]
    num_prompt_tokens: tuple[int, ...]
    num_new_tokens: tuple[int, ...]


@dataclass(frozen=True)
class _Reading:
    """One question's answer from one prompt."""

    text: str
    probability: float
    num_prompt_tokens: int
    num_new_tokens: int
    text_documents: tuple[int, ...]


class FirstTokenProbability(LogitsProcessor):
    """Notes, as ``generate`` runs, the probability of the likeliest first token of each answer.

    Attributes:
        probabilities: (B,) after the first token; None before.
    """

    def __init__(self) -> None:
        self.probabilities: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (B, V) as they are."""
        if self.probabilities is None:
            self.probabilities = scores.float().softmax(-1).amax(-1)
        return scores


def checked_threshold(model: ScaleDownModel, threshold: float | None) -> float:
    """Return the threshold to use, the model's own if None is given.

    Raises:
        ValueError: if there is none, or the model cannot choose documents.
    """
    check_compresses(model)
    return threshold_of(model.config, threshold)


def threshold_of(config: ScaleDownConfig, threshold: float | None) -> float:
    """Return the threshold to use with a model of these settings, as :func:`checked_threshold` does.

    Raises:
        ValueError: if there is none, or the model cannot choose documents.
    """
    if not config.enable_reranking:
        raise ValueError("this model has no reranking head to choose the documents to read as text; train one with "
                         "--enable_reranking")
    # The calibrated one, which the checkpoint remembers.
    if threshold is None:
        threshold = config.expand_threshold
    if threshold is None:
        raise ValueError("answer_expanding needs a threshold, which this model has not; give threshold=0.9, or find it "
                         "with python -m scaledown.evaluation.calibration --find expand_threshold")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be a probability, from 0 to 1, got {threshold}")
    return threshold


def answers(model: ScaleDownModel, request: Request, threshold: float, num_texts: int) -> list[ExpandedAnswer]:
    """Return the answers in the order of the questions; see :meth:`ScaleDownModel.answer_expanding`."""
    if (request.generation.config.num_beams or 1) > 1:
        raise ValueError("answer_expanding asks how sure the generator is of one answer: num_beams must be 1")
    given, memory = request.given, request.memory
    if memory is not None:
        check_scored(memory)
    else:
        memory = compress(model, given, request.batch_size, request.num_memory_tokens, request.cache,
                          show_progress_bar=request.show_progress_bar, long_documents=request.long_documents)
    first = _readings(model, dataclasses.replace(request, memory=memory))
    # Taken once: each makes the lists of all questions anew.
    documents, document_ids = given.documents, given.document_ids

    # Once more for those of which it is unsure; a question without documents has nothing more to read.
    unsure = [number for number, reading in enumerate(first)
              if reading.probability < threshold and documents[number]]
    again = dataclasses.replace(request, given=given.select(unsure), memory=memory.select(unsure),
                                text_documents=num_texts)
    second = dict(zip(unsure, _readings(model, again), strict=True))

    found = []
    for number, reading in enumerate(first):
        readings = [reading, second[number]] if number in second else [reading]
        read, ids = readings[-1].text_documents, document_ids[number]
        found.append(ExpandedAnswer(
            readings[-1].text, reading.text, reading.probability, read, tuple(ids[document] for document in read),
            tuple(each.num_prompt_tokens for each in readings), tuple(each.num_new_tokens for each in readings)))
    return found


def _readings(model: ScaleDownModel, request: Request) -> list[_Reading]:
    """Answer a request, and note how sure the generator is of each answer; in the order of the questions."""
    by_question: dict[int, _Reading] = {}
    for batch in question_answering.batches(model, request):
        noted = FirstTokenProbability()
        texts = question_answering.generate(model, batch.prompts, _noting(request.generation, noted))
        # Dummies, which fill a batch up to a rounded shape, come last.
        as_text = [Answer.of("", read).text_documents for read in batch.sources]
        parts = zip(batch.questions, texts, noted.probabilities.tolist(), batch.prompts.num_prompt_tokens,
                    batch.prompts.num_new_tokens, as_text, strict=False)
        for number, *reading in parts:
            by_question[number] = _Reading(*reading)
    return [by_question[number] for number in range(len(request.given.questions))]


def _noting(generation: Generation, noted: FirstTokenProbability) -> Generation:
    """Return the same options of ``generate`` with a processor behind those that were given."""
    processors = LogitsProcessorList([*(generation.others.get("logits_processor") or []), noted])
    return Generation(generation.config, generation.others | {"logits_processor": processors})
