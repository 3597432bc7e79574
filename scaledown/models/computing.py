"""A model as a module of torch: where it computes, in which number format, and for one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn

from scaledown.models.compressors.base import Compressor
from scaledown.models.compressors.no_compressor import NoCompressor
from scaledown.models.engine import attention
from scaledown.models.engine.folding import fold
from scaledown.models.generator import Generator
from scaledown.models.loading.model_fingerprint import fingerprint
from scaledown.models.loading.placement import DTYPES


class ComputingModule(nn.Module):
    """The compressor and the generator of a model, and how they compute.

    What is trained stays in float32 whatever the number format is: the generator's frozen base is held in ``dtype``,
    and autocast computes in it.

    Attributes:
        dtype: of the generator's base and of the arithmetic.
        only_answers: whether :meth:`for_answering` has folded the adapters in.
        folded_fingerprint: what the model was before that, for itself and its copies; None until then.
    """

    compressor: Compressor | NoCompressor
    generator: Generator

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.only_answers = dtype, False
        self.folded_fingerprint: str | None = None
        self._one_at_a_time = threading.RLock()

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.generator.separator_row.device

    def to(self, *places: Any, **settings: Any) -> Self:
        """Move the model to a device, or let it compute in another number format, as torch's ``to``.

        In its first number format or a coarser one it then answers as one that :meth:`ScaleDownModel.from_pretrained`
        loaded with that ``device`` and ``dtype``. What was rounded before stays rounded: ``bfloat16()`` and then
        ``float()`` computes in float32 with bfloat16's weights.

        Raises:
            ValueError: for a number format that it cannot compute in, or a base in 4 or 8 bits.
        """
        # A tensor stands for its device and its number format.
        if len(places) == 1 and isinstance(places[0], Tensor):
            places = (places[0].device, places[0].dtype)
        dtype = next((place for place in places if isinstance(place, torch.dtype)), settings.pop("dtype", None))
        others = [place for place in places if not isinstance(place, torch.dtype)]

        if dtype is not None:
            self._compute_in(dtype)
        if others or settings:
            self._check_movable(others[0] if others else settings.get("device"))
            super().to(*others, **settings)
            attention.prepare(self.device)
        return self

    def cuda(self, device: torch.device | int | None = None) -> Self:
        """Move the model to a GPU [the current one]."""
        return self.to("cuda" if device is None else device)

    def cpu(self) -> Self:
        """Move the model to the CPU."""
        return self.to("cpu")

    def float(self) -> Self:
        """Compute in float32; weights that were rounded stay so."""
        return self.to(torch.float32)

    def half(self) -> Self:
        """Compute in float16."""
        return self.to(torch.float16)

    def bfloat16(self) -> Self:
        """Compute in bfloat16."""
        return self.to(torch.bfloat16)

    def double(self) -> Self:
        """Refuse: there is no autocast to float64."""
        return self.to(torch.float64)

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Return the number of weights of compressor and generator, or of those that training changes.

        As with transformers' models, each weight counts once, however many modules share it, and one held in 4 bits
        counts as one. Embeddings and the adapters' own weights are included.
        """
        # Frozen weights that the compressor shares with the generator count once.
        of_base = {id(weight) for weight in self.generator.base.parameters()}
        own = [weight for weight in self.compressor.parameters() if id(weight) not in of_base]
        own.append(self.generator.separator_row)
        counted = sum(weight.numel() for weight in own if weight.requires_grad or not only_trainable)
        # A base in 4 bits holds two weights in each number: transformers knows.
        return counted + self.generator.base.num_parameters(only_trainable)

    def for_answering(self) -> Self:
        """Let the model answer faster and do nothing else: fold its adapters in, and hold all weights in ``dtype``.

        It gives the same answers, up to rounding. Its full text baseline without the adapter, training and saving need
        the checkpoint loaded again.

        Raises:
            ValueError: if its base is held in 4 or 8 bits.
        """
        if self._is_quantised:
            raise ValueError("an adapter cannot be folded into a generator in 4 or 8 bits: load the model again "
                             "without load_in_4bit and load_in_8bit")
        if not self.only_answers:
            # What other models and this one have compressed and read stays usable: it keeps its fingerprint.
            self.folded_fingerprint = fingerprint(self)
            fold(self.generator, self.compressor, self.dtype)
            self.generator.is_folded = True
            self.eval()
        self.only_answers = True
        return self

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Disable gradients and dropout within this context, also during training; one thread at a time.

        Adapters and the mode are switched in the model itself, and tokenizers hold settings of their last call, so a
        second thread waits here until the first has left.
        """
        with self._one_at_a_time:
            # Contexts may lie in one another: only the outermost finds the model in training.
            was_training = self.training
            if was_training:
                self.eval()
            try:
                with torch.no_grad(), self._autocast():
                    yield
            finally:
                if was_training:
                    self.train()

    def _autocast(self) -> Any:
        if self.only_answers or self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _check_whole(self) -> None:
        """Refuse what needs the adapters as they were trained."""
        if self.only_answers:
            raise ValueError("for_answering() has folded this model's adapters in: load its checkpoint again to train, "
                             "save or merge it")

    def _compute_in(self, dtype: torch.dtype) -> None:
        """Hold the base in ``dtype`` and compute in it.

        Raises:
            ValueError: if it is no format for arithmetic, or the base is held in 4 or 8 bits.
        """
        if dtype not in DTYPES.values():
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {str(dtype).removeprefix('torch.')}")
        if dtype == self.dtype:
            return
        if self._is_quantised:
            raise ValueError("a generator in 4 or 8 bits cannot be cast to another dtype: load the model again with "
                             "from_pretrained(..., dtype=...)")

        # Not module.to, which would also round what is trained, and the rotary frequencies.
        for weight in self.parameters():
            if not weight.requires_grad and weight.is_floating_point():
                weight.data = weight.data.to(dtype)
        self.dtype = dtype

    def _check_movable(self, device: Any) -> None:
        """Refuse to move a base in 4 or 8 bits to another kind of device than that on which it was quantised."""
        if device is None or not self._is_quantised:
            return
        # A number is a GPU's.
        kind = "cuda" if isinstance(device, int) else torch.device(device).type
        own = self.generator.base.get_input_embeddings().weight.device.type
        if kind != own:
            raise ValueError(f"a generator in 4 or 8 bits cannot move from {own} to {kind}: load the model again with "
                             f"from_pretrained(..., device={str(device)!r})")

    @property
    def _is_quantised(self) -> bool:
        return getattr(self.generator.base, "is_quantized", False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock out, which can be neither copied nor pickled: a copy gets its own."""
        return {name: value for name, value in super().__getstate__().items() if name != "_one_at_a_time"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._one_at_a_time = threading.RLock()
