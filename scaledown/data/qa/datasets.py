"""SQuAD, Natural Questions, TriviaQA and HotpotQA into records: gold passages among hard negatives, in two halves.

Questions are drawn at random, their paragraphs cut into passages, the questions split in halves that share no
paragraph and no question, and each given its gold passages and the hardest negatives of its half, in random order.
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
from scaledown.config import positive, require, setting
from scaledown.data.passages import SMALLEST_PASSAGE_TOKENS, Paragraph, Passage, PassageSplitter, TokenCounter
from scaledown.data.qa.gold import Candidate, cut_paragraphs, find_gold
from scaledown.data.qa.halves import Half, split_in_halves
from scaledown.data.qa.hard_negatives import HardNegatives
from scaledown.data.qa.reading import Source, read_questions
from scaledown.data.qa.sources import HUB_DATASETS, open_hub, open_local
from scaledown.data.records import Record

ALL = "all"
EVAL_SHARE = 5
SMALLEST_EVAL = 200
FOLDERS = {
    "squad": ("squad",),
    "natural_questions": ("natural_questions", "nq"),
    "trivia_qa": ("trivia_qa", "triviaqa"),
    "hotpot_qa": ("hotpot_qa", "hotpotqa"),
}


@dataclass(frozen=True)
class QADatasetConfig:
    """What is made of which dataset."""

    dataset: str = setting("squad", "the dataset; 'all' mixes the four evenly", (*HUB_DATASETS, ALL))
    num_examples: int = setting(500, "training records; the evaluation half has a fifth as many more, but at least "
                                     f"{SMALLEST_EVAL} or as many as the training half")
    split: str = setting("validation", "the dataset's split that both halves are drawn from", ("train", "validation"))
    source: str | None = setting(None, "official file or folder on disk [the Hub]; with --dataset all, a folder with "
                                       "the folders squad, nq, triviaqa and hotpotqa")
    num_documents: int = setting(5, "documents a question: its gold passages, then hard negatives")
    passage_tokens: int = setting(128, "longest document, in tokens of --generator_model, its title counted")
    seed: int = setting(42, "seed of everything random")

    def __post_init__(self) -> None:
        faults = positive(self, "num_examples", "num_documents")
        if self.passage_tokens < SMALLEST_PASSAGE_TOKENS:
            faults.append(f"--passage_tokens must be at least {SMALLEST_PASSAGE_TOKENS}, got {self.passage_tokens}")
        require(faults)

    @property
    def num_eval_examples(self) -> int:
        """Records wanted in the evaluation half: 200 of them know an accuracy to within 7 points, 95 times of 100."""
        return max(self.num_examples // EVAL_SHARE, min(self.num_examples, SMALLEST_EVAL))


@dataclass(frozen=True)
class Prepared:
    """Both halves of one dataset, where they came from, and what was left out: questions, by reason, and files."""

    dataset: str
    description: str
    train: tuple[Record, ...]
    eval: tuple[Record, ...]
    dropped: Counter[str]
    left_out_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """The questions drawn from one dataset, before they are split; ``config`` is what is to be made of it."""

    config: QADatasetConfig
    num_eval_examples: int
    source: Source
    candidates: list[Candidate]
    passages: dict[Paragraph, list[Passage]]
    dropped: Counter[str]

    @property
    def eval_share(self) -> float:
        """The share of the questions that is evaluated with."""
        return self.num_eval_examples / (self.config.num_examples + self.num_eval_examples)


def require_source(config: QADatasetConfig) -> None:
    """Find out within seconds whether the source can be had at all.

    Raises:
        ValueError: where it is not on disk, or the Hub cannot be reached.
    """
    for part, _ in _parts(config):
        if part.source is None:
            hub.locate(HUB_DATASETS[part.dataset][0], kind="dataset")
        elif not Path(part.source).exists():
            raise ValueError(f"--source {part.source}: no such file or folder")


def prepare(config: QADatasetConfig, count_tokens: TokenCounter) -> list[Prepared]:
    """Make the records of one dataset, or of all four in equal parts.

    Args:
        config: what to make.
        count_tokens: gives the number of tokens of each of many texts.

    Raises:
        ValueError: where the source cannot be reached or read, or too little of it can be used.
    """
    rng = random.Random(f"{config.seed} {config.dataset}")
    parts = [_draw(part, num_eval_examples, rng, count_tokens) for part, num_eval_examples in _parts(config)]
    halves = split_in_halves({part.config.dataset: part.candidates for part in parts},
                             {part.config.dataset: part.eval_share for part in parts}, rng)
    return [_prepared(part, *halves[part.config.dataset]) for part in parts]


def mixed(parts: Sequence[Prepared], seed: int) -> tuple[list[Record], list[Record]]:
    """The training and the evaluation records of all ``parts``, shuffled."""
    train = [record for part in parts for record in part.train]
    evaluation = [record for part in parts for record in part.eval]
    rng = random.Random(seed)
    rng.shuffle(train)
    rng.shuffle(evaluation)
    return train, evaluation


def _parts(config: QADatasetConfig) -> list[tuple[QADatasetConfig, int]]:
    """What to make of each dataset, and the size of its evaluation half."""
    if config.dataset != ALL:
        return [(config, config.num_eval_examples)]
    share, left_over = divmod(config.num_examples, len(HUB_DATASETS))
    if not share:
        raise ValueError(f"--num_examples must be at least {len(HUB_DATASETS)} with --dataset all, "
                         f"got {config.num_examples}")
    sources = {dataset: config.source and _subfolder(Path(config.source), dataset) for dataset in HUB_DATASETS}
    return [(replace(config, dataset=dataset, num_examples=share + (number < left_over), source=sources[dataset]),
             math.ceil(config.num_eval_examples / len(HUB_DATASETS))) for number, dataset in enumerate(HUB_DATASETS)]


def _subfolder(folder: Path, dataset: str) -> str:
    for name in FOLDERS[dataset]:
        if (folder / name).is_dir():
            return str(folder / name)
    raise ValueError(f"--source {folder}: no folder {' or '.join(FOLDERS[dataset])} in it, which --dataset all needs")


def _draw(config: QADatasetConfig, num_eval_examples: int, rng: random.Random, count_tokens: TokenCounter) -> Drawn:
    source = (open_local(config.dataset, config.split, Path(config.source), rng) if config.source
              else open_hub(config.dataset, config.split, config.seed))
    dropped: Counter[str] = Counter()
    questions = read_questions(source, config.num_examples + num_eval_examples, rng, dropped)
    passages = cut_paragraphs(questions, PassageSplitter(count_tokens, config.passage_tokens))
    candidates = find_gold(questions, passages, config.num_documents, dropped)
    if not candidates:
        reasons = "; ".join(f"{count} because {reason}" for reason, count in dropped.most_common())
        raise ValueError(f"{source.description}: not one question can be used ({reasons or 'there are none'})")
    rng.shuffle(candidates)
    return Drawn(config, num_eval_examples, source, candidates, passages, dropped)


def _prepared(part: Drawn, train: Half, evaluation: Half) -> Prepared:
    records = [tuple(_records(half, count, part.passages, part.config)) for half, count in
               ((train, part.config.num_examples), (evaluation, part.num_eval_examples))]
    return Prepared(part.config.dataset, part.source.description, *records, part.dropped, part.source.left_out)


def _records(half: Half, count: int, passages: dict[Paragraph, list[Passage]], config: QADatasetConfig) -> list[Record]:
    """Records of the first ``count`` questions of a half."""
    chosen = half.candidates[:count]
    pool = HardNegatives(passage for paragraph in half.paragraphs for passage in passages[paragraph])
    return [_record(candidate, negatives, config)
            for candidate, negatives in zip(chosen, pool.choose(chosen, config.num_documents), strict=True)]


def _record(candidate: Candidate, negatives: Sequence[Passage], config: QADatasetConfig) -> Record:
    question = candidate.question
    name = f"{config.dataset}-{question.id}"
    documents = [*candidate.gold, *negatives]
    random.Random(f"{config.seed} {name}").shuffle(documents)
    return Record(
        id=name, query=question.query, answer=question.answers[0], answers=question.answers,
        documents=tuple(passage.document for passage in documents),
        document_ids=tuple(hashlib.sha256(passage.document.encode()).hexdigest()[:16] for passage in documents),
        titles=tuple(passage.paragraph.title for passage in documents))
