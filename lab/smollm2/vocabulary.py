"""The lesson of the vocabulary: a new encoder and its MLP say, at each piece of a text, the generator's token for it.

A memory token's target tells a new MLP of one token. A text of 100 pieces tells it of 100, of which each costs as much.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lab.smollm2.lesson_loop import ParameterGroup, train_steps
from lab.smollm2.two_vocabularies import TwoVocabularies
from scaledown.data.records import Record
from scaledown.models.losses import IGNORED, Head, head_cross_entropy
from scaledown.models.model import ScaleDownModel

PASSAGES_A_STEP = 32
NEW_PARTS_FACTOR = 5
"""The MLP and the special tokens are new, and learn faster than the encoder, which is pretrained."""


def encoder_groups(model: ScaleDownModel, rate: float) -> list[ParameterGroup]:
    """Return the groups of an encoder compressor's parameters, with the encoder's learning rate ``rate``."""
    pretrained = list(model.compressor.encoder.parameters())
    is_pretrained = {id(parameter) for parameter in pretrained}
    new = [parameter for parameter in model.compressor.parameters()
           if parameter.requires_grad and id(parameter) not in is_pretrained]
    return [{"params": pretrained, "lr": rate}, {"params": new, "lr": NEW_PARTS_FACTOR * rate}]


def padded(inputs: Sequence[Sequence[int]], filler: int = 0) -> tuple[Tensor, Tensor]:
    """Return lists of numbers as (P, T), and which of these are no filler (P, T)."""
    rows = [torch.tensor(ids, dtype=torch.long) for ids in inputs]
    is_token = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).bool()
    return pad_sequence(rows, batch_first=True, padding_value=filler), is_token


def learn_vocabulary(model: ScaleDownModel, records: Sequence[Record], num_steps: int, rate: float, seed: int,
                     folder: Path | None = None) -> list[float]:
    """Train a new encoder compressor to say what it reads; return the loss of each step.

    Args:
        model: with soft tokens; its generator is not run.
        records: whose documents are read.
        num_steps: of ``PASSAGES_A_STEP`` documents.
        rate: peak learning rate of the encoder.
        seed: of the choice of documents.
        folder: of checkpoints, from which a killed lesson goes on [none].
    """
    compressor, processor = model.compressor, model.processor
    head = Head(model.generator.base.get_input_embeddings().weight)
    words = TwoVocabularies(processor.compressor_tokenizer, processor.tokenizer)
    num_start = len(processor.document_keys([""])[0])

    passages = dict.fromkeys(itertools.chain.from_iterable(record.documents for record in records))
    chosen = random.Random(f"vocabulary-{seed}").choices(list(passages), k=num_steps * PASSAGES_A_STEP)

    def loss_of(texts: Sequence[str]) -> Tensor:
        inputs = processor.document_keys(texts)
        ids, is_token = padded(inputs)                                        # (P, T)
        said = []
        for text, key in zip(texts, inputs, strict=True):
            # A key is [start][document], cut.
            spans = words.piece_spans(text)[:len(key) - num_start]
            said.append([IGNORED] * num_start + words.tokens_of(text, spans))
        targets, _ = padded(said, IGNORED)                                    # (P, T)

        embeddings = compressor.encoder.get_input_embeddings()(ids.to(model.device))
        states = compressor.states(embeddings, is_token.to(model.device))     # (P, T, width)
        is_said = (targets != IGNORED).to(model.device)                       # (P, T)
        return head_cross_entropy(compressor.mlp(states[is_said]), head, targets.to(model.device)[is_said])

    return train_steps("vocabulary", model, encoder_groups(model, rate), chosen, PASSAGES_A_STEP, loss_of, folder)
