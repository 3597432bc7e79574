"""A decoder's last layer at a few tokens alone, in any family, with transformers' own layer code.

Of the last layer only the memory positions (or the answer's tokens) are ever used, but its keys and values are needed
of all tokens. So a stand-in takes its place while the decoder runs. It lets the layer go as far as its keys and values,
then runs it for the wanted tokens, which attend to all of these: exact, in outputs and gradients.

On the way to its keys a layer computes queries too, which nobody looks at: 4% of a compressor of 3 layers. Most families
call that map ``q_proj``; while the stand-in is there, it is computed for the wanted tokens alone. A family that makes
queries, keys and values in one product computes all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from scaledown.models.attention import HaveKeysValues
from scaledown.models.packing import Reads


class LastLayer(nn.Module):
    """``layer``, computed for ``reads`` alone; for None only its keys and values are."""

    def __init__(self, layer: nn.Module, reads: Reads | None) -> None:
        super().__init__()
        self.layer, self.reads = layer, reads

    def __getattr__(self, name: str) -> Any:
        """What the decoder's loop asks of its layers, such as ``attention_type``, is the layer's own."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden_states: Tensor, *arguments: Any, position_embeddings: Any = None,
                position_ids: Tensor | None = None, **settings: Any) -> Tensor:
        """States (1, N, D) of all tokens to those (1, M, D) of the wanted ones."""
        try:
            self.layer(hidden_states, *arguments, position_embeddings=position_embeddings, position_ids=position_ids,
                       stop_at_keys=True, **settings)
            raise AssertionError("the last layer's attention does not go through transformers' AttentionInterface")
        except HaveKeysValues as stopped:
            keys_values = stopped.args                                        # of all N tokens
        if self.reads is None:
            return hidden_states

        at = self.reads.at                                                    # (M,)
        # Cosines and sines of the rotary embedding, (1, N, W) each.
        rotary = position_embeddings and tuple(each.index_select(1, at) for each in position_embeddings)
        some_ids = None if position_ids is None else position_ids.index_select(1, at)
        return self.layer(hidden_states.index_select(1, at), *arguments, position_embeddings=rotary,
                          position_ids=some_ids, keys_values=keys_values, reads=self.reads, **settings)


class WantedQueries(nn.Module):
    """``project``, computed for the wanted tokens; others get zeros, which nothing reads.

    What it is called with says which these are: all N tokens of a packing, or the M wanted ones.
    """

    def __init__(self, project: nn.Module, num_wanted: int) -> None:
        super().__init__()
        self.project, self.num_wanted = project, num_wanted

    def forward(self, states: Tensor) -> Tensor:
        """States (1, N or M, D) to queries (1, N or M, H * W)."""
        if states.shape[1] == self.num_wanted:
            return self.project(states)
        # One zero, shown everywhere: no memory is filled.
        return states.new_zeros(1).expand(*states.shape[:-1], self.project.out_features)


@contextmanager
def only(layers: nn.ModuleList, reads: Reads | None) -> Iterator[None]:
    """Within it the last of a decoder's ``layers`` is computed for ``reads`` alone."""
    layer = layers[-1]
    attentions = [module for module in layer.modules() if hasattr(getattr(module, "q_proj", None), "out_features")]
    queries = [module.q_proj for module in attentions]
    num_wanted = 0 if reads is None else len(reads.at)

    layers[-1] = LastLayer(layer, reads)
    for module, project in zip(attentions, queries, strict=True):
        module.q_proj = WantedQueries(project, num_wanted)
    try:
        yield
    finally:
        layers[-1] = layer
        for module, project in zip(attentions, queries, strict=True):
            module.q_proj = project
