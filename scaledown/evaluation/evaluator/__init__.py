"""One evaluator for every system: the same records, batches, metrics and resamples; only the prefill differs.

The metrics are an ``evaluate.Metric``, of this project's own code: nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import torch

from scaledown import processes
from scaledown.config import EvaluationConfig, TrainingConfig
from scaledown.evaluation.metrics import AnswerScores, score_answer, summarise
from scaledown.evaluation.systems import System
from scaledown.progress import Bar
from scaledown.training.devices import is_out_of_memory

METRIC_DESCRIPTION = """Exact match, token F1, ROUGE-L and accuracy of short answers, each the best over all references,
averaged, with 95% bootstrap intervals."""

METRIC_INPUTS = """
Args:
    predictions: list of answers.
    references: list of lists: all accepted answers of each question.
    num_resamples: number of resamples for each interval.
    bootstrap_seed: seed of the resamples.
Returns:
    n, and for each of exact_match, token_f1, rouge_l and accuracy: <metric>_avg and <metric>_ci95; scores: of each
    answer.
"""


class AnswerMetric(evaluate.Metric):
    """The metrics for ``evaluate``: ``AnswerMetric().compute(predictions=[...], references=[[...], ...])``."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
        return evaluate.MetricInfo(description=METRIC_DESCRIPTION, citation="", inputs_description=METRIC_INPUTS,
                                   features=datasets.Features(features))

    def _compute(self, predictions: list[str], references: list[list[str]],
                 num_resamples: int = EvaluationConfig.bootstrap_resamples,
                 bootstrap_seed: int = TrainingConfig.seed) -> dict[str, Any]:
        scores = []
        for prediction, accepted in zip(predictions, references, strict=True):
            scores.append(score_answer(prediction, accepted))
        return {**summarise(scores, num_resamples, bootstrap_seed), "scores": scores}


@dataclass(frozen=True)
class AnsweredQuestion:
    """One question, the system's answer and its scores."""

    id: str
    query: str
    references: tuple[str, ...]
    prediction: str
    scores: AnswerScores
    num_prompt_tokens: int
    num_new_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Return a flat dictionary, with the metrics beside the texts."""
        return {"id": self.id, "query": self.query, "references": list(self.references),
                "prediction": self.prediction, **self.scores.to_dict(),
                "num_prompt_tokens": self.num_prompt_tokens, "num_new_tokens": self.num_new_tokens}


@dataclass(frozen=True)
class SystemResult:
    """One system's result: the averages with their intervals, and every question in the records' order."""

    system: str
    averages: dict[str, Any]
    questions: tuple[AnsweredQuestion, ...]

    @property
    def mean_prompt_tokens(self) -> float:
        """Return the mean length of the generator's prompt, in tokens (a memory embedding counts as one)."""
        return statistics.fmean(question.num_prompt_tokens for question in self.questions)

    @property
    def mean_new_tokens(self) -> float:
        """Return the mean length of an answer, in generated tokens."""
        return statistics.fmean(question.num_new_tokens for question in self.questions)

    def summary(self) -> dict[str, Any]:
        """Return averages, intervals and mean lengths, without the questions."""
        return {**self.averages, "mean_prompt_tokens": self.mean_prompt_tokens,
                "mean_new_tokens": self.mean_new_tokens}

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``before_training_results.json`` or ``after_training_results.json``."""
        return {"system": self.system, **self.summary(),
                "questions": [question.to_dict() for question in self.questions]}


def token_counter(model: Any) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text, by the tokenizer of the model's generator."""

    def count_tokens(text: str) -> int:
        return len(model.processor.tokenizer(text, add_special_tokens=False).input_ids)

    return count_tokens


@contextlib.contextmanager
def inference(model: torch.nn.Module) -> Iterator[None]:
    """Switch to evaluation mode without gradients; afterwards each module has its old training mode again."""
    # By module, since a frozen part may be in evaluation mode while the rest trains.
    modes = {module: module.training for module in model.modules()}
    model.eval()

    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _gathered(share: dict[int, Any]) -> dict[int, Any]:
    """Return the answers of all processes by the record's index."""
    if not processes.is_joined():
        return share

    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, share)

    # No two processes answered the same record, so nothing is overwritten.
    answered: dict[int, Any] = {}
    for one_share in shares:
        answered.update(one_share)
    return answered


def _num_shares() -> int:
    return torch.distributed.get_world_size() if processes.is_joined() else 1


