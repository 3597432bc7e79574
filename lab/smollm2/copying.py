"""The generator's lesson in copying: answers from ideal memory, before any compressor gives it real memory.

A small pretrained generator does not repeat what it finds among embeddings: even from the answer's own token embeddings
SmolLM2 said the answer for 5 of 24 questions. From memory that is still poor it would learn to guess instead. Ideal
memory costs no pass of the compressor, and a few dozen steps of it are enough (lab/LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scaledown.data.records import Record
from scaledown.models.losses import IGNORED
from scaledown.models.model import ScaleDownModel
from scaledown.progress import Bar
from scaledown.training.optimizer import build_optimizer

LOG_STEPS = 5


def ideal_memory(model: ScaleDownModel, targets: Tensor) -> Tensor:
    """Return the memory (P, L, D) of a perfect compressor: the embeddings of the tokens that it is trained to say.

    Args:
        model: its generator embeds them.
        targets: (P, L), the readout targets of a batch; the end token fills what they leave open.
    """
    end_id = model.processor.prompt.end_id
    return model.generator.embed(targets.masked_fill(targets == IGNORED, end_id))


def learn_to_copy(model: ScaleDownModel, records: Sequence[Record], batch_size: int, rate: float,
                  answer_tokens: int) -> list[float]:
    """Train the generator's adapter to answer from ideal memory, once over ``records``; return the loss of each step.

    Args:
        model: its compressor is not run and does not change.
        records: in their order.
        batch_size: records a step.
        rate: peak learning rate; it falls to 0 along a line.
        answer_tokens: answers are cut there.
    """
    groups = [group for group in model.parameter_groups(rate, 0.0, 0.0) if group["name"].startswith("generator")]
    optimizer = build_optimizer("adamw", groups, model)
    num_steps = len(records) // batch_size
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / num_steps)

    model.train()
    losses = []
    for step in Bar(range(num_steps), "copying"):
        batch = model.processor.collate(records[step * batch_size:(step + 1) * batch_size], answer_tokens,
                                        with_readout=True)
        memory = ideal_memory(model, batch["readout_targets"])                # (P, L, D)
        with torch.autocast(model.device.type, model.dtype, enabled=model.dtype != torch.float32):
            states = model.generator.states(batch["prompts"], memory)         # (A, D)
            loss = model.generator.answer_loss(states, batch["answer_targets"])

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

        losses.append(loss.item())
        if (step + 1) % LOG_STEPS == 0:
            print(f"copying: step {step + 1} of {num_steps}, answer loss {losses[-1]:.3f}", flush=True)
    model.eval()
    return losses
