"""Training and evaluation halves that share no paragraph and no article.

Questions whose gold passages come from one article, or from equal paragraphs, are one group and stay together. Every
other paragraph belongs to the half that owns its article; one that comes with questions of both halves goes to the
half whose question brings it first, and one whose text also stands in the other half is used in neither.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scaledown.data.passages import Paragraph
from scaledown.data.qa.gold import Candidate

TRAIN, EVAL = 0, 1


@dataclass(frozen=True)
class Half:
    """One half: its questions, and every paragraph that its documents may come from."""

    candidates: tuple[Candidate, ...]
    paragraphs: tuple[Paragraph, ...]


def split_in_halves(candidates: Sequence[Candidate], eval_share: float, rng: random.Random) -> tuple[Half, Half]:
    """Split shuffled questions in a training half and an evaluation half of about ``eval_share``.

    Groups are drawn at random for evaluation as long as they fit in its share; one too large for it, such as a giant
    that shared articles chain together, goes to training. Where none fits, the smallest is the evaluation half.

    Raises:
        ValueError: where all questions are one group.
    """
    groups = _groups(candidates)
    if len(groups) < 2:
        raise ValueError(f"{len(candidates)} usable questions that share one article cannot be split in a training "
                         "and an evaluation half; a source with more articles is needed")
    rng.shuffle(groups)
    target = eval_share * len(candidates)
    chosen: list[int] = []
    for group in groups:
        if len(chosen) + len(group) <= target:
            chosen += group
    chosen = chosen or min(groups, key=len)
    halves = [TRAIN] * len(candidates)
    for i in chosen:
        halves[i] = EVAL
    pools = _pools(candidates, halves)
    train, evaluation = (
        Half(tuple(candidate for candidate, half in zip(candidates, halves, strict=True) if half == which),
             tuple(pools[which])) for which in (TRAIN, EVAL))
    return train, evaluation


def _groups(candidates: Sequence[Candidate]) -> list[list[int]]:
    """The questions, by number, that gold articles or paragraphs link: the components of that graph."""
    parents = list(range(len(candidates)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    first: dict[str, int] = {}
    for i, candidate in enumerate(candidates):
        for key in _keys(passage.paragraph for passage in candidate.gold):
            parents[root(i)] = root(first.setdefault(key, i))
    groups = defaultdict(list)
    for i in range(len(candidates)):
        groups[root(i)].append(i)
    return list(groups.values())


def _pools(candidates: Sequence[Candidate], halves: Sequence[int]) -> tuple[list[Paragraph], list[Paragraph]]:
    """The paragraphs of each half, without repetition."""
    owner: dict[str, int] = {}
    for candidate, half in zip(candidates, halves, strict=True):
        for key in _keys(passage.paragraph for passage in candidate.gold):
            owner[key] = half
    for candidate, half in zip(candidates, halves, strict=True):
        for key in _keys(candidate.question.paragraphs):
            owner.setdefault(key, half)
    pools: tuple[list[Paragraph], list[Paragraph]] = ([], [])
    paragraphs = (paragraph for candidate in candidates for paragraph in candidate.question.paragraphs)
    for paragraph in dict.fromkeys(paragraphs):
        owners = {owner[key] for key in _keys([paragraph])}
        if len(owners) == 1:
            pools[owners.pop()].append(paragraph)
    return pools


def _keys(paragraphs: Iterable[Paragraph]) -> list[str]:
    """What paragraphs must not share across the halves: their article, and their text."""
    return [key for paragraph in paragraphs
            for key in (f"article {paragraph.article}", f"text {' '.join(paragraph.text.split())}")]
