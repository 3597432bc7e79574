"""Training sequences in which many questions share one reading of their documents.

A sequence is a tree of segments: the prompt's start with the documents is the trunk, and each question with its answer
a branch, which sees the trunk and itself alone. So eight questions cost one reading, and each sees exactly the tokens
that it will see when it is asked alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scaledown.prompt import Prompt

TRUNK = 0
"""The segment that branches see. Branches are positive; negative segments are sequences by themselves."""
PADDING = 10_000
"""The segment of padding, which no other token sees. Padding sees the trunk, but nothing is trained on it."""
IGNORED = -100
"""The target that cross-entropy leaves out."""


@dataclass
class TokenTree:
    """A sequence of T tokens; all lists are of length T.

    Attributes:
        ids: token ids.
        positions: of each token in its prompt: all branches begin at the end of the trunk.
        segments: the segment of each token.
        is_answer: whether the loss of this token counts as one of an answer.
        is_text: whether it counts as one of a text: a document or a question.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    is_answer: list[bool] = field(default_factory=list)
    is_text: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ids: list[int], start: int, segment: int, is_answer: bool = False, is_text: bool = False) -> int:
        """Append ``ids`` to ``segment``, from position ``start`` on; return the position after them."""
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.segments += [segment] * len(ids)
        self.is_answer += [is_answer] * len(ids)
        self.is_text += [is_text] * len(ids)
        return start + len(ids)


def of_questions(prompt: Prompt, documents: Sequence[list[int]],
                 branches: Sequence[tuple[list[int], list[int]]]) -> TokenTree:
    """Return the tree of a prompt: the documents' ids once, then branches of (question, answer)."""
    tree = TokenTree()

    # The template's start is the same in every prompt: nothing to learn there.
    template, trunk = prompt.trunk([]), prompt.trunk(documents)
    tree.add(template, 0, TRUNK)
    trunk_end = tree.add(trunk[len(template):], len(template), TRUNK, is_text=True)

    for branch, (question, answer) in enumerate(branches, start=TRUNK + 1):
        start = tree.add(question, trunk_end, branch, is_text=True)
        tree.add(answer, start, branch, is_answer=True)
    return tree


def add_query_first(tree: TokenTree, query: list[int], document: list[int], reply: list[int],
                    answer: list[int]) -> None:
    """Append a sequence by itself to ``tree``, in the compressor's order: query, document, reply, answer."""
    # -1, -2, -3, ...
    segment = min([TRUNK, *tree.segments]) - 1
    start = tree.add(query, 0, segment)
    start = tree.add(document, start, segment, is_text=True)
    start = tree.add(reply, start, segment)
    tree.add(answer, start, segment, is_answer=True)


def of_repeated_list(rng: random.Random, entries: Sequence[list[int]], separator: list[int],
                     num_tokens: int) -> TokenTree:
    """Return entries (their ids) listed again and again in other orders, for at least ``num_tokens`` tokens.

    From the second time on the rest of an entry is known from its first token. It is the quickest way to learn that
    what followed a token once follows it again.
    """
    tree, is_repeated = TokenTree(), False
    while len(tree) < num_tokens:
        for entry in rng.sample(entries, len(entries)):
            # The order is random, so an entry's first token cannot be known.
            tree.add(entry[:1], len(tree), TRUNK, is_text=True)
            tree.add(entry[1:], len(tree), TRUNK, is_answer=is_repeated, is_text=not is_repeated)
            tree.add(separator, len(tree), TRUNK, is_text=True)
        is_repeated = True
    return tree


def collate(trees: Sequence[TokenTree]) -> dict[str, Tensor]:
    """Pad trees to one length, and build their attention mask and targets.

    Returns:
        ``input_ids`` and ``position_ids`` (B, T); ``attention_mask`` (B, 1, T, T), to be added to scores; ``targets``
        (B, T), the token after each one if it is of an answer or a text, else ``IGNORED``; ``is_answer`` (B, T), which
        targets are of answers.
    """
    ids = _padded([tree.ids for tree in trees], 0)
    segments = _padded([tree.segments for tree in trees], PADDING)            # (B, T)
    length = ids.shape[1]

    # A token sees its own segment and, from a branch, the trunk: in both only what stands before it.
    of_key, of_query = segments[:, None, :], segments[:, :, None]             # (B, 1, T) and (B, T, 1)
    is_visible = (of_key == of_query) | ((of_key == TRUNK) & (of_query > TRUNK))
    is_visible &= torch.ones(length, length, dtype=torch.bool).tril()         # (B, T, T)
    mask = torch.zeros(is_visible.shape).masked_fill(~is_visible, torch.finfo(torch.float32).min)

    # Within a segment each token predicts the next; the last one of a segment, or of all, predicts nothing.
    has_next = segments == torch.roll(segments, -1, dims=1)
    has_next[:, -1] = False
    is_answer = torch.roll(_padded([tree.is_answer for tree in trees], False), -1, dims=1) & has_next
    is_text = torch.roll(_padded([tree.is_text for tree in trees], False), -1, dims=1) & has_next
    targets = torch.roll(ids, -1, dims=1).masked_fill(~(is_answer | is_text), IGNORED)

    return {"input_ids": ids, "position_ids": _padded([tree.positions for tree in trees], 0),
            "attention_mask": mask[:, None], "targets": targets, "is_answer": is_answer}


def _padded(lists: Sequence[list], value: int | bool) -> Tensor:
    """Return lists of numbers as one tensor, filled up at their ends with ``value``."""
    length = max(len(numbers) for numbers in lists)
    return torch.tensor([numbers + [value] * (length - len(numbers)) for numbers in lists])
