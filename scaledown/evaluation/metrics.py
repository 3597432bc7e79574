"""Metrics of answers: exact match, token F1, ROUGE-L and accuracy, with 95% intervals. No torch here.

Exact match and token F1 are SQuAD's (Rajpurkar et al., arXiv:1606.05250), with version 2.0's rule for empty answers:
an empty answer is right only if the reference is empty too. Accuracy is the paper's (arXiv:2504.07109, table 3): a
reference contained in the normalised output. Each is the best over all references of a question.

Texts are compared in one normal form (:mod:`scaledown.data.answers`), in which an accent, a vowel sign or a soft
hyphen makes no difference. English text is unchanged by it, so there the figures are SQuAD's own.
"""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from scaledown.data.answers import answer_tokens, holds_answer, is_unspaced, normal_form, normalise, padded

PERCENTILES_95 = (2.5, 97.5)
COUNTS_AT_ONCE = 10_000_000


@dataclass(frozen=True)
class AnswerScores:
    """The metrics of one answer, each between 0 and 1: a field for each of ``METRICS``, in their order."""

    exact_match: float
    token_f1: float
    rouge_l: float
    accuracy: float

    def to_dict(self) -> dict[str, float]:
        """Return the scores by name."""
        return dataclasses.asdict(self)


def exact_match(prediction: str, reference: str) -> float:
    """Return 1 if both are equal after normalisation, else 0."""
    return float(normalise(prediction) == normalise(reference))


