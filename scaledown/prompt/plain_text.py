"""Users' texts to token ids, as plain text whatever they say: none of them becomes a control token."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

TEXTS_AT_ONCE = 1_000
"""Texts that a tokenizer reads in one call."""
_text_readers: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""For each tokenizer the copy that :func:`text_reader` made of it; None if it needs none."""


def plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of texts as plain text: ``"</s>"`` or ``"</think>"`` in one stays those characters."""
    reader = text_reader(tokenizer)
    ids: list[list[int]] = []
    # Some at a time: a tokenizer's output takes far more memory than the ids in it.
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        batch = list(texts[start:start + TEXTS_AT_ONCE])
        ids += reader(batch, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids
    return ids


def plain_pieces(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the ids of one text as plain text, and for each its first character and the one behind its last.

    Only fast tokenizers know the characters (``text_reader(tokenizer).is_fast``).
    """
    encoded = text_reader(tokenizer)(text, add_special_tokens=False, split_special_tokens=True,
                                     return_offsets_mapping=True, verbose=False)
    return encoded["input_ids"], encoded["offset_mapping"]


def text_reader(tokenizer: Any) -> Any:
    """Return the tokenizer for users' texts: ``tokenizer``, or a copy for which all control tokens are special.

    ``split_special_tokens`` splits special tokens and no others. But vocabularies have control tokens that are not
    special, such as the ``<think>`` of Qwen3, and a document that contains one must not put it into the prompt.
    """
    if tokenizer not in _text_readers:
        added_tokens = getattr(tokenizer, "added_tokens_decoder", {}).values()
        controls = [token.content for token in added_tokens if not token.special and _is_framed(token.content)]

        reader = None
        if controls:
            reader = copy.deepcopy(tokenizer)
            reader.add_special_tokens({"extra_special_tokens": controls}, replace_extra_special_tokens=False)
        # None, not the tokenizer itself: a value that refers to its own weak key would keep it alive.
        _text_readers[tokenizer] = reader

    reader = _text_readers[tokenizer]
    return tokenizer if reader is None else reader


def cut_texts(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[str]:
    """Return each text's first ``max_tokens`` tokens as text, without a character of which only some bytes fit."""
    if not texts:
        return []

    # Slow tokenizers do not say which characters a token covers.
    reader = text_reader(tokenizer)
    if not reader.is_fast:
        return [reader.decode(ids[:max_tokens]) if len(ids) > max_tokens else text
                for text, ids in zip(texts, plain_ids(tokenizer, texts), strict=True)]

    encoding = reader(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False,
                      return_offsets_mapping=True)
    cut = []
    for text, spans in zip(texts, encoding.offset_mapping, strict=True):
        # A span is a token's (start, end) in characters. Tokens that share a character's bytes all cover it: if the
        # first token beyond the limit does, the character is left out.
        if len(spans) > max_tokens:
            end = min(spans[max_tokens - 1][1], spans[max_tokens][0]) if max_tokens else 0
            text = text[:end]
        cut.append(text)
    return cut


def _is_framed(token: str) -> bool:
    """Return whether a token is written as control tokens are, such as ``<think>``, ``[INST]`` or ``|||EMAIL|||``.

    Added words and runs of spaces are not: the model reads ordinary text with them.
    """
    return not token.isspace() and not token[0].isalnum() and not token[-1].isalnum()