def _longest_first(records: Sequence[Any]) -> list[int]:
    """Return indices by falling length: batches have little padding, and one too big for memory fails at once."""
    num_characters = [len(record.query) + sum(map(len, record.documents)) for record in records]
    return sorted(range(len(records)), key=lambda index: (-num_characters[index], index))


def answer_batch(model: Any, system: System, records: Sequence[Any], max_new_tokens: int) -> tuple[list[str], Any]:
    """Answer ``records`` together.

    Returns:
        The answers, and the decoding state with the token counts of each question.
    """
    questions = [record.query for record in records]
    documents = [record.documents_with_titles for record in records]

    memory = system.compress(model, questions, documents)  # None for a system that reads text
    state = system.prefill(model, questions, documents, memory)
    return system.decode(model, state, max_new_tokens), state


def _answer_if_it_fits(model: Any, system: System, records: Sequence[Any],
                       config: EvaluationConfig) -> tuple[list[str], Any]:
    try:
        return answer_batch(model, system, records, config.max_new_tokens)
    except (MemoryError, RuntimeError) as fault:
        # Torch reports a full memory as a RuntimeError, as it does its bugs, which keep their traceback.
        if not is_out_of_memory(fault):
            raise
        less = f"--eval_batch_size {len(records) // 2}" if len(records) > 1 else "a smaller --generator_model"
        raise ValueError(f"out of memory while {system.name} answered {len(records)} questions together; try {less}, "
                         "or fewer or shorter documents") from fault


def _answer_share(model: Any, system: System, records: Sequence[Any], config: EvaluationConfig,
                  progress: bool) -> dict[int, tuple[str, int, int]]:
    """Answer this process's share of the records: index -> (answer, prompt tokens, new tokens)."""
    # Every n-th of the sorted records, so that all processes get long and short ones alike.
    indices = _longest_first(records)[processes.rank()::_num_shares()]
    bar = Bar(total=len(indices), desc=f"answering, {system.name}", unit="question",
              disable=not progress or processes.rank() > 0)

    share = {}
    with bar, inference(model):
        for start in range(0, len(indices), config.eval_batch_size):
            batch = indices[start:start + config.eval_batch_size]
            answers, state = _answer_if_it_fits(model, system, [records[index] for index in batch], config)
            counts = zip(state.num_prompt_tokens, state.num_new_tokens, strict=True)
            for index, answer, (num_prompt_tokens, num_new_tokens) in zip(batch, answers, counts, strict=True):
                share[index] = answer, num_prompt_tokens, num_new_tokens
            bar.update(len(batch))
    return share


def evaluate_system(model: Any, system: System, records: Sequence[Any], config: EvaluationConfig,
                    seed: int = TrainingConfig.seed, progress: bool = True) -> SystemResult:
    """Answer all ``records`` and score the answers.

    With several processes each answers its share, and every process returns the whole result. ``seed`` is that of
    the resamples: systems evaluated with the same seed share them.

    Raises:
        ValueError: if ``records`` is empty.
    """
    if not records:
        raise ValueError("no records to evaluate on")
    answered = _gathered(_answer_share(model, system, records, config, progress))

    # Back from the order of lengths to that of the records.
    predictions = [answered[index][0] for index in range(len(records))]
    averages, scores = _scores(predictions, [list(record.references) for record in records], config, seed)

    questions = []
    for index, record in enumerate(records):
        prediction, num_prompt_tokens, num_new_tokens = answered[index]
        questions.append(AnsweredQuestion(record.id, record.query, tuple(record.references), prediction, scores[index],
                                          num_prompt_tokens, num_new_tokens))
    return SystemResult(system.name, averages, tuple(questions))


def _scores(predictions: list[str], references: list[list[str]], config: EvaluationConfig,
            seed: int) -> tuple[dict[str, Any], list[AnswerScores]]:
    """Return averages with intervals, and the scores of each answer."""
    # evaluate makes a folder even for a metric that it keeps in memory; a home may not be writable.
    with tempfile.TemporaryDirectory() as folder:
        metric = AnswerMetric(keep_in_memory=True, cache_dir=folder)
        averages = metric.compute(
            predictions=[_whole_characters(prediction) for prediction in predictions],
            references=[list(map(_whole_characters, accepted)) for accepted in references],
            num_resamples=config.bootstrap_resamples, bootstrap_seed=seed)
    return averages, averages.pop("scores")


def _whole_characters(text: str) -> str:
    """Return a text that its columns can hold: half a surrogate pair becomes the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
