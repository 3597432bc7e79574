"""What a generator made from nothing learns, in which order, and by what it is measured: the embedded world's course.

Looking things up is learnt step by step: lists that repeat themselves, then pieces of documents to be continued, then
questions, about more and more documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

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
    """

    mixture: Mixture
    is_deep: bool = True


@dataclass(frozen=True)
class Course:
    """Levels with the batches to train on, and what is measured on held-out ones.

    Attributes:
        evaluation: mixtures of held-out batches, by name; their exact match is logged.
    """

    levels: tuple[Level, ...]
    train: BatchMaker
    held_out: BatchMaker
    evaluation: Mapping[str, Mixture]


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
