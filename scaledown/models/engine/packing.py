"""Texts of different lengths packed into one sequence, without padding; many texts may continue one prefix.

A compressor reads ``[query][document][MEM x L]`` for each of K documents. In a causal model the query's states do not
depend on what follows, so the query is read once, as a *prefix*, and the K documents are *suffixes* that continue it:
each sees its prefix and itself. With ``--input_order document_first`` the document is the prefix and the query the
suffix. Prompts of the generator are prefixes that nothing continues.

    packed tokens   q q q | r r | d d d m m | d d m m | e m m      m: a memory token
    text            0 0 0 | 1 1 | 2 2 2 2 2 | 3 3 3 3 | 4 4 4
    position        0 1 2 | 0 1 | 3 4 5 6 7 | 3 4 5 6 | 2 3 4      counted on from the end of the prefix
    prefix                      |     0     |    0    |   1

Linear maps, norms and experts run on the packed tokens as they are. Attention alone needs to know which token belongs
to which text, and pads (:mod:`scaledown.models.engine.attention`). All indices are computed on the CPU from the lengths
of the texts, so that no step ever waits for a device to report a number.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scaledown.models.engine.moving import Movable

NEVER = 2**31 - 1
"""The position of padding: behind every token, so that causality alone hides it."""

Ids = Sequence[int]
KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Padding(Movable):
    """The padded form of some packed tokens: R texts, each padded to the longest, T.

    Attributes:
        index: (n,) the place of each token in the flattened padded texts (R * T); None if the texts are equally long,
            so that nothing has to be moved.
        positions: (R, T) the position of each padded token in its text; ``NEVER`` for padding.
    """

    index: Tensor | None
    positions: Tensor

    @classmethod
    def of(cls, positions: Sequence[Sequence[int]]) -> Padding:
        """Pad texts, each given by the positions of its tokens."""
        longest = max(map(len, positions), default=0)
        table = torch.full((len(positions), longest), NEVER, dtype=torch.long)            # (R, T)
        index: list[int] = []
        for text, of_text in enumerate(positions):
            table[text, :len(of_text)] = torch.tensor(list(of_text), dtype=torch.long)
            # Text r begins at r * T of the flattened padded texts.
            index.extend(range(text * longest, text * longest + len(of_text)))

        has_padding = len(index) < len(positions) * longest
        return cls(torch.tensor(index, dtype=torch.long) if has_padding else None, table)

    @property
    def num_tokens(self) -> int:
        """The number of packed tokens n."""
        return self.positions.numel() if self.index is None else len(self.index)

    def pad(self, heads: Tensor) -> Tensor:
        """Pad packed heads: (n, H, W) to (R, H, T, W), zeros for padding."""
        num_texts, longest = self.positions.shape
        if self.index is not None:
            padded = heads.new_zeros(num_texts * longest, *heads.shape[1:])
            heads = padded.index_copy(0, self.index, heads)               # (R * T, H, W)
        return heads.unflatten(0, (num_texts, longest)).transpose(1, 2)   # (R, H, T, W)

    def pack(self, padded: Tensor) -> Tensor:
        """Drop the padding again: (R, H, T, W) to (n, H, W)."""
        heads = padded.transpose(1, 2).flatten(0, 1)                      # (R * T, H, W)
        return heads if self.index is None else heads.index_select(0, self.index)


@dataclass(frozen=True)
class Reads(Movable):
    """The packed tokens whose final states are wanted: the last layer is computed for these alone.

    Attributes:
        at: (M,) their places in the packing, those of prefixes before those of suffixes.
        prefixes: the padded form of those in prefixes.
        suffixes: the padded form of those in suffixes.
        are_last: whether they are the last tokens of their texts.
    """

    at: Tensor
    prefixes: Padding
    suffixes: Padding
    are_last: bool


@dataclass(frozen=True)
class Packing(Movable):
    """Which packed token belongs to which text, what text precedes it, and its position.

    The tokens of all R prefixes come first, then those of all P suffixes.

    Attributes:
        position: (N,) of each token, counted from the start of its prefix.
        prefixes: the padded form of the prefixes' tokens.
        suffixes: the padded form of the suffixes' tokens.
        prefix: (P,) for each suffix the number of the prefix that it continues.
        keys_at: (K,) the packed tokens that each text sees, one text after the other: a prefix its own, a suffix those
            of its prefix and then its own.
        has_filler: whether prefixes end in tokens that nothing may see (batches of a fixed shape).
        stored: keys and values (R, G, T, W) of the prefixes by layer, if they were read before; then only suffixes are
            packed.
    """

    position: Tensor
    prefixes: Padding
    suffixes: Padding
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
        """Return the packing of the suffixes alone, for prefixes whose keys and values are stored."""
        position = self.position[self.prefixes.num_tokens:]
        return dataclasses.replace(self, position=position, stored=stored)

    def stored_of(self, layer: int, key: Tensor, value: Tensor) -> KeysValues:
        """Return the stored keys and values (R, G, T, W) of a layer, in the number formats of its own ones.

        A store may hold fewer bits than the layer computes with.
        """
        stored_key, stored_value = self.stored[layer]
        return stored_key.to(key.dtype), stored_value.to(value.dtype)

    def prefix_mask(self, queries: Padding, window: int | None, dtype: torch.dtype | None, repeats: int = 1) -> Tensor:
        """Return what tokens of prefixes see of their prefix: (R, 1, repeats * T, T1).

        Args:
            queries: all tokens of the prefixes, or some.
            window: how many positions back a token sees, itself included [all].
            dtype: 0 if a token sees another, else the lowest number; None gives True and False.
            repeats: how often the queries are stacked, for heads that share their keys.
        """
        kind = ("prefixes", queries is self.prefixes)
        return self._mask(kind, queries, self.prefixes.positions, window, dtype, repeats)

    def suffix_mask(self, queries: Padding, window: int | None, dtype: torch.dtype | None, repeats: int = 1) -> Tensor:
        """As :meth:`prefix_mask` for suffixes, of their prefix and themselves: (P, 1, repeats * T, T1 + T2)."""
        before = self.prefixes.positions.index_select(0, self.prefix)                     # (P, T1)
        keys = torch.cat([before, self.suffixes.positions], dim=1)                        # (P, T1 + T2)
        return self._mask(("suffixes", queries is self.suffixes), queries, keys, window, dtype, repeats)

    def _mask(self, kind: object, queries: Padding, keys: Tensor, window: int | None, dtype: torch.dtype | None,
              repeats: int) -> Tensor:
        # Built once for all layers of a kind: only the last one has other queries than the layers before it.
        name = (kind, window, dtype, repeats)
        if name in self._masks:
            return self._masks[name]

        # Causal and within the window. NEVER is so far ahead that no token sees padding.
        distance = queries.positions[:, None, :, None] - keys[:, None, None, :]           # (R, 1, T, S)
        is_seen = distance >= 0
        if window is not None:
            is_seen &= distance < window

        mask = is_seen
        if dtype is not None:
            mask = torch.zeros(is_seen.shape, dtype=dtype, device=is_seen.device)
            mask.masked_fill_(~is_seen, torch.finfo(dtype).min)
        mask = mask.repeat(1, 1, repeats, 1)

        if not torch.compiler.is_compiling():
            # A compiler merges equal computations by itself, and keeps nothing for checkpointed layers.
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
        prefix_lengths: the length of each prefix; ids beyond it are filler that nothing sees [all].
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

    def parts(self, size: int) -> Iterator[TextLists]:
        """Yield ``size`` suffixes at a time with the prefixes that they continue, or prefixes if nothing continues any.

        Texts that fit are yielded as they are, also if there are none.
        """
        num_prefixes, num_texts = len(self.prefixes), len(self.suffixes) or len(self.prefixes)
        if num_texts <= size:
            yield self
            return

        for start in range(0, num_texts, size):
            part = slice(start, start + size)
            if not self.suffixes:
                yield TextLists(self.prefixes[part], [], [], self.reads[part])
                continue

            # Prefixes are numbered anew, in the order in which these suffixes first name them.
            needed = list(dict.fromkeys(self.prefix[part]))
            numbers = {prefix: number for number, prefix in enumerate(needed)}
            reads = [self.reads[prefix] for prefix in needed]
            reads += self.reads[num_prefixes:][part]
            yield TextLists([self.prefixes[prefix] for prefix in needed], self.suffixes[part],
                            [numbers[prefix] for prefix in self.prefix[part]], reads)

    def packed(self) -> PackedTexts:
        """Return the texts as tensors."""
        texts, num_prefixes = [*self.prefixes, *self.suffixes], len(self.prefixes)
        lengths = [len(ids) for ids in self.prefixes] if self.prefix_lengths is None else self.prefix_lengths

        # The positions of a suffix continue those of its prefix.
        starts = [0] * num_prefixes + [lengths[prefix] for prefix in self.prefix]
        positions = [range(start, start + len(ids)) for start, ids in zip(starts, texts, strict=True)]

        # Filler gets a position behind every token, as padding does.
        prefix_positions = []
        for ids, length in zip(self.prefixes, lengths, strict=True):
            prefix_positions.append([*range(length), *[NEVER] * (len(ids) - length)])
        has_filler = any(NEVER in of_text for of_text in prefix_positions)

        # A token's place in the packing is its place in its text plus the lengths of all texts before it.
        offsets = [0, *itertools.accumulate(map(len, texts))][:-1]
        places = [range(offset, offset + len(ids)) for offset, ids in zip(offsets, texts, strict=True)]

        # A prefix sees itself; a suffix sees its prefix and itself.
        keys_at = [*places[:num_prefixes]]
        for prefix, of_suffix in zip(self.prefix, places[num_prefixes:], strict=True):
            keys_at.append([*places[prefix], *of_suffix])

        suffix_padding = Padding.of(positions[num_prefixes:])
        prefix_of_suffix = torch.tensor(self.prefix, dtype=torch.long)
        packing = Packing(_flat(positions), Padding.of(prefix_positions), suffix_padding, prefix_of_suffix,
                          _flat(keys_at), has_filler)
        return PackedTexts(_flat(texts), packing, self._wanted(positions, places))

    def _wanted(self, positions: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> Reads:
        at, wanted_positions, are_last = [], [], True
        for wanted, of_text, in_packing in zip(self.reads, positions, places, strict=True):
            at.append([in_packing[place] for place in wanted])
            wanted_positions.append([of_text[place] for place in wanted])
            are_last = are_last and list(wanted) == list(range(len(of_text) - len(wanted), len(of_text)))

        num_prefixes = len(self.prefixes)
        of_prefixes, of_suffixes = wanted_positions[:num_prefixes], wanted_positions[num_prefixes:]
        return Reads(_flat(at), Padding.of(of_prefixes), Padding.of(of_suffixes), are_last)


@dataclass(frozen=True)
class PackedTexts(Movable):
    """Packed token ids and which of their states are wanted: the input of a compressor or a generator.

    Attributes:
        ids: (N,) token ids; those below 0 are placeholders, whose embeddings come from elsewhere.
        packing: which of them belong together.
        reads: the tokens whose final states are wanted.
    """

    ids: Tensor
    packing: Packing
    reads: Reads

    def behind(self, stored: Sequence[KeysValues]) -> PackedTexts:
        """Return the suffixes alone, for prefixes whose keys and values are stored; only suffixes may be wanted."""
        num_prefix_tokens = self.packing.prefixes.num_tokens
        reads = dataclasses.replace(self.reads, at=self.reads.at - num_prefix_tokens)
        return PackedTexts(self.ids[num_prefix_tokens:], self.packing.behind(stored), reads)


def _flat(texts: Sequence[Sequence[int]]) -> Tensor:
    """Return the numbers of all texts, one text after the other: (N,)."""
    return torch.tensor(list(itertools.chain.from_iterable(texts)), dtype=torch.long)
