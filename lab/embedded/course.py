"""What a generator made from nothing learns, in which order, and by what it is measured: the embedded world's course.

Looking things up is learnt step by step: lists that repeat themselves, then pieces of documents to be continued, then
questions, about more and more documents. A course for real records is in :mod:`real_course`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lab.embedded.world_batches import BatchMaker, Mixture
from scaledown.data.world.synthetic import Difficulty

PROMOTION_EXACT_MATCH = 0.7


@dataclass(frozen=True)
class Level:
    """One step of a course.

    Attributes:
        mixture: what its batches are made of.
        is_deep: whether all layers run. The first few alone learn sooner, and at half the cost, to look things up; the
            deeper ones join as the identity, which is how they were initialised.
        latest_end: share of the run's steps at which the next level begins even if this one is not mastered.
    """

    mixture: Any
    is_deep: bool = True
    latest_end: float = math.inf

    def is_over(self, exact_match: float, share_of_steps: float) -> bool:
        """Whether the next level begins, by the exact match in training or by the time spent."""
        return exact_match > PROMOTION_EXACT_MATCH or share_of_steps >= self.latest_end


class Batches(Protocol):
    """Makes batches, each from its number alone."""

    def batch(self, number: int, mixture: Any) -> dict[str, Tensor]:
        """Batch ``number``, as :func:`lab.embedded.rows.collate` gives it."""


@dataclass(frozen=True)
class Course:
    """Levels with the batches to train on, and what is measured on held-out ones.

    Attributes:
        evaluation: mixtures of held-out batches, by name; their exact match is logged.
        measure: further figures of a model, by name.
    """

    levels: tuple[Level, ...]
    train: Batches
    held_out: Batches
    evaluation: Mapping[str, Any]
    measure: Callable[[LlamaForCausalLM], dict[str, float]] = field(default=lambda model: {})


def world_course(tokenizer: PreTrainedTokenizerBase, seed: int) -> Course:
    """The embedded world's."""
    return Course(LEVELS, BatchMaker(tokenizer, seed, "train"), BatchMaker(tokenizer, seed, "eval"), EVALUATION)


def _one_hop(num_documents: tuple[int, int], num_facts: tuple[int, int], **settings: Any) -> Difficulty:
    """Hard negatives alone, and questions that one document answers."""
    return Difficulty(num_documents, num_facts, hard_share=1.0, two_hop_share=0.0, **settings)


LEVELS = (
    Level(Mixture(Difficulty(), query_first_share=0.0, name_list_share=1.0), is_deep=False),
    Level(Mixture(_one_hop((2, 5), (1, 1), similar_share=0.0, num_wordings=1, fillers=False), query_first_share=0.0,
                  name_list_share=0.1, cloze_share=0.8), is_deep=False),
    Level(Mixture(_one_hop((2, 5), (1, 2), similar_share=0.0, num_wordings=2, fillers=False), cloze_share=0.4),
          is_deep=False),
    Level(Mixture(_one_hop((3, 5), (1, 4), similar_share=0.1, fillers=False), cloze_share=0.1)),
    Level(Mixture(_one_hop((2, 6), (2, 5)))),
    Level(Mixture(Difficulty((1, 10), (3, 6), hard_share=0.7, two_hop_share=0.1))),
    Level(Mixture(Difficulty((1, 7), (3, 6), hard_share=0.8, two_hop_share=0.05))),
)

EVALUATION = {
    "standard": Mixture(Difficulty(), query_first_share=0.0, no_document_share=0.0),
    "all_hard": Mixture(Difficulty(hard_share=1.0, two_hop_share=0.0), query_first_share=0.0, no_document_share=0.0),
    "two_hop": Mixture(Difficulty(two_hop_share=1.0), query_first_share=0.0, no_document_share=0.0),
    "query_first": Mixture(Difficulty(), query_first_share=1.0),
}
