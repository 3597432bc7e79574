"""Pretraining of a compressor: auto-encoding and continuation, half and half (paper, section 3.2; COCOM, PISCO).

Both tasks are ordinary records: the document is compressed, the question states the task, and the answer is the
document itself, or the text that follows it. So pretraining needs no other model, batch or loss than training.
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

REPEAT = "Repeat the document."
CONTINUE = "Continue the document: "
CLEAR_WORDS = 4
"""Words of the continuation that stand in the question, so that the generator knows where to continue."""
MOST_TEXTS = 100_000
"""Texts held in memory: about 300 MB of web pages. Many spans are drawn from each."""
LEARNING_RATE = 1e-4
"""Peak learning rate of compressor and generator alike; the batch size is that of the training."""
SHORTEST_WORDS = 2
"""Length of the first spans, in words."""
AUTO_ENCODING_SHARE = 0.5
"""Share of the spans that are to be repeated; the others are to be continued."""


class PretrainingRecords(Sequence[Record]):
    """Records whose answers are spans of ``texts``, short spans first, each made when it is read.

    A new compressor learns nothing from long spans (its loss stays at that of a language model), but soon learns to
    hand on a few words; so lengths grow, by the same factor from record to record. A record depends only on the texts,
    the seed and its number, so a resumed run continues with the same ones.

    Args:
        texts: plain texts, from which spans are drawn at random.
        num_examples: number of records.
        words: shortest and longest span, in words.
        auto_encoding_share: share of the records to repeat; the others are to be continued.
        seed: of the draws.

    Raises:
        ValueError: if none of ``texts`` is long enough for the shortest task.
    """

    def __init__(self, texts: Sequence[str], num_examples: int, words: tuple[int, int] = (SHORTEST_WORDS, 24),
                 auto_encoding_share: float = AUTO_ENCODING_SHARE, seed: int = 42) -> None:
        self._shortest, self._longest = words

        # The longer task: a span, the words in clear, and at least one word to continue with.
        needed = self._shortest + CLEAR_WORDS + 1
        self._texts = [text for text in texts if len(text.split(maxsplit=needed)) >= needed]
        self._num_examples, self._auto_encoding_share, self._seed = num_examples, auto_encoding_share, seed
        if not self._texts:
            raise ValueError(f"pretraining needs texts of at least {needed} words; found none among {len(texts)}")

    def __len__(self) -> int:
        return self._num_examples

    def __getitem__(self, number: int) -> Record:
        if not 0 <= number < len(self):
            raise IndexError(number)
        rng = random.Random(f"{self._seed}-{number}")

        # From shortest to longest: length = shortest * (longest / shortest) ** (share of the records before this one).
        growth = self._longest / self._shortest
        length = self._shortest * growth ** (number / max(1, len(self) - 1))
        words = rng.choice(self._texts).split()
        return _record(rng, words, max(self._shortest, round(length * rng.uniform(0.5, 1.0))),
                       rng.random() < self._auto_encoding_share, number)


@dataclass(frozen=True)
class Pretraining:
    """The first stage of a run, ready to start.

    Attributes:
        config: the run's, with the steps and the learning rate of pretraining.
        records: to train on; None if an earlier start has finished this stage.
        folder: of the ``checkpoint-N`` folders, and of ``final``, from which ``--init_compressor`` can start.
        resume: continue from the last checkpoint, if there is one.
        inputs: the texts, as :mod:`scaledown.training.run_folder` records them.
    """

    config: TrainingConfig
    records: PretrainingRecords | None
    folder: Path
    resume: bool
    inputs: run_folder.Inputs = dataclasses.field(default_factory=dict)

    @property
    def final(self) -> Path:
        """The folder of the checkpoint at its end."""
        return self.folder / run.FINAL

    def run(self, model: ScaleDownModel) -> list[dict[str, Any]]:
        """Pretrain ``model``, or load it if an earlier start has; return the trainer's log."""
        processes.say(f"pretraining for {self.config.max_steps} steps on {model.device}, into {self.folder}")
        log: list[dict[str, Any]] = []
        if self.records is None:
            model.load_trained(self.final)
        else:
            last = checkpoints.last(self.folder) if self.resume else None
            # In order, since the spans grow.
            log = run.train(model, self.config, self.records, self.folder, last, in_order=True)
        processes.say(f"pretrained: {self.final}")
        return log


def prepare(config: PretrainingConfig, training: TrainingConfig, document_tokens: int, folder: Path,
            resume: bool = False) -> Pretraining | None:
    """Read the texts of a pretraining, and return it; None if ``config`` asks for none.

    Args:
        config: steps and texts.
        training: the settings of the training that follows.
        document_tokens: longest document of the model, in tokens.
        folder: of the run.
        resume: continue a pretraining that was interrupted.

    Raises:
        ValueError: if the texts cannot be read or are too short, or settings contradict each other.
    """
    if config.pretrain_steps is None:
        return None
    if training.shard:
        raise ValueError("--shard goes with one stage: pretrain without it, and start from that with --init_compressor")

    # Compressor and generator train from the first step, on the loss of the answers alone.
    stage = dataclasses.replace(training, max_steps=config.pretrain_steps, learning_rate_generator=LEARNING_RATE,
                                learning_rate_compressor=LEARNING_RATE, readout_loss_weight=0.0, readout_steps=0,
                                compressor_warmup_steps=0)
    folder, source = folder / run_folder.PRETRAINING, config.pretrain_data or DEFAULT_PRETRAINING_TEXTS
    if resume and (folder / run.FINAL / CONFIG_FILE).is_file():
        return Pretraining(stage, None, folder, resume, run_folder.inputs_of_texts("--pretrain_data", source, None))

    num_examples = config.pretrain_steps * training.batch_size
    texts = read_texts(source, min(num_examples, MOST_TEXTS), training.seed)
    # An English word takes about 4/3 tokens, so the last spans fill a document.
    longest = max(SHORTEST_WORDS, document_tokens * 3 // 4)
    records = PretrainingRecords(texts, num_examples, (SHORTEST_WORDS, longest), seed=training.seed)
    return Pretraining(stage, records, folder, resume, run_folder.inputs_of_texts("--pretrain_data", source, texts))


def _record(rng: random.Random, words: list[str], length: int, is_auto_encoding: bool, number: int) -> Record:
    """Return a record of one of the two tasks, on a span of ``length`` words, or fewer if the text is short."""
    if is_auto_encoding:
        start = rng.randint(0, max(0, len(words) - length))
        text = " ".join(words[start:start + length])
        return Record(id=f"repeat-{number}", query=REPEAT, documents=(text,), answer=text)

    # The text is cut into [document: length][in clear: CLEAR_WORDS][answer: length, or what is left].
    length = min(length, len(words) - CLEAR_WORDS - 1)
    start = rng.randint(0, len(words) - length - CLEAR_WORDS - 1)
    end = start + length
    clear, rest = words[end:end + CLEAR_WORDS], words[end + CLEAR_WORDS:end + CLEAR_WORDS + length]
    return Record(id=f"continue-{number}", query=CONTINUE + " ".join(clear),
                  documents=(" ".join(words[start:end]),), answer=" ".join(rest))