def token_f1(prediction: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall over the multisets of normalised tokens."""
    predicted, expected = answer_tokens(prediction), answer_tokens(reference)
    # SQuAD 2.0: an empty answer is right only if the reference is empty too.
    if not predicted or not expected:
        return float(predicted == expected)

    # With p = shared / predicted and r = shared / expected, 2pr / (p + r) is 2 shared / (predicted + expected).
    num_shared = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * num_shared / (len(predicted) + len(expected))


def accuracy(prediction: str, reference: str) -> float:
    """Return 1 if the normalised output contains the normalised reference, else 0.

    It must be there as whole words ("art" is not in "party"), but in a script without spaces between words any place
    will do. A reference that normalises to nothing is contained only in an output that does so too.
    """
    # The empty text is contained in every text, so it needs a rule.
    if not normalise(reference):
        return float(not normalise(prediction))
    return float(holds_answer(padded(prediction), [padded(reference)]))


class UnicodeTokenizer:
    """A tokenizer for ROUGE: rouge-score's own on ASCII text, but it keeps the letters of every script.

    rouge-score drops all but a-z and 0-9, so that two equal answers in Greek score 0. Scripts without spaces between
    words are cut into characters.
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the words of ``text`` in lower case, numbers included, without punctuation."""
        return "".join(self._spell(character) for character in normal_form(text)).split()

    @staticmethod
    def _spell(character: str) -> str:
        if is_unspaced(character):
            return f" {character} "  # a word of its own
        # Letters, marks and numbers of any script; everything else separates words.
        return character if unicodedata.category(character)[0] in "LMN" else " "


@functools.cache
def _rouge_scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], tokenizer=UnicodeTokenizer())


def rouge_l(prediction: str, reference: str) -> float:
    """Return the F-measure of the longest common subsequence of words (Lin, 2004), without stemming."""
    tokenize = UnicodeTokenizer().tokenize
    # rouge-score gives 0 to two empty texts; here they are equal, as for the other metrics.
    if not tokenize(prediction) or not tokenize(reference):
        return float(tokenize(prediction) == tokenize(reference))
    return float(_rouge_scorer().score(reference, prediction)["rougeL"].fmeasure)


@dataclass(frozen=True)
class Metric:
    """A number from 0 (worst) to 1 (best) for an answer and one reference, and what reports call it.

    Attributes:
        score: (prediction, reference) -> number.
        name: its name in tables and sentences.
        meaning: what the number is, below the axis of a figure.
        words_of: what it compares of a text; a reference without any of it counts only if all are.
    """

    score: Callable[[str, str], float]
    name: str
    meaning: str
    words_of: Callable[[str], Any] = normalise

    @property
    def title(self) -> str:
        """Return the name as a heading."""
        return self.name[0].upper() + self.name[1:]


METRICS = {
    "exact_match": Metric(exact_match, "exact match", "share of answers equal to a reference"),
    "token_f1": Metric(token_f1, "token F1", "words shared with a reference, F1"),
    "rouge_l": Metric(rouge_l, "ROUGE-L", "words in the same order, F1", UnicodeTokenizer().tokenize),
    "accuracy": Metric(accuracy, "accuracy", "share of answers containing a reference"),
}
"""By the key that every report has. Tables and figures read this, so a new metric is an entry and a field here."""


def score_answer(prediction: str, references: Sequence[str]) -> AnswerScores:
    """Score one answer: for each metric the best over all references.

    A reference that normalises to nothing, such as "the", counts only if all of them do; ROUGE-L keeps articles, so
    there "the" counts. No references at all mean one empty reference (a question without an answer, as in SQuAD 2.0).

    Raises:
        TypeError: if the prediction or a reference is not a string, or ``references`` is one, which would be read
            character by character.
    """
    if isinstance(references, str):
        raise TypeError(f"references must be a list of strings, got the string {references!r}")
    for text in (prediction, *references):
        if not isinstance(text, str):
            raise TypeError(f"the prediction and its references must be strings, got {text!r}")

    # Each metric has its own notion of a word, and so of a reference without any.
    scores = {}
    for key, metric in METRICS.items():
        comparable = _comparable(references, metric.words_of)
        scores[key] = max(metric.score(prediction, reference) for reference in comparable)
    return AnswerScores(**scores)


def _comparable(references: Sequence[str], words_of: Callable[[str], Any]) -> list[str]:
    """Return the references that have words according to ``words_of``; all of them if none has."""
    with_words = [reference for reference in references if words_of(reference)]
    return with_words or list(references) or [""]


def bootstrap_ci95(values: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """Return 95% percentile bootstrap intervals of the mean of each column of ``values`` (questions, metrics).

    A resample is drawn as the number of times it holds each question, and all metrics share the resamples.

    Returns:
        (metrics, 2): low and high ends.
    """
    generator = np.random.default_rng(seed)
    num_questions = len(values)
    weights = np.full(num_questions, 1 / num_questions)  # each question is as likely as any other

    # All counts together would be resamples x questions numbers, so they are drawn in chunks that fit in memory.
    chunk = max(1, COUNTS_AT_ONCE // num_questions)
    sums = []
    for start in range(0, num_resamples, chunk):
        counts = generator.multinomial(num_questions, weights, size=min(chunk, num_resamples - start))
        sums.append(counts @ values)  # (chunk, questions) @ (questions, metrics)

    means = np.concatenate(sums) / num_questions  # (resamples, metrics)
    return np.percentile(means, PERCENTILES_95, axis=0).T


def interval_text(ends: Sequence[float]) -> str:
    """Return an interval as tables have it: ``[0.848, 0.906]``."""
    low, high = ends
    return f"[{low:.3f}, {high:.3f}]"


def summarise(scores: Sequence[AnswerScores], num_resamples: int, seed: int) -> dict[str, Any]:
    """Return averages and 95% bootstrap intervals, keyed as in ``metrics_report.json``.

    Returns:
        ``n``, and for each metric ``<metric>_avg`` (a float) and ``<metric>_ci95`` ([low, high]).

    Raises:
        ValueError: if there are no scores.
    """
    if not scores:
        raise ValueError("no answers to score: the evaluation records are empty")

    # Columns in the order of AnswerScores' fields, which is that of METRICS.
    values = np.array([dataclasses.astuple(score) for score in scores], dtype=np.float64)  # (questions, metrics)
    intervals = bootstrap_ci95(values, num_resamples, seed)

    summary: dict[str, Any] = {"n": len(scores)}
    for column, name in enumerate(METRICS):
        summary[f"{name}_avg"] = float(values[:, column].mean())
        summary[f"{name}_ci95"] = [float(end) for end in intervals[column]]
    return summary
