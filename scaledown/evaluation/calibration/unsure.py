"""Find the probability below which an answer is taken for unsure: ``expand_threshold``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scaledown.evaluation.metrics import score_answer

BATCH_SIZE = 8
MAX_NEW_TOKENS = 64
Judged = tuple[float, bool]
"""The probability of an answer's first token, and whether the answer is right."""


def judged_answers(model: Any, records: Sequence[Any]) -> list[Judged]:
    """Return how sure the model is of its answer to each record from memory, and whether a gold answer is in it."""
    answers = model.answer_expanding([record.query for record in records], [record.documents for record in records],
                                     threshold=0.0, max_new_tokens=MAX_NEW_TOKENS, batch_size=BATCH_SIZE,
                                     show_progress_bar=True)
    judged = []
    for record, answer in zip(records, answers, strict=True):
        judged.append((answer.probability, score_answer(answer.text, record.references).accuracy > 0))
    return judged


def unsure_threshold(judged: Sequence[Judged], recall: float) -> float:
    """Return the lowest threshold below which at least ``recall`` of the wrong answers are.

    Raises:
        ValueError: if no answer is wrong, or too many wrong ones have the highest probability of all, 1.
    """
    wrong = sorted(probability for probability, is_right in judged if not is_right)
    if not wrong:
        raise ValueError(f"all {len(judged)} answers are right, so there is nothing to calibrate by; take more with "
                         "--eval_examples, or other --eval_data")

    # The last of the ceil(recall * n) wrong answers to be caught. Halfway to the next answer, so that rounding does not
    # matter; above all answers there is only certainty.
    # 0.55 * 100 is a little above 55 in floating point.
    last = wrong[max(1, math.ceil(recall * len(wrong) - 1e-9)) - 1]
    if last >= 1.0:
        num_below = sum(probability < 1.0 for probability in wrong)
        raise ValueError(f"no threshold has {recall:g} of the wrong answers below it: {len(wrong) - num_below} of "
                         f"{len(wrong)} have a probability of 1; the highest --recall to ask for is "
                         f"{math.floor(1000 * num_below / len(wrong)) / 1000:g}")
    above = [probability for probability, _ in judged if probability > last]
    return (last + min(above, default=1.0)) / 2


def summary(judged: Sequence[Judged], threshold: float) -> str:
    """Return in a sentence what a threshold catches, and which share of all questions it reads text for."""
    caught = [is_right for probability, is_right in judged if probability < threshold]
    num_wrong = sum(not is_right for _, is_right in judged)
    return (f"below a probability of {threshold:.3f} are {caught.count(False)} of {num_wrong} wrong answers, and "
            f"{caught.count(True)} of {len(judged) - num_wrong} right ones: {len(caught) / len(judged):.0%} of the "
            "questions would be answered again with text")
