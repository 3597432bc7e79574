"""Texts of different lengths packed into one sequence, without padding, where many texts may continue one prefix.

A compressor reads ``[query][document][MEM x L]`` for each of K documents. In a causal model the query's states do not
depend on what follows, so the query is read once, as a *prefix*, and the K documents are *suffixes* that continue it:
each sees its prefix and itself. With ``--input_order document_first`` the document is the prefix and the query the
suffix. Prompts of the generator are prefixes that nothing continues.

    packed tokens   q q q | r r | d d d m m | d d m m | e m m      m: a memory token
    text            0 0 0 | 1 1 | 2 2 2 2 2 | 3 3 3 3 | 4 4 4
    position        0 1 2 | 0 1 | 3 4 5 6 7 | 3 4 5 6 | 2 3 4      counted on from the end of the prefix
    prefix                      |     0     |    0    |   1

Linear maps, norms and experts run on the packed tokens as they are; attention alone needs to know which token belongs
to which text, and pads (:mod:`scaledown.models.attention`). All indices are made on the CPU from the texts' lengths, so
that no step ever waits for a device to tell it a number.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

NEVER = 2**31 - 1
"""The position of padding: behind every token, so that causality alone hides it."""

Ids = Sequence[int]
KeysValues = tuple[Tensor, Tensor]


class Movable:
    """A dataclass whose tensors, and those of its parts, are moved together; what else it holds stays."""

    def to(self, device: torch.device | str) -> Self:
        """Return the same on ``device``."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Return the same in memory that a GPU copies from without anybody waiting; a ``DataLoader`` asks for it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                changed[name] = change(value)
            elif isinstance(value, Movable):
                changed[name] = value._each(change)
        return dataclasses.replace(self, **changed)


@dataclass(frozen=True)
class Rows(Movable):
    """Where packed tokens stand when each text gets a padded row of its own: R rows of T slots.

    Attributes:
        slots: (n,) the slot of each token in the flattened rows (R * T); None if the tokens fill all slots in order, so
            that nothing has to be moved.
        positions: (R, T) the position of each slot in its text; ``NEVER`` if nothing stands there.
    """

    slots: Tensor | None
    positions: Tensor

    @classmethod
    def of(cls, positions: Sequence[Sequence[int]]) -> Rows:
        """Make a row for each text from the positions of its tokens."""
        size = max(map(len, positions), default=0)
        table = torch.full((len(positions), size), NEVER, dtype=torch.long)
        slots: list[int] = []
        for row, of_text in enumerate(positions):
            table[row, :len(of_text)] = torch.tensor(list(of_text), dtype=torch.long)
            slots.extend(range(row * size, row * size + len(of_text)))

        is_full = len(slots) == len(positions) * size
        return cls(None if is_full else torch.tensor(slots, dtype=torch.long), table)

    @property
    def num_tokens(self) -> int:
        """The number of packed tokens n."""
        return self.positions.numel() if self.slots is None else len(self.slots)

    def pad(self, heads: Tensor) -> Tensor:
        """Put packed heads (n, H, W) into their rows: (R, H, T, W), zeros in empty slots."""
        num_rows, size = self.positions.shape
        if self.slots is not None:
            padded = heads.new_zeros(num_rows * size, *heads.shape[1:])
            heads = padded.index_copy(0, self.slots, heads)           # (R * T, H, W)
        return heads.unflatten(0, (num_rows, size)).transpose(1, 2)   # (R, H, T, W)

    def pack(self, padded: Tensor) -> Tensor:
        """Take the tokens out of their rows again: (R, H, T, W) to (n, H, W)."""
        heads = padded.transpose(1, 2).flatten(0, 1)                  # (R * T, H, W)
        return heads if self.slots is None else heads.index_select(0, self.slots)


