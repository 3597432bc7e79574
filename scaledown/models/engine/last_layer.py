"""A decoder's last layer, computed for a few tokens alone, in any family, with transformers' own layer code.

Of the last layer only the memory positions (or the answer's tokens) are ever used, but its keys and values are needed
of all tokens. So a stand-in replaces it while the decoder runs. It runs the layer up to its keys and values, then once
more for the wanted tokens, which attend to all of these: exact, in outputs and gradients.

On the way to its keys a layer computes queries too, which nobody uses: 4% of a compressor of 3 layers. Most families
call that map ``q_proj``; while the stand-in is there, it is computed for the wanted tokens alone. A family that makes
queries, keys and values in one product computes all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from scaledown.models.engine.attention import HaveKeysValues
from scaledown.models.engine.packing import Reads


class LastLayer(nn.Module):
    """``layer``, computed for ``reads`` alone; if that is None, only its keys and values are computed."""

    def __init__(self, layer: nn.Module, reads: Reads | None) -> None:
        super().__init__()
        self.layer, self.reads = layer, reads

    def __getattr__(self, name: str) -> Any:
        """Return the layer's own attributes, such as ``attention_type``, which the decoder's loop reads."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden_states: Tensor, *arguments: Any, position_embeddings: Any = None,
                position_ids: Tensor | None = None, **settings: Any) -> Tensor:
        """Map the states (1, N, D) of all tokens to those (1, M, D) of the wanted ones."""
        # First as far as the keys and values of all tokens.
        try:
            self.layer(hidden_states, *arguments, position_embeddings=position_embeddings, position_ids=position_ids,
                       stop_at_keys=True, **settings)
            raise AssertionError("the last layer's attention does not go through transformers' AttentionInterface")
        except HaveKeysValues as stopped:
            keys_values = stopped.args                                    # of all N tokens

        if self.reads is None:
            return hidden_states

        # Then the whole layer, with everything that it gets by token cut to the wanted tokens.
        at = self.reads.at                                                # (M,)
        wanted_states = hidden_states.index_select(1, at)                 # (1, M, D)
        wanted_ids = None if position_ids is None else position_ids.index_select(1, at)
        # Cosines and sines of the rotary embedding, (1, N, W) each.
        rotary = position_embeddings and tuple(table.index_select(1, at) for table in position_embeddings)
        return self.layer(wanted_states, *arguments, position_embeddings=rotary, position_ids=wanted_ids,
                          keys_values=keys_values, reads=self.reads, **settings)


class WantedQueries(nn.Module):
    """``project``, computed for the wanted tokens; others get zeros, which nothing reads.

    The number of tokens tells them apart: all N of a packing, or the M wanted ones.
    """

    def __init__(self, project: nn.Module, num_wanted: int) -> None:
        super().__init__()
        self.project, self.num_wanted = project, num_wanted

    def forward(self, states: Tensor) -> Tensor:
        """Map states (1, N or M, D) to queries (1, N or M, H * W)."""
        if states.shape[1] == self.num_wanted:
            return self.project(states)
        # One zero, expanded: no memory is filled.
        return states.new_zeros(1).expand(*states.shape[:-1], self.project.out_features)


@contextmanager
def only(layers: nn.ModuleList, reads: Reads | None) -> Iterator[None]:
    """Compute the last of a decoder's ``layers`` for ``reads`` alone, within this context."""
    layer = layers[-1]
    # peft's LoRA on a linear map has its sizes, too.
    attentions = [module for module in layer.modules() if hasattr(getattr(module, "q_proj", None), "out_features")]
    projections = [module.q_proj for module in attentions]
    num_wanted = 0 if reads is None else len(reads.at)

    layers[-1] = LastLayer(layer, reads)
    for module, project in zip(attentions, projections, strict=True):
        module.q_proj = WantedQueries(project, num_wanted)
    try:
        yield
    finally:
        layers[-1] = layer
        for module, project in zip(attentions, projections, strict=True):
            module.q_proj = project
