"""Tiny encoders in sentence-transformers' layouts, on disk: dense, SPLADE and a cross-encoder."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel


def _save(model_class: type, folder: Path, **settings: int) -> str:
    own = tiny.tokenizer(None, cls_token="[CLS]", sep_token="[SEP]", mask_token="[SEP]")
    torch.manual_seed(0)
    model_class(BertConfig(vocab_size=len(own), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                           intermediate_size=24, max_position_embeddings=256, initializer_range=0.5,
                           **settings)).save_pretrained(folder)
    own.save_pretrained(folder)
    return str(folder)


def dense(folder: Path, words: str | None = None) -> str:
    """A dense encoder of width 16 that compares by cosine, on the network in the folder ``words``, if given."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    network = Transformer(words or _save(BertModel, folder / "words"))
    SentenceTransformer(modules=[network, Pooling(16)], device="cpu").save_pretrained(str(folder / "dense"))
    return str(folder / "dense")


def splade(folder: Path, words: str | None = None) -> str:
    """A sparse encoder over the tiny tokenizer's vocabulary, on the network in the folder ``words``, if given."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.models import MLMTransformer, SpladePooling

    network = MLMTransformer(words or _save(BertForMaskedLM, folder / "words"))
    SparseEncoder(modules=[network, SpladePooling("max")], device="cpu").save_pretrained(str(folder / "splade"))
    return str(folder / "splade")


def cross_encoder(folder: Path) -> str:
    """A cross-encoder with one score a pair."""
    return _save(BertForSequenceClassification, folder, num_labels=1)
