"""The generator's lesson in copying: answers from ideal memory, before any compressor gives it real memory.

A small pretrained generator does not repeat what it finds among embeddings: even from the answer's own token embeddings
SmolLM2 said the answer for 5 of 24 questions. From memory that is still poor it would learn to guess instead. Ideal
memory costs no pass of the compressor, and a few dozen steps of it are enough (lab/LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from lab.smollm2.lesson_loop import groups_of, train_steps
from scaledown.data.records import Record
from scaledown.models.losses import IGNORED
from scaledown.models.model import ScaleDownModel


def ideal_memory(model: ScaleDownModel, targets: Tensor) -> Tensor:
    """Return the memory (P, L, D) of a perfect compressor: the embeddings of the tokens that it is trained to say.

    Args:
        model: its generator embeds them.
        targets: (P, L), the readout targets of a batch; the end token fills what they leave open.
    """
    end_id = model.processor.prompt.end_id
    return model.generator.embed(targets.masked_fill(targets == IGNORED, end_id))


def learn_to_copy(model: ScaleDownModel, records: Sequence[Record], batch_size: int, rate: float,
                  answer_tokens: int, folder: Path | None = None) -> list[float]:
    """Train the generator's adapter to answer from ideal memory, once over ``records``; return the loss of each step.

    Args:
        model: its compressor is not run and does not change.
        records: in their order.
        batch_size: records a step.
        rate: peak learning rate; it falls to 0 along a line.
        answer_tokens: answers are cut there.
        folder: of checkpoints, from which a killed lesson goes on [none].
    """
    def loss_of(step: Sequence[Record]) -> Tensor:
        batch = model.processor.collate(step, answer_tokens, with_readout=True)
        memory = ideal_memory(model, batch["readout_targets"])                # (P, L, D)
        states = model.generator.states(batch["prompts"], memory)             # (A, D)
        return model.generator.answer_loss(states, batch["answer_targets"])

    return train_steps("copying", model, groups_of(model, "generator", rate), records, batch_size, loss_of, folder)
