"""ScaleDown with the text of some documents beside the memory of the others: always, or where it is unsure.

They ask what the text of a few documents adds, and how much longer prompts are. The other systems are in
:mod:`scaledown.evaluation.systems`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scaledown.evaluation.systems import SCALEDOWN, Documents, Questions, System
from scaledown.models.serving import question_answering


@dataclass
class _Asked:
    """Questions that are read and answered in one go, since the first answers say what is read then."""

    questions: Questions
    documents: Documents
    memory: Any
    num_prompt_tokens: list[int] = field(default_factory=list)
    num_new_tokens: list[int] = field(default_factory=list)


def with_text_of(text_documents: int) -> System:
    """Return ScaleDown that reads this number of the best documents as text."""

    def prefill(model: Any, questions: Questions, documents: Documents, memory: Any) -> Any:
        request = question_answering.checked_request(model, questions, documents, memory,
                                                     text_documents=text_documents)
        return question_answering.prompts_of(model, request)

    return System(f"scaledown_with_text_of_{text_documents}", prefill, SCALEDOWN.compress)


def expanding(text_documents: int) -> System:
    """Return ScaleDown that reads this number of the best documents as text if it is unsure; it counts both prompts."""

    def prefill(model: Any, questions: Questions, documents: Documents, memory: Any) -> _Asked:
        return _Asked(questions, documents, memory)

    def decode(model: Any, state: _Asked, max_new_tokens: int) -> list[str]:
        answers = model.answer_expanding(state.questions, state.documents, state.memory, text_documents=text_documents,
                                         max_new_tokens=max_new_tokens, batch_size=len(state.questions))
        state.num_prompt_tokens = [sum(answer.num_prompt_tokens) for answer in answers]
        state.num_new_tokens = [sum(answer.num_new_tokens) for answer in answers]
        return [answer.text for answer in answers]

    return System(f"scaledown_expanding_{text_documents}", prefill, SCALEDOWN.compress, decode)
