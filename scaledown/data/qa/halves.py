"""Training and evaluation halves that share no paragraph, no article and no question.

Questions whose gold passages come from one article, or from equal paragraphs, form one group and stay together; so do
equal questions, whichever dataset they come from. Any other paragraph belongs to the half that owns its article; one
that comes with questions of both halves goes to the half whose question has it first, and one whose text is also in
the other half is used in neither.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scaledown.data.answers import question_key
from scaledown.data.qa.gold_and_negatives import Candidate
from scaledown.prompt.passages import Paragraph

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
    for evaluation as long as they fit in the shares; one too large for that, such as a giant chained together by
    shared articles, goes to training. If no group of a dataset fits, its smallest is the evaluation half.

    Raises:
        ValueError: if all questions of a dataset are one group.
    """
    # One flat list, so that groups can reach across datasets: names[i] is the dataset of candidates[i].
    candidates: list[Candidate] = []
    names: list[str] = []
    for name, dataset in datasets.items():
        candidates += dataset
        names += [name] * len(dataset)

    groups = _groups(candidates)
    rng.shuffle(groups)
    _require_two_groups(groups, names)

    room = {name: eval_shares[name] * len(dataset) for name, dataset in datasets.items()}  # in questions
    halves = [TRAIN] * len(candidates)
    for i in _evaluation(groups, names, room):
        halves[i] = EVAL
    owner = _owners(candidates, halves)

    # Back to datasets: each is one stretch of the flat list.
    split = {}
    start = 0
    for name, dataset in datasets.items():
        its_halves = halves[start:start + len(dataset)]
        split[name] = (_half(TRAIN, dataset, its_halves, owner), _half(EVAL, dataset, its_halves, owner))
        start += len(dataset)
    return split


def _half(which: int, dataset: Sequence[Candidate], halves: Sequence[int], owner: Mapping[str, int]) -> Half:
    """Return the half ``which`` of a dataset whose question ``i`` is in ``halves[i]``."""
    chosen = [candidate for candidate, half in zip(dataset, halves, strict=True) if half == which]
    return Half(tuple(chosen), _pool(dataset, owner, which))


def _groups(candidates: Sequence[Candidate]) -> list[list[int]]:
    """Return the questions, by number, that gold articles, paragraphs or equal wordings link."""
    # A graph of questions (nodes 0 to N - 1) and of the keys that they must not share across the halves (nodes from N
    # on), with an edge from a question to each of its keys. Its components are the groups.
    key_numbers: dict[str, int] = {}
    sources, targets = [], []
    for i, candidate in enumerate(candidates):
        gold_paragraphs = [passage.paragraph for passage in candidate.gold]
        for key in [f"question {question_key(candidate.question.query)}", *_keys(gold_paragraphs)]:
            sources.append(i)
            targets.append(len(candidates) + key_numbers.setdefault(key, len(key_numbers)))

    size = len(candidates) + len(key_numbers)
    edges = coo_array(([True] * len(sources), (sources, targets)), shape=(size, size))
    _, labels = connected_components(edges, directed=False)  # (size,), the component of each node

    groups = defaultdict(list)
    for i, label in enumerate(labels[:len(candidates)]):
        groups[label].append(i)
    return list(groups.values())


def _require_two_groups(groups: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    """Raise a ValueError if a dataset has one group only, which cannot be split."""
    num_groups: Counter[str] = Counter()
    for group in groups:
        num_groups.update({names[i] for i in group})  # a set: a group counts once for each of its datasets

    for name, number in num_groups.items():
        if number < 2:
            raise ValueError(f"{name}: {names.count(name)} usable questions cannot be split in a training and an "
                             "evaluation half: articles, paragraphs or equal questions that they share link them all; "
                             "a source with more articles and questions is needed")


def _evaluation(groups: Sequence[Sequence[int]], names: Sequence[str], room: Mapping[str, float]) -> list[int]:
    """Return the evaluation questions: of each dataset as many as there is room for, but at least one."""
    chosen: list[int] = []
    num_chosen: Counter[str] = Counter()
    smallest: dict[str, Sequence[int]] = {}
    for group in groups:
        # A group may hold questions of several datasets: all of them must have room for their share of it.
        sizes = Counter(names[i] for i in group)
        if all(num_chosen[name] + size <= room[name] for name, size in sizes.items()):
            chosen += group
            num_chosen += sizes

        for name in sizes:
            if name not in smallest or len(group) < len(smallest[name]):
                smallest[name] = group

    # An evaluation half is never empty, even if its smallest group is too large for the share.
    for name in room:
        if not num_chosen[name]:
            chosen += smallest[name]
            num_chosen += Counter(names[i] for i in smallest[name])
    return chosen


def _owners(candidates: Sequence[Candidate], halves: Sequence[int]) -> dict[str, int]:
    """Return the half that each article and each text belongs to."""
    owner: dict[str, int] = {}
    # Gold passages decide: the groups keep these keys out of the other half.
    for candidate, half in zip(candidates, halves, strict=True):
        for key in _keys(passage.paragraph for passage in candidate.gold):
            owner[key] = half

    # Articles and texts that are gold to nobody go to the half of the first question that has them.
    for candidate, half in zip(candidates, halves, strict=True):
        for key in _keys(candidate.question.paragraphs):
            owner.setdefault(key, half)
    return owner


def _pool(dataset: Sequence[Candidate], owner: Mapping[str, int], which: int) -> tuple[Paragraph, ...]:
    """Return the paragraphs of a dataset that one half owns, without repetition."""
    paragraphs: dict[Paragraph, None] = {}
    for candidate in dataset:
        paragraphs |= dict.fromkeys(candidate.question.paragraphs)

    # Article and text must have the same owner: a paragraph whose text is in the other half too is in neither pool.
    pool = []
    for paragraph in paragraphs:
        owners = {owner[key] for key in _keys([paragraph])}
        if owners == {which}:
            pool.append(paragraph)
    return tuple(pool)


def _keys(paragraphs: Iterable[Paragraph]) -> list[str]:
    """Return what paragraphs must not share across the halves: their articles and their texts."""
    keys = []
    for paragraph in paragraphs:
        keys += [f"article {paragraph.article}", f"text {' '.join(paragraph.text.split())}"]
    return keys
