"""How good an answer is: exact match, token F1, ROUGE-L and accuracy, with 95% intervals. No torch here.

Exact match and token F1 are SQuAD's (Rajpurkar et al., arXiv:1606.05250), with version 2.0's rule for empty answers:
an empty answer is right only where the reference is empty too. Accuracy is the paper's (arXiv:2504.07109, table 3): a
reference contained in the normalised output. Each is the best over all references of a question.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

METRICS = ("exact_match", "token_f1", "rouge_l", "accuracy")
PERCENTILES_95 = (2.5, 97.5)
COUNTS_AT_ONCE = 10_000_000

_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Thai, Lao, Tibetan, Burmese, Khmer, kana and Han ideographs are written without spaces between words.
_UNSPACED = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True)
class AnswerScores:
    """The four metrics of one answer, each between 0 and 1."""

    exact_match: float
    token_f1: float
    rouge_l: float
    accuracy: float

    def to_dict(self) -> dict[str, float]:
        """The scores by name."""
        return dataclasses.asdict(self)


def normalise(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no English articles, single spaces."""
    without_punctuation = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", without_punctuation).split())


def exact_match(prediction: str, reference: str) -> float:
    """1 where both are equal after normalisation, else 0."""
    return float(normalise(prediction) == normalise(reference))


def token_f1(prediction: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the multisets of normalised tokens."""
    predicted, expected = normalise(prediction).split(), normalise(reference).split()
    if not predicted or not expected:
        return float(predicted == expected)
    num_shared = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * num_shared / (len(predicted) + len(expected))


def accuracy(prediction: str, reference: str) -> float:
    """1 where the normalised reference stands in the normalised output, else 0.

    It must stand there as whole words ("art" is not in "party"), but in a script without spaces between words any
    place will do. A reference that normalises to nothing is contained only in an output that does so too.
    """
    output, expected = normalise(prediction), normalise(reference)
    if not expected:
        return float(not output)
    if _UNSPACED.search(expected):
        return float(expected in output)
    return float(f" {expected} " in f" {output} ")


class UnicodeTokenizer:
    """Splits text for ROUGE: as rouge-score's own on ASCII text, but it keeps the letters of every script.

    rouge-score drops all but a-z and 0-9, so that two equal answers in Greek score 0. Scripts without spaces between
    words are cut into characters.
    """

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words, numbers included, without punctuation."""
        kept = (self._spell(character) for character in text.lower())
        return "".join(kept).split()

    @staticmethod
    def _spell(character: str) -> str:
        if _UNSPACED.match(character):
            return f" {character} "
        return character if unicodedata.category(character)[0] in "LMN" else " "


@functools.cache
def _rouge_scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], tokenizer=UnicodeTokenizer())


def rouge_l(prediction: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words (Lin, 2004), without stemming."""
    tokenize = UnicodeTokenizer().tokenize
    if not tokenize(prediction) or not tokenize(reference):
        return float(tokenize(prediction) == tokenize(reference))
    return float(_rouge_scorer().score(reference, prediction)["rougeL"].fmeasure)


_SCORERS = {"exact_match": exact_match, "token_f1": token_f1, "rouge_l": rouge_l, "accuracy": accuracy}


def score_answer(prediction: str, references: Sequence[str]) -> AnswerScores:
    """Score one answer: for each metric the best over all references.

    References that normalise to nothing count only where no other is left; no references at all stand for one empty
    reference (a question without an answer, as in SQuAD 2.0).

    Raises:
        TypeError: where ``references`` is a string, which would be read character by character.
    """
    if isinstance(references, str):
        raise TypeError(f"references must be a list of strings, got the string {references!r}")
    kept = [reference for reference in references if normalise(reference)] or [""]
    return AnswerScores(**{name: max(scorer(prediction, reference) for reference in kept)
                           for name, scorer in _SCORERS.items()})


def bootstrap_ci95(values: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """95% percentile bootstrap intervals of the mean of each column of ``values`` (questions, metrics).

    A resample is drawn as the number of times it holds each question, and all metrics share the resamples.

    Returns:
        (metrics, 2): low and high ends.
    """
    generator = np.random.default_rng(seed)
    num_questions = len(values)
    weights = np.full(num_questions, 1 / num_questions)
    rows = max(1, COUNTS_AT_ONCE // num_questions)
    means = [generator.multinomial(num_questions, weights, size=min(rows, num_resamples - start)) @ values
             for start in range(0, num_resamples, rows)]
    return np.percentile(np.concatenate(means) / num_questions, PERCENTILES_95, axis=0).T


def summarise(scores: Sequence[AnswerScores], num_resamples: int, seed: int) -> dict[str, Any]:
    """Averages and 95% bootstrap intervals, keyed as in ``metrics_report.json``.

    Returns:
        ``n``, and for each metric ``<metric>_avg`` (a float) and ``<metric>_ci95`` ([low, high]).

    Raises:
        ValueError: where there are no scores.
    """
    if not scores:
        raise ValueError("no answers to score: the evaluation records are empty")
    values = np.array([dataclasses.astuple(score) for score in scores], dtype=np.float64)
    intervals = bootstrap_ci95(values, num_resamples, seed)
    summary: dict[str, Any] = {"n": len(scores)}
    for column, name in enumerate(METRICS):
        summary[f"{name}_avg"] = float(values[:, column].mean())
        summary[f"{name}_ci95"] = [float(end) for end in intervals[column]]
    return summary
