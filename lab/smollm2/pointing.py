"""The lesson of pointing: an encoder's memory tokens find where the answer stands, and say it.

From the readout alone an encoder learns which tokens are frequent in answers, and stays there (lab/LOG.md). There are
50,000 tokens to choose from, but only about 100 places in a document: so each memory token also points at the place of
its token, by the product of its state with those of the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.smollm2.lesson_loop import note_scores, train_steps
from lab.smollm2.two_vocabularies import TwoVocabularies
from lab.smollm2.vocabulary import encoder_groups, padded
from scaledown.data.records import Record
from scaledown.models.losses import IGNORED, Head, head_cross_entropy, readout_loss, score_error
from scaledown.models.model import ScaleDownModel

VOCABULARY_WEIGHT, SCORES_WEIGHT = 0.3, 0.05
PIECES_A_STEP = 400
POINTER_FACTOR = 5
UNSTATED_PLACE = 0
"""A document that does not state the answer is pointed at before its first token."""


class Pointer(nn.Module):
    """Logits of the places that memory tokens point at. It belongs to the lesson: no checkpoint holds it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.eye(width))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, memory: Tensor, states: Tensor, is_place: Tensor) -> Tensor:
        """Return logits (P, L, T) for states of memory tokens (P, L, width) and of all tokens (P, T, width)."""
        products = (memory @ self.map) @ states.transpose(1, 2)               # (P, L, T)
        logits = products.float() * self.log_scale.exp() / memory.shape[-1] ** 0.5
        return logits.masked_fill(~is_place[:, None], torch.finfo(torch.float32).min)


class Inputs(NamedTuple):
    """P documents, each with its query and the special tokens at its end, padded to T.

    Attributes:
        ids, is_token: (P, T).
        special: (P, S), the places of the memory tokens and the rerank token.
        is_place: (P, T), the places that can be pointed at.
        places: (P, L), where the memory tokens should point.
        said: (P, T), the generator's token for each piece of a document.
    """

    ids: Tensor
    is_token: Tensor
    special: Tensor
    is_place: Tensor
    places: Tensor
    said: Tensor


def pointing_inputs(model: ScaleDownModel, words: TwoVocabularies, records: Sequence[Record]) -> Inputs:
    """Return what the encoder reads of records, and where the answers stand in it."""
    processor, config = model.processor, model.config
    pairs = processor.compressor_texts([record.query for record in records], [record.documents for record in records])
    num_memory, num_special = config.num_memory_tokens, config.num_memory_tokens + config.enable_reranking
    num_start = len(processor.document_keys([""])[0])

    documents: list[str] = []
    answers: list[str] = []
    for record in records:
        documents += record.documents
        answers += record.stated_answers

    special, is_place, places, said = [], [], [], []
    keys = processor.document_keys(documents)
    for ids, key, document, answer in zip(pairs.prefixes, keys, documents, answers, strict=True):
        # [start][query][separator][document][special tokens]; a key is [start][document].
        end = len(ids) - num_special
        start = end - (len(key) - num_start)

        spans = words.piece_spans(document)[:end - start]

        targets = [] if answer else [UNSTATED_PLACE]
        if pieces := words.pieces_of(answer, document, spans):
            # The separator before the document says that the answer has ended.
            targets = [*(start + piece for piece in pieces), start - 1][:num_memory]
        places.append(targets + [IGNORED] * (num_memory - len(targets)))

        special.append(list(range(end, len(ids))))
        is_place.append([place == UNSTATED_PLACE or start - 1 <= place < end for place in range(len(ids))])
        said.append([IGNORED] * start + words.tokens_of(document, spans) + [IGNORED] * num_special)

    ids, is_token = padded(pairs.prefixes)
    inputs = Inputs(ids, is_token, torch.tensor(special), padded(is_place)[0].bool(), torch.tensor(places),
                    padded(said, IGNORED)[0])
    return Inputs(*(part.to(model.device) for part in inputs))


def learn_to_point(model: ScaleDownModel, records: Sequence[Record], batch_size: int, rate: float,
                   folder: Path | None = None) -> list[float]:
    """Train an encoder compressor to find answers and say them, once over ``records``; return the loss of each step.

    The loss is that of pointing, of the readout, of the vocabulary and of the scores.

    Args:
        model: with soft tokens and reranking; its generator is not run.
        records: in their order.
        batch_size: records a step.
        rate: peak learning rate of the encoder.
        folder: of checkpoints, from which a killed lesson goes on [none].
    """
    compressor, processor = model.compressor, model.processor
    head = Head(model.generator.base.get_input_embeddings().weight)
    words = TwoVocabularies(processor.compressor_tokenizer, processor.tokenizer)
    pointer = Pointer(compressor.state_width).to(model.device)

    def loss_of(step: Sequence[Record]) -> Tensor:
        inputs = pointing_inputs(model, words, step)
        batch = processor.collate(step, with_readout=True)
        states, of_special = _states(model, inputs)                           # (P, T, width), (P, S, width)
        memory = of_special[:, :model.config.num_memory_tokens]               # (P, L, width)

        logits = pointer(memory, states, inputs.is_place)                     # (P, L, T)
        pointing = F.cross_entropy(logits.flatten(0, 1), inputs.places.flatten(), ignore_index=IGNORED)

        said = compressor.mlp(memory)                                         # (P, L, D)
        targets = batch["readout_targets"].to(model.device)
        losses = [pointing, readout_loss(said, head.weight, targets, said)]

        # Some of the documents' pieces, so that what was learned of the vocabulary stays.
        pieces = (inputs.said != IGNORED).nonzero()                           # (number, 2)
        pair, place = pieces[torch.randperm(len(pieces))[:PIECES_A_STEP]].unbind(1)
        vocabulary = head_cross_entropy(compressor.mlp(states[pair, place]), head, inputs.said[pair, place])
        losses.append(VOCABULARY_WEIGHT * vocabulary)

        if compressor.rerank_head is not None:
            of_teacher = {name: batch[name].to(model.device) for name in ("teacher_scores", "has_score")}
            losses.append(SCORES_WEIGHT * score_error(compressor.scores_of(of_special[:, -1]), of_teacher))
        return torch.stack(losses).sum()

    groups = [*encoder_groups(model, rate), {"params": list(pointer.parameters()), "lr": POINTER_FACTOR * rate}]
    losses = train_steps("pointing", model, groups, records, batch_size, loss_of, folder)
    note_scores(model, len(losses), records)
    return losses


def _states(model: ScaleDownModel, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return the final states of all tokens (P, T, width), and of the special ones (P, S, width)."""
    compressor = model.compressor
    embeddings = compressor.encoder.get_input_embeddings()(inputs.ids)        # (P, T, width of embeddings)
    rows = compressor.special_rows(None).to(embeddings.dtype)                 # (S, width of embeddings)
    pair = torch.arange(len(inputs.ids), device=inputs.ids.device)[:, None]   # (P, 1)

    embeddings = embeddings.index_put((pair, inputs.special), rows.expand(len(pair), -1, -1))
    states = compressor.states(embeddings, inputs.is_token)
    return states, states[pair, inputs.special]
