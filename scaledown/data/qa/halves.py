"""Training and evaluation halves that share no paragraph, no article and no question.

Questions whose gold passages come from one article, or from equal paragraphs, are one group and stay together; so do
equal questions, wherever they come from. Every other paragraph belongs to the half that owns its article; one that
comes with questions of both halves goes to the half whose question brings it first, and one whose text also stands in
the other half is used in neither.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scaledown.data.normal_form import question_key
from scaledown.data.passages import Paragraph
from scaledown.data.qa.gold import Candidate

TRAIN, EVAL = 0, 1


@dataclass(frozen=True)
class Half:
    """One half: its questions, and every paragraph that its documents may come from."""

    candidates: tuple[Candidate, ...]
    paragraphs: tuple[Paragraph, ...]


def split_in_halves(datasets: Mapping[str, Sequence[Candidate]], eval_shares: Mapping[str, float],
                    rng: random.Random) -> dict[str, tuple[Half, Half]]:
    """Split the shuffled questions of each dataset in a training half and an evaluation half of about its share.

    All datasets are split as one, so that the halves of their mix share nothing either. Groups are drawn at random
    for evaluation as long as they fit in the shares; one too large for that, such as a giant that shared articles
    chain together, goes to training. If none fits of a dataset, its smallest is the evaluation half.

    Raises:
        ValueError: if all questions of a dataset are one group.
    """
    candidates = [candidate for each in datasets.values() for candidate in each]
    names = [name for name, each in datasets.items() for _ in each]
    groups = _groups(candidates)
    rng.shuffle(groups)
    _require_two_groups(groups, names)

    halves = [TRAIN] * len(candidates)
    for i in _evaluation(groups, names, {name: eval_shares[name] * len(datasets[name]) for name in datasets}):
        halves[i] = EVAL
    owner = _owners(candidates, halves)

    split = {}
    for name, dataset in datasets.items():
        chosen: tuple[list[Candidate], list[Candidate]] = ([], [])
        for candidate, half, its_dataset in zip(candidates, halves, names, strict=True):
            if its_dataset == name:
                chosen[half].append(candidate)
        split[name] = tuple(Half(tuple(chosen[which]), _pool(dataset, owner, which)) for which in (TRAIN, EVAL))
    return split


def _groups(candidates: Sequence[Candidate]) -> list[list[int]]:
    """Return the questions, by number, that gold articles, paragraphs or equal wordings link."""
    numbers: dict[str, int] = {}
    links = []
    for i, candidate in enumerate(candidates):
        links.append((i, numbers.setdefault(f"question {question_key(candidate.question.query)}", len(numbers))))
        for key in _keys(passage.paragraph for passage in candidate.gold):
            links.append((i, numbers.setdefault(key, len(numbers))))

    # A graph of questions and of what they must not share across the halves; its components are the groups.
    rows, columns = zip(*((i, len(candidates) + number) for i, number in links), strict=True)
    size = len(candidates) + len(numbers)
    _, labels = connected_components(coo_array(([True] * len(rows), (rows, columns)), shape=(size, size)),
                                     directed=False)
    groups = defaultdict(list)
    for i, label in enumerate(labels[:len(candidates)]):
        groups[label].append(i)
    return list(groups.values())


def _require_two_groups(groups: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    num_groups = Counter(name for group in groups for name in {names[i] for i in group})
    for name, number in num_groups.items():
        if number < 2:
            raise ValueError(f"{name}: {names.count(name)} usable questions cannot be split in a training and an "
                             "evaluation half: articles, paragraphs or equal questions that they share link them all; "
                             "a source with more articles and questions is needed")


def _evaluation(groups: Sequence[Sequence[int]], names: Sequence[str], room: Mapping[str, float]) -> list[int]:
    """Return the questions that are evaluated with: of each dataset as many as there is room for, but at least one."""
    chosen: list[int] = []
    taken: Counter[str] = Counter()
    for group in groups:
        sizes = Counter(names[i] for i in group)
        if all(taken[name] + size <= room[name] for name, size in sizes.items()):
            chosen += group
            taken += sizes
    for name in room:
        if not taken[name]:
            smallest = min((group for group in groups if any(names[i] == name for i in group)), key=len)
            chosen += smallest
            taken += Counter(names[i] for i in smallest)
    return chosen


def _owners(candidates: Sequence[Candidate], halves: Sequence[int]) -> dict[str, int]:
    """Return the half that each article and each text belongs to."""
    owner: dict[str, int] = {}
    for candidate, half in zip(candidates, halves, strict=True):
        for key in _keys(passage.paragraph for passage in candidate.gold):
            owner[key] = half
    for candidate, half in zip(candidates, halves, strict=True):
        for key in _keys(candidate.question.paragraphs):
            owner.setdefault(key, half)
    return owner


def _pool(dataset: Sequence[Candidate], owner: Mapping[str, int], which: int) -> tuple[Paragraph, ...]:
    """Return the paragraphs of a dataset that one half owns, without repetition."""
    paragraphs = dict.fromkeys(paragraph for candidate in dataset for paragraph in candidate.question.paragraphs)
    return tuple(paragraph for paragraph in paragraphs if {owner[key] for key in _keys([paragraph])} == {which})


def _keys(paragraphs: Iterable[Paragraph]) -> list[str]:
    """What paragraphs must not share across the halves: their article, and their text."""
    return [key for paragraph in paragraphs
            for key in (f"article {paragraph.article}", f"text {' '.join(paragraph.text.split())}")]
