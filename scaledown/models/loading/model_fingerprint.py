"""A fingerprint of a model's trained weights and settings: what it has compressed or read belongs to these alone.

The number format and the device do not count, nor does the place of the generator's files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from scaledown.config import ScaleDownConfig
from scaledown.models.loading.parameters import trained

if TYPE_CHECKING:
    from scaledown.models.model import ScaleDownModel

NOT_COMPARED = {"generator_model", "generator_revision", "compressor_model", "compressor_revision", "keep_threshold",
                "expand_threshold", "load_in_4bit", "load_in_8bit", "trust_remote_code"}
"""Settings that say where files are, how they are held, or which documents are chosen later."""
SAMPLED_NUMBERS = 64
HASH_DIGITS = 16


class _Known(NamedTuple):
    """A fingerprint, and the state of the model that it was computed from.

    Attributes:
        settings: the model's.
        weights: each trained weight, with the number of times that it was changed in place.
        fingerprint: of both.
    """

    settings: ScaleDownConfig
    weights: list[tuple[ReferenceType[Tensor], int]]
    fingerprint: str

    def holds(self, model: ScaleDownModel) -> bool:
        """Return whether no setting and no weight has changed since; it costs no look at the weights' numbers."""
        if self.settings != model.config:
            return False
        # torch counts in _version the changes of a tensor in place, which those of an optimizer are.
        for reference, version in self.weights:
            weight = reference()
            if weight is None or weight._version != version:
                return False
        return True


_known: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def fingerprint(model: ScaleDownModel) -> str:
    """Return the fingerprint of a model. It is computed once, and again when a weight or a setting has changed.

    A model whose adapters were folded in has no trained weights any more: it and its copies keep what it was before.
    """
    if model.folded_fingerprint is not None:
        return model.folded_fingerprint
    known = _known.get(model)
    if known is None or not known.holds(model):
        # Not the weights themselves, which would then outlive the model.
        weights = [(ref(weight), weight._version) for weight in trained(model).values()]
        known = _known[model] = _Known(model.config, weights, _computed(model))
    return known.fingerprint


@torch.no_grad()
def _computed(model: ScaleDownModel) -> str:
    settings = {name: value for name, value in dataclasses.asdict(model.config).items() if name not in NOT_COMPARED}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())

    # Training changes all numbers of a tensor, so a few are enough, and a model of any size is read in moments.
    for name, weight in sorted(trained(model).items()):
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        for sample in _samples(weight):
            digest.update(sample.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:HASH_DIGITS]


def _samples(weight: Tensor) -> list[Tensor]:
    """Return numbers from the start, the middle and the end of a tensor."""
    flat = weight.flatten()
    middle = max(0, (len(flat) - SAMPLED_NUMBERS) // 2)
    return [flat[:SAMPLED_NUMBERS], flat[middle:middle + SAMPLED_NUMBERS], flat[-SAMPLED_NUMBERS:]]
