"""The recipes of the demo's weights: size, schedule and levels of its generator; the steps of its compressors' stages.

A generator learns to look things up step by step: lists that repeat themselves, then sentences of documents to be
finished, then questions, about more and more documents. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from scaledown.config import TrainingConfig
from scaledown.data.world.synthetic import Difficulty
from scaledown.settings import positive, require, setting

SMALLEST_VOCABULARY = 300
"""The 256 bytes, the special tokens, and some that are trained."""

WARMUP_STEPS = 20
SHALLOW_LAYERS = 4
"""Layers that run on the levels that are not deep."""
PROMOTION_EXACT_MATCH = 0.7
"""A level ends when the running mean of the exact match on its training batches is above this ..."""
MEMORY_OF_EXACT_MATCH = 0.98
"""... a mean that keeps this share of itself at each step, so it looks back about 50 steps."""


@dataclass(frozen=True)
class PretrainConfig:
    """Size, schedule and seed of a generator; the defaults are those of the demo's."""

    hidden_size: int = setting(128, "width")
    num_layers: int = setting(9, "layers: three times those of the compressor, so that compression pays")
    num_heads: int = setting(4, "attention heads")
    intermediate_size: int = setting(256, "width of the feed-forward part")
    vocabulary_tokens: int = setting(2048, "entries of the tokenizer, which is trained first")
    steps: int = setting(2750, "steps; the learning rate falls over the last third")
    batch_tokens: int = setting(1536, "tokens a step, in each process")
    learning_rate_matrices: float = setting(5e-3, "peak learning rate of Muon, for the matrices")
    learning_rate_rest: float = setting(5e-3, "peak learning rate of AdamW, for embeddings and norms")
    text_loss_weight: float = setting(0.5, "weight of the language-model loss on documents and questions")
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm")
    decay_share: float = setting(0.3, "share of the steps over which the learning rate falls to 0")
    eval_steps: int = setting(250, "steps between two lines of the log, each with a checkpoint")
    seed: int = setting(42, "seed of weights and batches")

    def __post_init__(self) -> None:
        may_be_zero = {"seed", "text_loss_weight"}
        faults = positive(self, *(field.name for field in fields(self) if field.name not in may_be_zero))
        # Rotary positions turn pairs of a head's dimensions.
        if self.num_heads > 0 and self.hidden_size % (2 * self.num_heads):
            faults.append(f"--hidden_size {self.hidden_size} must be a multiple of twice --num_heads {self.num_heads}")
        if 0 < self.vocabulary_tokens < SMALLEST_VOCABULARY:
            faults.append(f"--vocabulary_tokens must be at least {SMALLEST_VOCABULARY}, got {self.vocabulary_tokens}")
        require(faults)


@dataclass(frozen=True)
class Mixture:
    """The contents of a batch. Shares are of its sequences; the rest are plain prompts.

    Attributes:
        difficulty: of the documents and questions.
        query_first_share: sequences in the compressor's order, the query before the document.
        cloze_share: of the questions, those that become a sentence to be finished ("Oda Velm was born in"): there the
            name stands right before its value, as in the documents.
        name_list_share: lists of names, repeated in other orders: the quickest way to learn that what followed a token
            once follows it again.
        no_document_share: of the prompts, those without documents, whose answer is "unknown".
        num_questions: about the same documents, at most.
        tokens: sequences are added until a batch has this number of tokens.
    """

    difficulty: Difficulty
    query_first_share: float = 0.25
    cloze_share: float = 0.0
    name_list_share: float = 0.0
    no_document_share: float = 0.02
    num_questions: int = 10
    tokens: int = 2048


@dataclass(frozen=True)
class Level:
    """One level of the training.

    Attributes:
        mixture: the contents of its batches.
        is_deep: whether all layers run. The first few alone learn sooner, and at half the cost, to look things up; the
            deeper ones join as the identity, which is how they were initialised.
    """

    mixture: Mixture
    is_deep: bool = True


def _one_hop(num_documents: tuple[int, int], num_facts: tuple[int, int], **settings: Any) -> Difficulty:
    """Return a difficulty with hard negatives alone, and questions that one document answers."""
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
"""Mixtures of held-out batches, by name; the exact match on each is logged."""

AS_FOUND: Mapping[str, Any] = {}
NEAR: Mapping[str, Any] = {"num_candidates": 30, "same_kind_share": 1.0}
"""Candidates as a search engine finds them; and more, all of the entity's kind, so that some have nearly its name."""
BEST_ROUNDS = (AS_FOUND, AS_FOUND, NEAR)
"""The candidates of each round; the model is trained on those that it ranks best after the round before."""


@dataclass(frozen=True)
class StageSteps:
    """The numbers of steps of a compressor's stages."""

    enable_reranking: bool = setting(False, "train it to score documents, too")
    many_steps: int = setting(1800, "steps on many documents of many lengths")
    mixed_steps: int = setting(1500, "steps on these and on those of the usual kind, in larger batches")
    name_steps: int = setting(900, "with scores: steps on short documents that differ in the entity alone")
    joint_steps: int = setting(1300, "with scores: steps on all kinds again, for answers and scores together")
    kept_steps: int = setting(1000, f"with scores: steps of each of {len(BEST_ROUNDS)} rounds on the documents that it "
                                    "scores best")
    seed: int = setting(TrainingConfig.seed, "seed of weights and records")

    def __post_init__(self) -> None:
        require(positive(self, "many_steps", "mixed_steps", "name_steps", "joint_steps", "kept_steps"))
