"""The lessons of the checkpoint "smollm2", in their order; each starts from the weights of the one before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from lab.embedded.stages import TrainingStage, train_all
from lab.smollm2.copying import learn_to_copy
from lab.smollm2.imitation import imitate
from lab.smollm2.lesson_steps import LessonSteps
from lab.smollm2.lessons import Lesson, records_of
from lab.smollm2.pointing import learn_to_point
from lab.smollm2.vocabulary import learn_vocabulary
from scaledown.config import ENCODER, ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record
from scaledown.models.loading.checkpoint import CONFIG_FILE
from scaledown.models.model import ScaleDownModel

VOCABULARY, POINTING = "vocabulary", "pointing"
IMITATION, PASSAGES, COPYING, DOCUMENTS = "imitation", "passages", "copying", "documents"
"""The stages, each with a folder of this name."""
BATCH_SIZE = 16
POINTING_BATCH = 32
ANSWER_TOKENS = 32


def model_config(generator_model: str) -> ScaleDownConfig:
    """Return the settings of the model: a compressor made of the generator itself, both changed by LoRA alone.

    The system prompt is short because a trained generator needs no longer one, and every prompt pays for it.
    """
    return ScaleDownConfig(
        generator_model=generator_model, compressor_type="llm", compressor_model=generator_model,
        compressor_lora_rank=16, lora_rank=8, lora_alpha=16, lora_dropout=0.0,
        input_order="document_first", memory_init="reply", soft_tokens=True, enable_reranking=True,
        system_prompt="Answer briefly.")


def stages(records: Sequence[Record], steps: LessonSteps) -> Iterator[TrainingStage]:
    """Yield the stages that train the compressor; each starts from the weights of the one before it."""
    # The readout loss has its full weight in each stage: it tells the compressor of every document by itself.
    base = {"seed": steps.seed, "weight_decay": 0.01, "answer_tokens": ANSWER_TOKENS, "readout_loss_weight": 1.0,
            "batch_size": BATCH_SIZE, "learning_rate_generator": 1e-3, "save_steps": 20, "logging_steps": 5,
            "warmup_ratio": 0.06}
    passages = Lesson(num_documents=(1, 2, 3))
    documents = Lesson(num_documents=(1, 2, 3, 5, 5, 8, 10), unanswered_share=0.15, own_share=0.15)

    plan = ((PASSAGES, passages, steps.passage_steps, steps.passage_rate, {"readout_steps": steps.passage_steps}),
            (DOCUMENTS, documents, steps.document_steps, steps.document_rate, {}))
    for number, (name, lesson, num_steps, rate, more) in enumerate(plan):
        if not num_steps:
            continue
        training = TrainingConfig(**base | more, learning_rate_compressor=rate)
        make_records = partial(records_of, lesson, records, num_steps, BATCH_SIZE, steps.seed + number)
        yield TrainingStage(name, lambda model, make=make_records: make(), training)


def learn(name: str, model: ScaleDownModel, folder: Path, lesson: Callable[[Path], object]) -> None:
    """Run a lesson that is no training of the whole model, or load the result of an earlier start from ``folder``."""
    if (folder / name / CONFIG_FILE).is_file():
        print(f"{name}: done already, in {folder / name}")
        model.load_trained(folder / name)
        return
    print(f"{name}: into {folder / name}")
    lesson(folder / name)
    model.save_pretrained(folder / name)


def read_first(model: ScaleDownModel, records: Sequence[Record], steps: LessonSteps, folder: Path) -> None:
    """Teach a new encoder the generator's vocabulary, and to find answers."""
    if steps.vocabulary_steps:
        learn(VOCABULARY, model, folder,
              lambda place: learn_vocabulary(model, records, steps.vocabulary_steps, steps.encoder_rate, steps.seed,
                                             place))
    if steps.pointing_steps:
        asked = records_of(Lesson((1, 1, 2)), records, steps.pointing_steps, POINTING_BATCH, steps.seed + 30)
        learn(POINTING, model, folder,
              lambda place: learn_to_point(model, asked, POINTING_BATCH, steps.encoder_rate, place))


def imitate_first(model: ScaleDownModel, larger: ScaleDownModel, records: Sequence[Record], steps: LessonSteps,
                  folder: Path) -> None:
    """Let the compressor imitate the memory of ``larger``; an encoder learns to read before that."""
    # An encoder has a vocabulary of its own; fewer layers of the generator have the generator's.
    if model.config.reads_with == ENCODER:
        read_first(model, records, steps, folder)
    if not steps.imitation_steps:
        return
    passages = records_of(Lesson((1, 2, 3)), records, steps.imitation_steps, BATCH_SIZE, steps.seed + 20)
    learn(IMITATION, model, folder,
          lambda place: imitate(model, larger, passages, BATCH_SIZE, steps.imitation_rate, place))


def copy_first(model: ScaleDownModel, records: Sequence[Record], steps: LessonSteps, folder: Path) -> None:
    """Teach the generator to copy from ideal memory."""
    # As many documents as later, so that the generator learns to find the one memory that says the answer.
    lesson = Lesson(num_documents=(1, 2, 3, 5), unanswered_share=0.1)
    lesson_records = records_of(lesson, records, steps.copying_steps, BATCH_SIZE, steps.seed + 10)
    learn(COPYING, model, folder,
          lambda place: learn_to_copy(model, lesson_records, BATCH_SIZE, steps.copying_rate, ANSWER_TOKENS, place))


def train(model: ScaleDownModel, records: Sequence[Record], steps: LessonSteps, folder: Path) -> None:
    """Train ``model`` on passages, on copying, and on documents, each into a folder of its own in ``folder``."""
    planned = {stage.name: stage for stage in stages(records, steps)}
    if PASSAGES in planned:
        train_all([planned[PASSAGES]], model, folder)

    # Also if no documents follow.
    if steps.copying_steps:
        copy_first(model, records, steps, folder)
    if DOCUMENTS in planned:
        train_all([planned[DOCUMENTS]], model, folder)
