"""The generator for other engines: with its adapter folded in, or the adapter by itself, to lie on the base."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from scaledown.config import ScaleDownConfig
from scaledown.files import make_folder
from scaledown.hub.model_places import relative_to
from scaledown.models.generator import Generator, with_adapter
from scaledown.models.loading import checkpoint, pretrained
from scaledown.models.loading.parameters import trained


def merged(config: ScaleDownConfig, trained_generator: Generator, dtype: torch.dtype, stop_ids: list[int],
           tokenizer: PreTrainedTokenizerBase, folder: Path | str | None) -> PreTrainedModel:
    """Return the base with the adapter of ``trained_generator`` folded in; see :meth:`ScaleDownModel.merge`.

    Args:
        config: the model's settings.
        trained_generator: it stays as it is; the result is made from a new copy of the base.
        dtype: of the merged weights.
        stop_ids: the tokens that end an answer.
        tokenizer: the generator's.
        folder: if given, the model and its tokenizer are also written there.

    Raises:
        ValueError: if the folder holds a model, the base cannot be read, or the disk is full.
    """
    # Refused before the base is loaded, which takes long.
    if folder is not None:
        checkpoint.check_target(Path(folder))
        make_folder(Path(folder), "folder")

    # A new base with a new adapter. Not a Generator, which changes its base's attention and head.
    model = with_adapter(config, pretrained.load_base(config, dtype))

    # Both have the same adapter's parameters, by the same names.
    weights = trained(trained_generator.language_model)
    with torch.no_grad():
        for name, parameter in trained(model).items():
            parameter.copy_(weights[name])
    plain = model.merge_and_unload().requires_grad_(False).eval()

    plain.generation_config = greedy_decoding(stop_ids, tokenizer)

    if folder is not None:
        with checkpoint.whole_folder(Path(folder)) as draft:
            plain.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
    return plain


def write_adapter(config: ScaleDownConfig, trained_generator: Generator, stop_ids: list[int],
                  tokenizer: PreTrainedTokenizerBase, folder: Path | str) -> None:
    """Write the adapter as peft does, and beside it how answers are decoded; see :meth:`ScaleDownModel.save_adapter`.

    The embedding that separates documents is not in it: like memory, it comes with the prompt.
    """
    # As a checkpoint there would name it: the folders of a machine are nobody's business.
    name = relative_to(Path(folder), config).generator_model
    for adapter in trained_generator.language_model.peft_config.values():
        adapter.base_model_name_or_path = name

    with checkpoint.whole_folder(Path(folder)) as draft:
        # Token embeddings are not trained, and to find that out peft would ask the Hub.
        trained_generator.language_model.save_pretrained(draft, save_embedding_layers=False)
        greedy_decoding(stop_ids, tokenizer).save_pretrained(draft)


def greedy_decoding(stop_ids: list[int], tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Return plain greedy decoding: the base's own penalties and temperatures would change the answers."""
    pad_id = stop_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return GenerationConfig(do_sample=False, eos_token_id=stop_ids, pad_token_id=pad_id)