@dataclass(frozen=True)
class Reads(Movable):
    """The packed tokens whose final states are wanted: the last layer is computed for them alone.

    Attributes:
        at: (M,) their places in the packing, those of prefixes before those of suffixes.
        prefixes: where those of prefixes stand, a row for each prefix.
        suffixes: where those of suffixes stand, a row for each suffix.
        are_last: whether they are the last tokens of their texts.
    """

    at: Tensor
    prefixes: Rows
    suffixes: Rows
    are_last: bool


@dataclass(frozen=True)
class Packing(Movable):
    """Which packed token belongs to which text, what text stands before it, and its position.

    The tokens of all R prefixes come first, then those of all P suffixes.

    Attributes:
        position: (N,) of each token, counted from the start of its prefix.
        prefixes: where the prefixes' tokens stand.
        suffixes: where the suffixes' tokens stand.
        prefix: (P,) for each suffix the number of the prefix that it continues.
        keys_at: (K,) the packed tokens that each text sees, one text after the other: a prefix its own, a suffix those
            of its prefix and then its own.
        has_filler: whether prefixes have tokens behind them that nothing may see.
        stored: keys and values (R, G, T, W) of the prefixes by layer, if they were read before; then suffixes alone are
            packed.
    """

    position: Tensor
    prefixes: Rows
    suffixes: Rows
    prefix: Tensor
    keys_at: Tensor
    has_filler: bool = False
    stored: Sequence[KeysValues] | None = None
    _masks: dict[object, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def num_prefix_tokens(self) -> int:
        """The number of tokens of prefixes that are packed; 0 if their keys and values are stored."""
        return 0 if self.stored is not None else self.prefixes.num_tokens

    def behind(self, stored: Sequence[KeysValues]) -> Packing:
        """Return the packing of the suffixes alone, behind prefixes whose keys and values are at hand."""
        position = self.position[self.prefixes.num_tokens:]
        return dataclasses.replace(self, position=position, stored=stored)

    def prefix_mask(self, rows: Rows, window: int | None, dtype: torch.dtype | None, repeats: int = 1) -> Tensor:
        """Return what the tokens of prefixes in ``rows`` see of their prefix: (R, 1, repeats * T, T1).

        Args:
            rows: all tokens of the prefixes, or some.
            window: how many positions back a token sees, itself included [all].
            dtype: 0 if a token sees another, else the lowest number; None gives True and False.
            repeats: how often the rows stand below one another, for heads that share their keys.
        """
        kind = ("prefixes", rows is self.prefixes)
        return self._mask(kind, rows, self.prefixes.positions, window, dtype, repeats)

    def suffix_mask(self, rows: Rows, window: int | None, dtype: torch.dtype | None, repeats: int = 1) -> Tensor:
        """As :meth:`prefix_mask` for suffixes, of their prefix and themselves: (P, 1, repeats * T, T1 + T2)."""
        before = self.prefixes.positions.index_select(0, self.prefix)
        keys = torch.cat([before, self.suffixes.positions], dim=1)
        return self._mask(("suffixes", rows is self.suffixes), rows, keys, window, dtype, repeats)

    def _mask(self, kind: object, rows: Rows, keys: Tensor, window: int | None, dtype: torch.dtype | None,
              repeats: int) -> Tensor:
        # Made once for all layers of a kind: only the last one reads other tokens than the others do.
        name = (kind, window, dtype, repeats)
        if name in self._masks:
            return self._masks[name]

        distance = rows.positions[:, None, :, None] - keys[:, None, None, :]        # (R, 1, T, S)
        seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        if dtype is not None:
            hidden = torch.finfo(dtype).min
            seen = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, hidden)
        mask = seen.repeat(1, 1, repeats, 1)
        if not torch.compiler.is_compiling():
            # A compiler merges what is computed twice by itself, and lets checkpointed layers keep nothing.
            self._masks[name] = mask
        return mask


