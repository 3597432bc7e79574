"""The lesson of imitation: a small compressor learns to make the memory that a trained, larger one makes.

The answer alone tells a compressor of one or two tokens a passage. The larger one tells the probability of every token
at every memory token, of every passage, and the generator need not run. Its adapter was trained to read that memory, so
an imitation of it can be answered from at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import set_seed

from lab.smollm2.lesson_loop import groups_of, note_scores, train_steps
from scaledown.data.records import Record
from scaledown.models.compressors.base import Compressed
from scaledown.models.engine.moving import moved
from scaledown.models.losses import Head, readout_loss, score_error
from scaledown.models.model import ScaleDownModel

SCORES_WEIGHT = 0.05
"""Of the scores' squared error, as in the other lessons."""


def with_encoder(model: ScaleDownModel, name: str, seed: int) -> ScaleDownModel:
    """Return a model with the generator of ``model`` as trained, and a new compressor made of the encoder ``name``.

    Its memory is of mixtures of tokens if that of ``model`` is, so that the adapter can read it.
    """
    config = dataclasses.replace(
        model.config, compressor_type="modernbert", compressor_model=name, compressor_revision=None, layers=None,
        compressor_lora_rank=None, memory_init=None, input_order="query_first", mlp_width=2048)
    set_seed(seed)
    other = ScaleDownModel(config, device=model.device, dtype=model.dtype)
    other.generator.load_state_dict(model.generator.state_dict())
    return other


def imitate(model: ScaleDownModel, larger: ScaleDownModel, records: Sequence[Record], batch_size: int,
            rate: float, folder: Path | None = None) -> list[float]:
    """Train the compressor of ``model`` to make the memory of ``larger``, once over ``records``; return the losses.

    The loss is that of the readout, of the scores, and the divergence from what the larger compressor would say.

    Args:
        model: its generator is not run.
        larger: with soft tokens, as ``model``, and as many memory tokens; it does not change.
        records: in their order.
        batch_size: records a step.
        rate: peak learning rate.
        folder: of checkpoints, from which a killed lesson goes on [none].

    Raises:
        ValueError: if one of the two does not make its memory of mixtures of tokens.
    """
    if not (model.config.soft_tokens and larger.config.soft_tokens):
        raise ValueError("--memory_of: both compressors must make their memory of tokens (soft_tokens in the "
                         "checkpoint's config.json)")
    table = model.generator.base.get_input_embeddings().weight                # (V, D)

    def loss_of(step: Sequence[Record]) -> Tensor:
        batch = moved(model.processor.collate(step, with_readout=True), model.device)
        own = _compressed(model, batch)                                       # states (P, L, D)
        with torch.no_grad():
            wanted = _compressed(larger, larger.processor.collate(step))

        losses = [readout_loss(own.embeddings, table, batch["readout_targets"], own.states),
                  divergence(own.states, wanted.states, table)]
        if own.scores is not None:
            losses.append(SCORES_WEIGHT * score_error(own.scores, batch))
        return torch.stack(losses).sum()

    losses = train_steps("imitation", model, groups_of(model, "compressor", rate), records, batch_size, loss_of, folder)
    note_scores(model, len(losses), records)
    return losses


def divergence(states: Tensor, wanted: Tensor, table: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of the tokens that ``states`` mix from those that ``wanted`` mix, in nats.

    Args:
        states: (P, L, D), of the compressor that learns.
        wanted: (P, L, D), of the one that it imitates.
        table: the generator's token embeddings (V, D), its output head.
    """
    head = Head(table)
    log_probabilities = head.logits(states.flatten(0, 1)).log_softmax(-1)     # (P * L, V)
    wanted_ones = head.logits(wanted.flatten(0, 1)).log_softmax(-1)           # (P * L, V)
    return F.kl_div(log_probabilities, wanted_ones, reduction="batchmean", log_target=True)


def _compressed(model: ScaleDownModel, batch: dict[str, Any]) -> Compressed:
    batch = moved(batch, model.device)
    return model.compressor(batch["documents"], model.generator.embed, batch["num_memory_tokens"])
