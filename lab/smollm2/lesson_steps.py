"""The lengths and learning rates of the lessons, without torch: --help need not wait for it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from scaledown.settings import not_negative, require, setting


@dataclass(frozen=True)
class LessonSteps:
    """Length of each stage, in steps of 16 questions, and its peak learning rate."""

    vocabulary_steps: int = setting(180, "steps of a new encoder alone, to say what it reads: 32 documents each")
    pointing_steps: int = setting(1000, "steps of a new encoder alone, to find answers and say them, of 32 questions")
    imitation_steps: int = setting(600, "steps of the compressor alone, to make the memory of --memory_of")
    passage_steps: int = setting(1500, "steps of the compressor alone, one to three documents")
    copying_steps: int = setting(60, "steps of the generator alone, from ideal memory")
    document_steps: int = setting(150, "steps of both, one to ten documents")
    encoder_rate: float = setting(2e-4, "peak learning rate of a new encoder; its new parts have five times that")
    imitation_rate: float = setting(5e-4, "peak learning rate of imitation")
    passage_rate: float = setting(8e-4, "peak learning rate of the steps on passages")
    copying_rate: float = setting(1e-3, "peak learning rate of copying")
    document_rate: float = setting(3e-4, "peak learning rate of the steps on documents; the generator's is 1e-3")
    seed: int = setting(42, "seed of new weights and of the lessons")

    def __post_init__(self) -> None:
        require(not_negative(self, *(field.name for field in dataclasses.fields(self))))
