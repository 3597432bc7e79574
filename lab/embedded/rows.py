"""Rows of a training batch: many questions to one reading of their documents.

A row is a tree of segments: the prompt's head with the documents is the trunk, and each question with its answer a
branch that sees the trunk and itself alone. So eight questions cost one reading, and each sees exactly what it will
see when it is asked alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from scaledown.prompt import Prompt

PADDING = 10_000
"""The segment of padding, which sees itself alone."""


@dataclass
class Row:
    """Token ids with, for each, its position, its segment, and whether the loss is the answer's or the text's."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)
    texts: list[bool] = field(default_factory=list)

    def add(self, ids: list[int], start: int, segment: int, answer: bool = False, text: bool = False) -> int:
        """Append ``ids`` to ``segment`` from position ``start`` on; returns the position after them."""
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.segments += [segment] * len(ids)
        self.answers += [answer] * len(ids)
        self.texts += [text] * len(ids)
        return start + len(ids)


def plain_row(prompt: Prompt, documents: Sequence[list[int]], branches: Sequence[tuple[list[int], list[int]]]) -> Row:
    """The documents' ids read once, and branches of (what is asked, what is answered) after them."""
    row, head, trunk = Row(), prompt.trunk([]), prompt.trunk(documents)
    row.add(head, 0, 0)
    end = row.add(trunk[len(head):], len(head), 0, text=True)
    for segment, (asked, answer) in enumerate(branches, start=1):
        start = row.add(asked, end, segment, text=True)
        row.add(answer, start, segment, answer=True)
    return row


def add_query_first(row: Row, query: list[int], document: list[int], reply: list[int], answer: list[int]) -> None:
    """A text of its own at the end of ``row``, in the compressor's order: query, document, reply, answer."""
    segment = min([0, *row.segments]) - 1
    start = row.add(query, 0, segment)
    start = row.add(document, start, segment, text=True)
    start = row.add(reply, start, segment)
    row.add(answer, start, segment, answer=True)


def repeated_list(rng: random.Random, entries: Sequence[list[int]], between: list[int], num_tokens: int) -> Row:
    """Entries (their ids), listed again and again in other orders: from the second time on their rests are known.

    It is the quickest way to learn that what followed a token once follows it again.
    """
    row, is_repeated = Row(), False
    while len(row.ids) < num_tokens:
        for entry in rng.sample(entries, len(entries)):
            row.add(entry[:1], len(row.ids), 0, text=True)
            row.add(entry[1:], len(row.ids), 0, answer=is_repeated, text=not is_repeated)
            row.add(between, len(row.ids), 0, text=True)
        is_repeated = True
    return row


def collate(rows: list[Row]) -> dict[str, torch.Tensor]:
    """Pad ``rows`` and build the masks. Segment 0 is the trunk; positive segments see it, negative ones do not.

    Returns:
        ``input_ids``, ``position_ids``, ``next_ids`` and the two loss masks ``answers`` and ``texts``, (B, T) each, and
        ``mask`` (B, 1, T, T).
    """
    length = max(len(row.ids) for row in rows)

    def padded(values: list[list], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (length - len(row)) for row in values])

    ids = padded([row.ids for row in rows], 0)
    segments = padded([row.segments for row in rows], PADDING)
    key, query = segments[:, None, :], segments[:, :, None]
    visible = ((key == query) | ((key == 0) & (query > 0))) & torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    next_ids = torch.cat([ids[:, 1:], torch.zeros_like(ids[:, :1])], dim=1)
    same = torch.cat([segments[:, 1:] == segments[:, :-1], torch.zeros(len(rows), 1, dtype=torch.bool)], dim=1)
    answers = torch.roll(padded([row.answers for row in rows], 0).bool(), -1, dims=1) & same
    texts = torch.roll(padded([row.texts for row in rows], 0).bool(), -1, dims=1) & same
    return {"input_ids": ids, "position_ids": padded([row.positions for row in rows], 0), "mask": mask[:, None],
            "next_ids": next_ids, "answers": answers, "texts": texts}
