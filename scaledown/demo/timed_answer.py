"""One answer as it grows, with its tokens and seconds: from memory, from full text or without documents, all alike."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from scaledown.evaluation.cost.flops import Flops
from scaledown.evaluation.evaluator.timing import synchronise
from scaledown.evaluation.systems import System
from scaledown.models.memory import Memory
from scaledown.models.model import ScaleDownModel
from scaledown.models.serving import streaming
from scaledown.models.serving.question_answering import to_text

MAX_NEW_TOKENS = 32
"""The longest answer: checkpoints answer briefly, and a generator without documents may go on and on."""


@dataclass(frozen=True)
class AnswerSeconds:
    """Seconds of one answer, each counted from the start of its own work.

    Attributes:
        compress: of compressing all documents; 0 for a system that reads text.
        prompt: of reading the prompt.
        first_token: from the question to the first token, compressing included.
        whole: from the question to the last token.
    """

    compress: float
    prompt: float
    first_token: float
    whole: float


@dataclass(frozen=True)
class GrowingText:
    """The answer of one system so far.

    Attributes:
        system: its name.
        text: of the answer.
        num_prompt_tokens: what the generator reads; 0 as long as that is not known.
        num_new_tokens, seconds: known at the end.
        flops: counted at the end, by whoever knows what was read.
        note: a reason to expect a bad answer, such as a prompt longer than the generator was made for; "" for none.
        fault: why there is no answer, such as a prompt that is too long; "" if there is one.
    """

    system: str
    text: str = ""
    num_prompt_tokens: int = 0
    num_new_tokens: int = 0
    seconds: AnswerSeconds | None = None
    flops: Flops | None = None
    note: str = ""
    fault: str = ""

    @property
    def has_ended(self) -> bool:
        """True if nothing more comes."""
        return self.seconds is not None or bool(self.fault)


def now(model: ScaleDownModel) -> float:
    """Return the time in seconds once the model's device has done all that it was asked for."""
    synchronise(model.device)
    return time.perf_counter()


def growing_answer(model: ScaleDownModel, system: System, question: str, documents: list[Any],
                   memory: Memory | None = None, compress_seconds: float = 0.0) -> Iterator[GrowingText]:
    """Yield a system's answer as it grows; the last one has its tokens and seconds, or says why there is none.

    Args:
        model: answers.
        system: one of :mod:`scaledown.evaluation.systems`; what it compresses was compressed before.
        question: with its ``documents``.
        memory: of the documents that are read from memory.
        compress_seconds: the time that making it took.
    """
    answer = GrowingText(system.name)
    yield answer
    try:
        started = now(model)
        prompts = system.prefill(model, [question], [documents], memory)
        prompt_seconds = now(model) - started
        num_tokens = prompts.num_prompt_tokens[0]
        answer = dataclasses.replace(answer, num_prompt_tokens=num_tokens, note=_note(model, num_tokens))

        # The model is free again when the tokens are closed, also if the reader has gone.
        with closing(streaming.steps(partial(model.decode, prompts, MAX_NEW_TOKENS))) as tokens:
            first = next(tokens)
            first_token_seconds = now(model) - started
            pieces = streaming.pieces(itertools.chain([first], tokens), [0], model.stop_ids, partial(to_text, model))
            for piece in pieces:
                answer = dataclasses.replace(answer, text=answer.text + piece.text)
                yield answer
    except ValueError as fault:
        yield dataclasses.replace(answer, fault=str(fault))
        return

    whole_seconds = now(model) - started
    seconds = AnswerSeconds(compress_seconds, prompt_seconds, compress_seconds + first_token_seconds,
                            compress_seconds + whole_seconds)
    yield dataclasses.replace(answer, num_new_tokens=prompts.num_new_tokens[0], seconds=seconds)


def _note(model: ScaleDownModel, num_tokens: int) -> str:
    """Return what is to be said of a prompt's length; "" for a usual one."""
    num_positions = model.processor.num_positions
    if num_positions is None or num_tokens < num_positions:
        return ""
    return (f"{num_tokens:,} prompt tokens: the generator was made for {num_positions:,}, answer included, so expect a "
            "bad answer.")
