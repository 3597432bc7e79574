"""The generator with its adapter folded in, as a plain model of transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from scaledown.config import ScaleDownConfig
from scaledown.models import checkpoint, loading
from scaledown.models.generator import Generator, with_adapter
from scaledown.models.parameters import trained


def merged(config: ScaleDownConfig, trained_generator: Generator, dtype: torch.dtype, stop_ids: list[int],
           tokenizer: PreTrainedTokenizerBase, folder: Path | str | None) -> PreTrainedModel:
    """Return the base with the adapter of ``trained_generator``; see :meth:`ScaleDownModel.merge`."""
    # Not a Generator: what it changes in its base has no place in a plain model.
    model = with_adapter(config, loading.load_base(config, dtype))
    weights = trained(trained_generator.language_model)
    with torch.no_grad():
        for name, parameter in trained(model).items():
            parameter.copy_(weights[name])
    plain = model.merge_and_unload().requires_grad_(False).eval()

    # Greedy, and nothing else: a model's own penalties and temperatures would give other answers than this one's.
    pad_id = stop_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    plain.generation_config = GenerationConfig(do_sample=False, eos_token_id=stop_ids, pad_token_id=pad_id)
    if folder is not None:
        with checkpoint.whole_folder(Path(folder)) as draft:
            plain.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
    return plain
