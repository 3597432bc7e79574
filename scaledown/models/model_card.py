"""A checkpoint's ``README.md``: on what it stands, what was trained, and how far."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCardData

from scaledown.config import EMBEDDED, ScaleDownConfig
from scaledown.models.progress import Progress

FILE = "README.md"
USE = """```python
from scaledown import ScaleDownModel

model = ScaleDownModel.from_pretrained("THIS FOLDER OR HUB ID")
model.answer(questions=["..."], documents=[["...", "..."]])
```"""


def save(config: ScaleDownConfig, progress: Progress, num_trained: int, folder: Path) -> None:
    """Write the card of a checkpoint into ``folder``.

    Args:
        config: the model's, with all revisions.
        progress: how far it was trained.
        num_trained: weights that training changes, which are those in the checkpoint.
    """
    (folder / FILE).write_text(card(config, progress, num_trained), encoding="utf-8")


def card(config: ScaleDownConfig, progress: Progress, num_trained: int) -> str:
    """The card's text. No licence is named: whoever publishes the checkpoint knows it."""
    # A local folder or the generator that ships is no model of the Hub, which its page could link to.
    base_model = config.generator_model if config.generator_revision else None
    header = ModelCardData(library_name="scaledown", base_model=base_model).to_yaml()
    lines = [f"- Generator: {_named(config.generator_model, config.generator_revision)}; its weights are not in here.",
             f"- Compressor: {_compressor(config)}.",
             f"- A document of up to {config.document_tokens} tokens becomes {config.num_memory_tokens} embeddings.",
             f"- Trained: {_trained(config)}; {num_trained:,} weights.",
             f"- Steps: {_number(progress.num_steps)}."]
    if config.enable_reranking:
        lines.append(f"- Scores that the reranking head has seen: {_number(progress.num_scores)}.")
        if warning := progress.warning():
            lines.append(f"- Note: {warning}.")
    facts = "\n".join(lines)
    return "\n\n".join((f"---\n{header}\n---", "# A ScaleDown checkpoint",
                        "It compresses documents with their question, and answers from what is left of them.", facts,
                        USE, "The generator has a licence of its own; this card names none for the checkpoint.")) + "\n"


def _named(name: str, revision: str | None) -> str:
    if name == EMBEDDED:
        return "the one that ships with ScaleDown"
    return f"`{name}`" + (f" at `{revision}`" if revision else ", a local folder")


def _compressor(config: ScaleDownConfig) -> str:
    if config.compressor_type == "n_layers":
        return f"`n_layers`, a copy of the generator's first {config.num_layers} layers"
    if config.compressor_type == "modernbert" and config.compressor_model == EMBEDDED:
        return "`modernbert`, an encoder made from the generator's first layers"
    return f"`{config.compressor_type}`, made from {_named(config.compressor_model, config.compressor_revision)}"


def _trained(config: ScaleDownConfig) -> str:
    head = " with its reranking head" * config.enable_reranking
    return f"the compressor{head}, and a LoRA adapter of rank {config.lora_rank} of the generator"


def _number(number: int | None) -> str:
    return "not known (the checkpoint that it started from did not say)" if number is None else f"{number:,}"
