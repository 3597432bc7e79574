"""Pretraining of a compressor: auto-encoding and continuation, half and half (paper, section 3.2; COCOM, PISCO).

Both tasks are records like any other: the document is compressed, the question states the task, and the answer is the
document itself or the text after it. So pretraining uses the same model, batches and loss as training.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaledown import processes
from scaledown.config import DEFAULT_PRETRAINING_TEXTS, PretrainingConfig, TrainingConfig
from scaledown.data.records import Record
from scaledown.data.texts import read_texts
from scaledown.models.loading.checkpoint import CONFIG_FILE
from scaledown.models.model import ScaleDownModel
from scaledown.training import checkpoints, run, run_folder
from scaledown.training.steps.schedule import schedule_warnings

REPEAT = "Repeat the document."
CONTINUE = "Continue the document: "
CLEAR_WORDS = 4
"""Words of the continuation that the generator sees as text, so that it knows which word comes next."""
MOST_TEXTS = 100_000
"""Texts held in memory, about 300 MB of web pages. Spans are drawn from them repeatedly."""
LEARNING_RATE = 1e-4
"""Peak learning rate of compressor and generator; the batch size is that of the training."""
SHORTEST_WORDS = 2
"""Length of the first spans, in words."""
AUTO_ENCODING_SHARE = 0.5
"""Share of the spans to be repeated; the others are to be continued."""


class PretrainingRecords(Sequence[Record]):
    """Records whose answers are spans of ``texts``, short spans first; each is made when it is asked for.

    A compressor with random memory tokens learns nothing from long spans (its loss stays at the language model's), but
    soon learns to pass on a few words. So lengths grow, by the same factor from record to record. A record depends on
    the texts, the seed and its number alone, so a resumed run continues with the same ones.

    Args:
        texts: plain texts; spans are drawn from them at random.
        num_examples: number of records.
        words: shortest and longest span, in words.
        auto_encoding_share: share of records to repeat; the others are to be continued.
        seed: of the draws.

    Raises:
        ValueError: if no text is long enough for the shortest task.
    """

    def __init__(self, texts: Sequence[str], num_examples: int, words: tuple[int, int] = (SHORTEST_WORDS, 24),
                 auto_encoding_share: float = AUTO_ENCODING_SHARE, seed: int = 42) -> None:
        self._shortest, self._longest = words
        self._num_examples, self._auto_encoding_share, self._seed = num_examples, auto_encoding_share, seed

        # The shortest continuation: a span, the words in clear, and a word to predict.
        needed = self._shortest + CLEAR_WORDS + 1
        self._texts = [text for text in texts if len(text.split(maxsplit=needed)) >= needed]
        if not self._texts:
            raise ValueError(f"pretraining needs texts of at least {needed} words; found none among {len(texts)}")

    def __len__(self) -> int:
        return self._num_examples

    def __getitem__(self, number: int) -> Record:
        if not 0 <= number < len(self):
            raise IndexError(number)
        rng = random.Random(f"{self._seed}-{number}")

        # From the shortest length (first record) to the longest (last record), in a geometric progression.
        progress = number / max(1, len(self) - 1)
        most_words = self._shortest * (self._longest / self._shortest) ** progress

        words = rng.choice(self._texts).split()
        num_words = max(self._shortest, round(most_words * rng.uniform(0.5, 1.0)))
        if rng.random() < self._auto_encoding_share:
            return _to_repeat(rng, words, num_words, number)
        return _to_continue(rng, words, num_words, number)


@dataclass(frozen=True)
class Pretraining:
    """The first stage of a run, ready to start.

    Attributes:
        config: the settings of the run's training, with those of pretraining in their place.
        records: to train on; None if an earlier start finished the stage.
        folder: gets ``checkpoint-N`` folders, and ``final``, which ``--init_compressor`` can start from.
        resume: continue from the last checkpoint in ``folder``, if there is one.
        inputs: the texts, as :mod:`scaledown.training.run_folder` has them.
        source: the name of the texts, a file's or a Hub dataset's.
    """

    config: TrainingConfig
    records: PretrainingRecords | None
    folder: Path
    resume: bool
    inputs: run_folder.Inputs = dataclasses.field(default_factory=dict)
    source: str | None = None

    @property
    def final(self) -> Path:
        """The checkpoint of its end."""
        return self.folder / run.FINAL

    def run(self, model: ScaleDownModel) -> list[dict[str, Any]]:
        """Pretrain ``model``, or load the result of an earlier start; return the trainer's log."""
        log: list[dict[str, Any]] = []
        # An earlier start may have finished the stage.
        if self.records is None:
            processes.say(f"pretraining: done already, in {self.folder}")
            model.load_trained(self.final)
        else:
            processes.say(f"pretraining for {self.config.max_steps:,} steps of {self.config.batch_size} texts, into "
                          f"{self.folder}")
            processes.warn(*schedule_warnings(len(self.records), self.config, steps_flag="--pretrain_steps"))
            last = checkpoints.last(self.folder) if self.resume else None
            log = run.train(model, self.config, self.records, self.folder, last, in_order=True,
                            name=self.source)
        processes.say(f"pretrained: {self.final}; a training starts from it with --init_compressor")
        return log


def prepare(config: PretrainingConfig, training: TrainingConfig, document_tokens: int, folder: Path,
            resume: bool = False) -> Pretraining | None:
    """Read the texts for pretraining; return None if ``config`` asks for none.

    Args:
        config: settings that only pretraining has.
        training: settings of the run's training.
        document_tokens: longest document of the model.
        folder: the run's.
        resume: see :class:`Pretraining`.

    Raises:
        ValueError: if the texts cannot be read or are too short, or if settings contradict each other.
    """
    if config.pretrain_steps is None:
        return None
    if training.shard:
        raise ValueError("--shard goes with one stage: pretrain without it, and start from that with --init_compressor")

    # Scores, the readout loss, the compressor's head start, text beside memory and memory without a query are for
    # training on answers.
    training = dataclasses.replace(training, max_steps=config.pretrain_steps, learning_rate_generator=LEARNING_RATE,
                                   learning_rate_compressor=LEARNING_RATE, reranking_loss_weight=0.0,
                                   readout_loss_weight=0.0, readout_steps=0, compressor_warmup_steps=0,
                                   train_text_documents=None, query_dropout=0.0)
    folder, source = folder / run_folder.PRETRAINING, config.pretrain_data or DEFAULT_PRETRAINING_TEXTS
    if resume and (folder / run.FINAL / CONFIG_FILE).is_file():
        inputs = run_folder.inputs_of_texts("--pretrain_data", source, None)
        return Pretraining(training, None, folder, resume, inputs, source)

    num_examples = config.pretrain_steps * training.batch_size
    texts = read_texts(source, min(num_examples, MOST_TEXTS), training.seed)

    # An English word takes about 4/3 tokens, so the last spans fill a document.
    longest = max(SHORTEST_WORDS, document_tokens * 3 // 4)
    records = PretrainingRecords(texts, num_examples, (SHORTEST_WORDS, longest), seed=training.seed)
    inputs = run_folder.inputs_of_texts("--pretrain_data", source, texts)
    return Pretraining(training, records, folder, resume, inputs, source)


def _to_repeat(rng: random.Random, words: list[str], num_words: int, number: int) -> Record:
    """Return a record whose answer is its document, a span of the words."""
    start = rng.randint(0, max(0, len(words) - num_words))
    span = " ".join(words[start:start + num_words])
    return Record(id=f"repeat-{number}", query=REPEAT, documents=(span,), answer=span)


def _to_continue(rng: random.Random, words: list[str], num_words: int, number: int) -> Record:
    """Return a record whose answer follows its document, after the words that the question has in clear."""
    # document (num_words) | clear (CLEAR_WORDS) | answer (num_words, at least 1)
    num_words = min(num_words, len(words) - CLEAR_WORDS - 1)
    start = rng.randint(0, len(words) - num_words - CLEAR_WORDS - 1)
    document_end = start + num_words
    clear_end = document_end + CLEAR_WORDS

    return Record(id=f"continue-{number}", query=CONTINUE + " ".join(words[document_end:clear_end]),
                  documents=(" ".join(words[start:document_end]),),
                  answer=" ".join(words[clear_end:clear_end + num_words]))
