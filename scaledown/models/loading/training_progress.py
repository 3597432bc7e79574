"""A model's training in numbers: of steps, of scores, and the share of the questions without their query.

An untrained reranking head gives meaningless scores, and a model that never compressed a document without a query gives
memory that says little.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from scaledown.files import parse_json
from scaledown.settings import from_dict

FILE = "training.json"
FEW_SCORES = 1000
"""With fewer, a reranking head may rank by chance: the scores of 200 questions with five documents each."""


@dataclass(frozen=True)
class TrainingProgress:
    """The number of steps and scores that a model was trained on; None if an older checkpoint does not say.

    Attributes:
        num_steps: steps, pretraining included.
        num_scores: teacher's scores that the reranking head has seen; one that is seen twice counts twice.
        num_steps_since_scores: steps since then, in which what the head reads has changed, and the head has not.
        query_dropout: share of the questions of its latest training whose documents were compressed without the query.
    """

    num_steps: int | None = 0
    num_scores: int | None = 0
    num_steps_since_scores: int | None = 0
    query_dropout: float = 0.0

    def after(self, num_steps: int, num_scores: int, query_dropout: float = 0.0) -> TrainingProgress:
        """Return the progress after a training of so many more steps and scores, with this ``--query_dropout``."""
        # Every score trains the head, too, and brings it up to date.
        since_scores = 0 if num_scores else _sum(self.num_steps_since_scores, num_steps)
        return TrainingProgress(_sum(self.num_steps, num_steps), _sum(self.num_scores, num_scores), since_scores,
                                query_dropout)

    def with_new_head(self) -> TrainingProgress:
        """Return the progress of the same model with a new reranking head."""
        return dataclasses.replace(self, num_scores=0, num_steps_since_scores=0)

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
        (folder / FILE).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")

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
        return from_dict(cls, values, source=str(path))


def _sum(number: int | None, more: int) -> int | None:
    """Return the sum, or None if ``number`` is not known."""
    return None if number is None else number + more
