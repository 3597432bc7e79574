"""Records of the QA datasets in ``layouts``: gold passages among hard negatives, in two halves.

Questions are drawn at random and their paragraphs cut into passages. The questions are split in two halves that share
no paragraph and no question. Each question gets its gold passages and the hardest negatives of its half, in random
order.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scaledown import hub
from scaledown.data.qa.gold_and_negatives import Candidate, HardNegatives, cut_paragraphs, find_gold
from scaledown.data.qa.halves import Half, split_in_halves
from scaledown.data.qa.layouts import DATASETS
from scaledown.data.qa.reading import Source, read_questions
from scaledown.data.qa.sources import open_hub, open_local
from scaledown.data.records import Record
from scaledown.prompt.passages import SMALLEST_PASSAGE_TOKENS, Paragraph, Passage, PassageSplitter, TokenCounter
from scaledown.settings import positive, require, setting

ALL = "all"
TRAIN_FOR_ONE_EVAL = 5
"""Training records for each evaluation record."""
SMALLEST_EVAL = 200
"""Records of an evaluation half: an accuracy over them is within 7 points of the true one, 95 times of 100."""
FOLDER_NAMES = ", ".join(dataset.folders[-1] for dataset in DATASETS.values())
"""The shortest names of the folders that are read if all datasets are read from one, for the help."""


@dataclass(frozen=True)
class QADatasetConfig:
    """Settings of the records: their dataset, number and size."""

    dataset: str = setting("squad", "the dataset; 'all' mixes all of them evenly", (*DATASETS, ALL))
    num_examples: int = setting(500, "training records; the evaluation half has a fifth of that number, but at least "
                                     f"{SMALLEST_EVAL}, or that number if it is smaller")
    split: str = setting("validation", "the dataset's split from which both halves are drawn", ("train", "validation"))
    source: str | None = setting(None, "official file or folder on disk [the Hub]; with --dataset all, a folder with "
                                       f"a folder of each ({FOLDER_NAMES})")
    num_documents: int = setting(5, "documents a question: its gold passages, filled up with hard negatives")
    passage_tokens: int = setting(128, "longest document, in tokens of --generator_model, its title included")
    seed: int = setting(42, "seed of all random choices")

    def __post_init__(self) -> None:
        faults = positive(self, "num_examples", "num_documents")
        if self.passage_tokens < SMALLEST_PASSAGE_TOKENS:
            faults.append(f"--passage_tokens must be at least {SMALLEST_PASSAGE_TOKENS}, got {self.passage_tokens}")
        require(faults)

    @property
    def num_eval_examples(self) -> int:
        """Records wanted in the evaluation half."""
        return max(self.num_examples // TRAIN_FOR_ONE_EVAL, min(self.num_examples, SMALLEST_EVAL))


@dataclass(frozen=True)
class Prepared:
    """Both halves of one dataset, its source, and what was left out: questions, counted by reason, and files."""

    dataset: str
    description: str
    train: tuple[Record, ...]
    eval: tuple[Record, ...]
    dropped: Counter[str]
    left_out_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """The questions drawn from one dataset, before they are split; ``config`` says what to make of them."""

    config: QADatasetConfig
    num_eval_examples: int
    source: Source
    candidates: list[Candidate]
    passages: dict[Paragraph, list[Passage]]
    dropped: Counter[str]

    @property
    def eval_share(self) -> float:
        """Share of the questions that go to the evaluation half."""
        return self.num_eval_examples / (self.config.num_examples + self.num_eval_examples)


def require_source(config: QADatasetConfig) -> None:
    """Find out within seconds whether the source is there at all.

    Raises:
        ValueError: if it is not on disk, or the Hub cannot be reached.
    """
    for dataset_config, _ in _dataset_configs(config):
        if dataset_config.source is None:
            hub.locate(DATASETS[dataset_config.dataset].hub_name, kind="dataset")
        elif not Path(dataset_config.source).exists():
            raise ValueError(f"--source {dataset_config.source}: no such file or folder")


def prepare(config: QADatasetConfig, count_tokens: TokenCounter) -> list[Prepared]:
    """Make the records of one dataset, or of all datasets in equal parts.

    Args:
        config: what to make.
        count_tokens: gives the number of tokens of each of many texts.

    Raises:
        ValueError: if the source cannot be reached or read, or too little of it can be used.
    """
    rng = random.Random(f"{config.seed} {config.dataset}")
    datasets = [_draw(dataset_config, num_eval_examples, rng, count_tokens)
                for dataset_config, num_eval_examples in _dataset_configs(config)]

    # All datasets are split at once: their evaluation questions must not be in the training half of another.
    halves = split_in_halves({drawn.config.dataset: drawn.candidates for drawn in datasets},
                             {drawn.config.dataset: drawn.eval_share for drawn in datasets}, rng)
    return [_prepared(drawn, *halves[drawn.config.dataset]) for drawn in datasets]


def mixed(parts: Sequence[Prepared], seed: int) -> tuple[list[Record], list[Record]]:
    """Return the training and the evaluation records of all ``parts``, shuffled."""
    train: list[Record] = []
    evaluation: list[Record] = []
    for part in parts:
        train += part.train
        evaluation += part.eval

    rng = random.Random(seed)
    rng.shuffle(train)
    rng.shuffle(evaluation)
    return train, evaluation


def _dataset_configs(config: QADatasetConfig) -> list[tuple[QADatasetConfig, int]]:
    """Return the settings of each single dataset, with the size of its evaluation half.

    Raises:
        ValueError: if there are fewer examples than datasets, or no folder for one of them.
    """
    if config.dataset != ALL:
        return [(config, config.num_eval_examples)]

    num_datasets = len(DATASETS)
    share, left_over = divmod(config.num_examples, num_datasets)
    if not share:
        raise ValueError(f"--num_examples must be at least {num_datasets} with --dataset all, "
                         f"got {config.num_examples}")

    num_eval_examples = math.ceil(config.num_eval_examples / num_datasets)
    configs = []
    for number, dataset in enumerate(DATASETS):
        source = config.source and _subfolder(Path(config.source), dataset)
        num_examples = share + 1 if number < left_over else share  # the remainder goes to the first datasets
        configs.append((replace(config, dataset=dataset, num_examples=num_examples, source=source), num_eval_examples))
    return configs


def _subfolder(folder: Path, dataset: str) -> str:
    names = DATASETS[dataset].folders
    for name in names:
        if (folder / name).is_dir():
            return str(folder / name)
    raise ValueError(f"--source {folder}: no folder {' or '.join(names)} in it, which --dataset all needs")


def _draw(config: QADatasetConfig, num_eval_examples: int, rng: random.Random, count_tokens: TokenCounter) -> Drawn:
    """Draw questions for both halves of one dataset, and cut their paragraphs.

    Raises:
        ValueError: if the source cannot be read, or none of its questions can be used.
    """
    if config.source:
        source = open_local(config.dataset, config.split, Path(config.source), rng)
    else:
        source = open_hub(config.dataset, config.split, config.seed)

    # More questions are read than records wanted: their passages are the pool of hard negatives.
    dropped: Counter[str] = Counter()
    questions = read_questions(source, config.num_examples + num_eval_examples, rng, dropped)
    passages = cut_paragraphs(questions, PassageSplitter(count_tokens, config.passage_tokens))
    candidates = find_gold(questions, passages, config.num_documents, dropped)

    if not candidates:
        reasons = "; ".join(f"{count} because {reason}" for reason, count in dropped.most_common())
        raise ValueError(f"{source.description}: not one question can be used ({reasons or 'there are none'})")
    rng.shuffle(candidates)
    return Drawn(config, num_eval_examples, source, candidates, passages, dropped)


def _prepared(drawn: Drawn, train: Half, evaluation: Half) -> Prepared:
    config, source = drawn.config, drawn.source
    return Prepared(config.dataset, source.description,
                    train=tuple(_records(train, config.num_examples, drawn.passages, config)),
                    eval=tuple(_records(evaluation, drawn.num_eval_examples, drawn.passages, config)),
                    dropped=drawn.dropped, left_out_files=source.left_out)


def _records(half: Half, count: int, passages: dict[Paragraph, list[Passage]], config: QADatasetConfig) -> list[Record]:
    """Return records of the first ``count`` questions of a half."""
    candidates = half.candidates[:count]  # in the random order of their drawing

    # Negatives come from all paragraphs of this half, those of questions without a record included.
    pool: list[Passage] = []
    for paragraph in half.paragraphs:
        pool += passages[paragraph]
    negatives = HardNegatives(pool).choose(candidates, config.num_documents)
    return [_record(candidate, hard, config) for candidate, hard in zip(candidates, negatives, strict=True)]


def _record(candidate: Candidate, negatives: Sequence[Passage], config: QADatasetConfig) -> Record:
    question = candidate.question
    name = f"{config.dataset}-{question.id}"

    # Shuffled by the record's own seed, so that a question's order does not depend on the others.
    documents = [*candidate.gold, *negatives]
    random.Random(f"{config.seed} {name}").shuffle(documents)

    # An id is a hash of the document: the same text has the same id in all records.
    return Record(
        id=name, query=question.query, answer=question.answers[0], answers=question.answers,
        documents=tuple(passage.document for passage in documents),
        document_ids=tuple(hashlib.sha256(passage.document.encode()).hexdigest()[:16] for passage in documents),
        titles=tuple(passage.paragraph.title for passage in documents))
