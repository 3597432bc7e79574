"""The most bytes of tensors that live at one time, counted instead of read off an allocator: the same in every run.

Counted is the storage of each tensor that an operation of PyTorch returns, once however many tensors share it, from
that operation until the last of them is gone; and that of the tensors given at the start. Gradients, the optimizer's
state and what autograd keeps for the backward pass are among them. Left out is what one kernel allocates and frees
within itself, such as the workspace of a matrix product.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Counts within its context: ``now`` bytes live, ``most`` lived at one time.

    Args:
        tensors: those that live already, such as a model's parameters.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.most = 0
        self._sizes: dict[int, int] = {}
        self._add(tuple(tensors))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self._add(result)
        return result

    def _add(self, result: Any) -> None:
        if isinstance(result, (tuple, list)):
            for part in result:
                self._add(part)
        if not isinstance(result, Tensor):
            return

        # Python's object of a storage lives as long as the storage itself, whichever tensors hold that.
        storage = result.untyped_storage()
        key = id(storage)
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.now -= self._sizes.pop(key)
