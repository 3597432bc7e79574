"""How far a model was trained: kept beside a checkpoint's weights, for its scores mean nothing before they are learnt.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from scaledown.config import from_dict
from scaledown.files import parse_json

FILE = "training.json"
FEW_SCORES = 1000
"""Scores from which on a reranking head may have learnt something: of 200 questions with five documents each."""


@dataclass(frozen=True)
class Progress:
    """Steps and scores that a model has learnt from; None where a checkpoint was written before they were counted.

    Attributes:
        num_steps: steps, pretraining included.
        num_scores: teacher's scores that the reranking head has seen; one that is seen twice counts twice.
        num_steps_since_scores: steps since then, in which what the head reads has changed, and the head has not.
    """

    num_steps: int | None = 0
    num_scores: int | None = 0
    num_steps_since_scores: int | None = 0

    def after(self, num_steps: int, num_scores: int) -> Progress:
        """The progress when so many more steps and scores were learnt from."""
        since = 0 if num_scores else _sum(self.num_steps_since_scores, num_steps)
        return Progress(_sum(self.num_steps, num_steps), _sum(self.num_scores, num_scores), since)

    def with_new_head(self) -> Progress:
        """The progress of the same model with a new reranking head."""
        return dataclasses.replace(self, num_scores=0, num_steps_since_scores=0)

    def warning(self) -> str | None:
        """What to know of a reranking head that has learnt so far, before its scores are used; None if all is well."""
        if self.num_scores is None:
            return None
        if self.num_scores < FEW_SCORES:
            return (f"the reranking head has learnt from {self.num_scores or 'no'} score{'s' * (self.num_scores != 1)}"
                    f"{', which is few' * bool(self.num_scores)}: how it ranks documents says little")
        if self.num_steps_since_scores:
            return (f"the reranking head learnt nothing in the last {self.num_steps_since_scores} steps, in which the "
                    "compressor changed: its scores may be off")
        return None

    def save(self, folder: Path) -> None:
        """Write ``training.json`` into ``folder``."""
        (folder / FILE).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Progress:
        """Read ``training.json`` from a checkpoint's ``folder``; nothing is known of one that has none.

        Raises:
            ValueError: if it cannot be read.
        """
        path = folder / FILE
        try:
            values = parse_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(None, None, None)
        except (OSError, ValueError) as fault:
            raise ValueError(f"{path}: cannot be read ({fault}); without it nothing is known of the steps and scores "
                             "that the model has learnt from: delete it to load the checkpoint all the same") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path}: expected the numbers that save_pretrained wrote")
        return from_dict(cls, values, source=str(path))


def _sum(number: int | None, more: int) -> int | None:
    return None if number is None else number + more