@dataclass(frozen=True)
class TextLists:
    """Texts before they are packed, as lists of ids.

    Attributes:
        prefixes: the ids of R texts.
        suffixes: the ids of P texts, each of which continues one of them.
        prefix: for each suffix the number of its prefix.
        reads: for each text, prefixes before suffixes, the places of its wanted tokens.
        prefix_lengths: the length of each prefix; what its ids have behind that is filler that nothing sees [all].
    """

    prefixes: Sequence[Ids]
    suffixes: Sequence[Ids]
    prefix: Sequence[int]
    reads: Sequence[Sequence[int]]
    prefix_lengths: Sequence[int] | None = None

    @property
    def num_tokens(self) -> int:
        """The number of tokens of all texts."""
        return sum(map(len, self.prefixes)) + sum(map(len, self.suffixes))

    def packed(self) -> PackedTexts:
        """Return the texts as tensors."""
        texts, number = [*self.prefixes, *self.suffixes], len(self.prefixes)
        lengths = [len(ids) for ids in self.prefixes] if self.prefix_lengths is None else self.prefix_lengths

        # A suffix's positions go on from the length of its prefix.
        starts = [0] * number + [lengths[prefix] for prefix in self.prefix]
        positions = [range(start, start + len(ids)) for start, ids in zip(starts, texts, strict=True)]
        of_prefixes = [[*range(length), *[NEVER] * (len(ids) - length)]
                       for ids, length in zip(self.prefixes, lengths, strict=True)]

        # A token's place in the packing is its place in its text, counted on from the end of all texts before it.
        offsets = [0, *itertools.accumulate(map(len, texts))][:-1]
        own = [range(offset, offset + len(ids)) for offset, ids in zip(offsets, texts, strict=True)]
        seen = [*own[:number]]
        for prefix, of_suffix in zip(self.prefix, own[number:], strict=True):
            seen.append([*own[prefix], *of_suffix])

        prefix = torch.tensor(self.prefix, dtype=torch.long)
        has_filler = any(NEVER in of_text for of_text in of_prefixes)
        packing = Packing(_flat(positions), Rows.of(of_prefixes), Rows.of(positions[number:]), prefix, _flat(seen),
                          has_filler)
        return PackedTexts(_flat(texts), packing, _reads(self.reads, positions, own, number))


@dataclass(frozen=True)
class PackedTexts(Movable):
    """Packed token ids and what of them is wanted: what a compressor or a generator reads.

    Attributes:
        ids: (N,) token ids; below 0 are placeholders, whose embeddings come from elsewhere.
        packing: which of them belong together.
        reads: the tokens whose final states are wanted.
    """

    ids: Tensor
    packing: Packing
    reads: Reads

    def behind(self, stored: Sequence[KeysValues]) -> PackedTexts:
        """Return the suffixes alone, behind prefixes whose keys and values are at hand; only suffixes may be wanted."""
        number = self.packing.prefixes.num_tokens
        reads = dataclasses.replace(self.reads, at=self.reads.at - number)
        return PackedTexts(self.ids[number:], self.packing.behind(stored), reads)


def moved(batch: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    """Return a batch on ``device``: its tensors and packed texts; numbers stay what they are."""
    return {name: value.to(device) if isinstance(value, Tensor | Movable) else value for name, value in batch.items()}


def _reads(reads: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], own: Sequence[Sequence[int]],
           num_prefixes: int) -> Reads:
    at, wanted, are_last = [], [], True
    for places, of_text, in_packing in zip(reads, positions, own, strict=True):
        at.append([in_packing[place] for place in places])
        wanted.append([of_text[place] for place in places])
        are_last = are_last and list(places) == list(range(len(of_text) - len(places), len(of_text)))
    return Reads(_flat(at), Rows.of(wanted[:num_prefixes]), Rows.of(wanted[num_prefixes:]), are_last)


def _flat(texts: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor(list(itertools.chain.from_iterable(texts)), dtype=torch.long)
