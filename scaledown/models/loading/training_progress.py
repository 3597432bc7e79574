"""The steps, scores and records that a model was trained on, and how it then answered: its card says so.

An untrained reranking head gives meaningless scores, and a model that never compressed a document without a query gives
memory that says little. So both are counted.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scaledown.files import parse_json, write_json
from scaledown.settings import from_dict, require

FILE = "training.json"
FEW_SCORES = 1000
"""With fewer, a reranking head may rank by chance: the scores of 200 questions with five documents each."""


class Average(NamedTuple):
    """The average of one metric over an evaluation's questions, for one system, with its 95% interval."""

    system: str
    metric: str
    average: float
    low: float
    high: float


@dataclass(frozen=True)
class Results:
    """The averages of a model and its baselines over the questions of an evaluation.

    Attributes:
        eval_data: their file; None for the demo's.
        num_questions: in it, as far as they were asked.
        averages: of the model, whose system is named "this checkpoint", and of the baselines.
    """

    eval_data: str | None
    num_questions: int
    averages: tuple[Average, ...]


@dataclass(frozen=True)
class TrainingProgress:
    """The number of steps and scores that a model was trained on; None if an older checkpoint does not say.

    Attributes:
        num_steps: steps, pretraining included.
        num_scores: teacher's scores that the reranking head has seen; one that is seen twice counts twice.
        num_steps_since_scores: steps since then, in which what the head reads has changed, and the head has not.
        train_data: the records and texts that it was trained on, by the names of their files, in this order.
        results: of an evaluation after these steps; None after further ones.
        query_dropout: share of the questions of its latest training whose documents were compressed without the query.
    """

    num_steps: int | None = 0
    num_scores: int | None = 0
    num_steps_since_scores: int | None = 0
    train_data: tuple[str, ...] = ()
    results: Results | None = None
    query_dropout: float = 0.0

    def __post_init__(self) -> None:
        faults = []
        for name in ("num_steps", "num_scores", "num_steps_since_scores"):
            number = getattr(self, name)
            if number is not None and number < 0:
                faults.append(f"{name} must be at least 0, got {number}")
        if not 0 <= self.query_dropout <= 1:
            faults.append(f"query_dropout must be from 0 to 1, got {self.query_dropout}")
        require(faults)

    def after(self, num_steps: int, num_scores: int, query_dropout: float = 0.0) -> TrainingProgress:
        """Return the progress after a training of so many more steps and scores, with this ``--query_dropout``."""
        # Every score trains the head, too, and brings it up to date.
        since_scores = 0 if num_scores else _sum(self.num_steps_since_scores, num_steps)
        return TrainingProgress(_sum(self.num_steps, num_steps), _sum(self.num_scores, num_scores), since_scores,
                                self.train_data, self.results if num_steps == 0 else None, query_dropout)

    def on(self, *names: str | None) -> TrainingProgress:
        """Return the progress of a model that is about to be trained on these files or datasets, too."""
        # Of a path its last part alone: cards are public, and the folders of a machine are nobody's business.
        added = [Path(name).name if Path(name).exists() else name for name in names if name]
        return dataclasses.replace(self, train_data=tuple(dict.fromkeys([*self.train_data, *added])))

    def with_new_head(self) -> TrainingProgress:
        """Return the progress of the same model with a new reranking head."""
        return dataclasses.replace(self, num_scores=0, num_steps_since_scores=0, results=None)

    def warning(self) -> str | None:
        """Return why the reranking head's scores should not be trusted yet, or None if there is no reason known."""
        if self.num_scores is None:
            return None

        # Too few scores weigh more than an outdated head, so they are told first.
        if self.num_scores < FEW_SCORES:
            if self.num_scores == 0:
                amount = "no scores"
            elif self.num_scores == 1:
                amount = "1 score, which is few"
            else:
                amount = f"{self.num_scores} scores, which is few"
            return f"the reranking head was trained on {amount}: its ranking of documents says little"

        if self.num_steps_since_scores:
            return (f"the reranking head was not trained in the last {self.num_steps_since_scores} steps, in which the "
                    "compressor changed: its scores may be off")
        return None

    def save(self, folder: Path) -> None:
        """Write ``training.json`` into ``folder``."""
        write_json(folder / FILE, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> TrainingProgress:
        """Read ``training.json`` from a checkpoint's ``folder``; without this file nothing is known.

        Raises:
            ValueError: if it cannot be read.
        """
        path = folder / FILE
        try:
            values = parse_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            # A checkpoint from before steps were counted. Zeros would claim that it is untrained.
            return cls(None, None, None)
        except (OSError, ValueError) as fault:
            raise ValueError(f"{path}: cannot be read ({fault}); without it nothing is known of the steps and scores "
                             "that the model was trained on: delete it to load the checkpoint all the same") from None

        if not isinstance(values, dict):
            raise ValueError(f"{path}: expected the numbers that save_pretrained wrote")
        results = values.pop("results", None)
        progress = from_dict(cls, values, source=str(path))
        return dataclasses.replace(progress, results=None if results is None else _read(results, path))


def _read(values: Any, path: Path) -> Results:
    """Return the results that a file holds; a ValueError names it if they are none."""
    try:
        averages = []
        for system, metric, *numbers in values["averages"]:
            average, low, high = map(float, numbers)
            averages.append(Average(str(system), str(metric), average, low, high))
        eval_data = values["eval_data"]
        return Results(None if eval_data is None else str(eval_data), int(values["num_questions"]), tuple(averages))
    except (KeyError, OverflowError, TypeError, ValueError) as fault:
        raise ValueError(f"{path}: its results are not those that an evaluation wrote ({fault!r}); delete the entry to "
                         "load the checkpoint all the same") from None


def _sum(number: int | None, more: int) -> int | None:
    """Return the sum, or None if ``number`` is not known."""
    return None if number is None else number + more
