"""The metrics as an ``evaluate.Metric``: nothing is downloaded, and it gathers the answers of several processes."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from scaledown.config import EvaluationConfig, TrainingConfig
from scaledown.evaluation.metrics import score_answer, summarise

_DESCRIPTION = """Exact match, token F1, ROUGE-L and accuracy of short answers, each the best over all references,
averaged, with 95% bootstrap intervals."""

_INPUTS = """
Args:
    predictions: list of answers.
    references: list of lists: all accepted answers of each question.
    num_resamples: resamples behind each interval.
    bootstrap_seed: seed of the resamples.
Returns:
    n, and for each of exact_match, token_f1, rouge_l and accuracy: <metric>_avg and <metric>_ci95.
"""


class AnswerMetric(evaluate.Metric):
    """The metrics for ``evaluate``: ``AnswerMetric().compute(predictions=[...], references=[[...], ...])``.

    Over several processes, build it with ``num_process``, ``process_id`` and one ``experiment_id`` for all (they share
    the cache folder); ``compute`` then gives process 0 the numbers of all answers, and None to the others.
    """

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("string"),
                    "references": datasets.Sequence(datasets.Value("string"))}
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS,
                                   features=datasets.Features(features))

    def _compute(self, predictions: list[str], references: list[list[str]],
                 num_resamples: int = EvaluationConfig.bootstrap_resamples,
                 bootstrap_seed: int = TrainingConfig.seed) -> dict[str, Any]:
        # Called on process 0 only, with the answers of all processes.
        scores = [score_answer(prediction, accepted)
                  for prediction, accepted in zip(predictions, references, strict=True)]
        return summarise(scores, num_resamples, bootstrap_seed)
