"""Packing texts that share prefixes: every index by a worked example, and what each token sees."""

from __future__ import annotations

import itertools
import pickle

import pytest
import torch

from scaledown.models.engine.fixed_shapes import fill_texts
from scaledown.models.engine.packing import NEVER, Packing, Padding, TextLists


def example() -> TextLists:
    """The one in the docs of the module: queries q q q and r r, documents d d and d and e, memory tokens 0."""
    return TextLists([[11, 12, 13], [21, 22]], [[31, 32, 0, 0], [41, 0, 0], [51, 0, 0]], [0, 0, 1],
                     [[], [1], [2, 3], [1, 2], [1, 2]])


def seen(packing: Packing, window: int | None = None) -> set[tuple[int, int]]:
    """Every pair of a packed token and a packed one that it sees, by the padded masks."""
    number = packing.prefixes.num_tokens
    prefix_slots, suffix_slots = (_tokens_of_slots(rows) for rows in (packing.prefixes, packing.suffixes))
    pairs = set()
    mask = packing.prefix_mask(packing.prefixes, window, None)[:, 0]
    for row, column, key in mask.nonzero().tolist():
        pairs.add((prefix_slots[row][column], prefix_slots[row][key]))
    mask = packing.suffix_mask(packing.suffixes, window, None)[:, 0]
    width = packing.prefixes.positions.shape[1]
    for row, column, key in mask.nonzero().tolist():
        before = prefix_slots[packing.prefix[row]] if key < width else None
        found = before[key] if before is not None else number + suffix_slots[row][key - width]
        pairs.add((number + suffix_slots[row][column], found))
    return {(token, other) for token, other in pairs if token < len(packing.position)}


def _tokens_of_slots(rows: Padding) -> list[list[int]]:
    """For each slot the number of the token in it; of empty ones a number beyond all."""
    size = rows.positions.numel()
    slots = range(size) if rows.index is None else rows.index.tolist()
    tokens = [10**6] * size
    for token, slot in enumerate(slots):
        tokens[slot] = token
    return torch.tensor(tokens).view_as(rows.positions).tolist()


def test_every_index_of_the_example() -> None:
    texts = example().packed()
    packing = texts.packing
    assert texts.ids.tolist() == [11, 12, 13, 21, 22, 31, 32, 0, 0, 41, 0, 0, 51, 0, 0]
    assert packing.position.tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 6, 3, 4, 5, 2, 3, 4]
    assert packing.prefix.tolist() == [0, 0, 1] and packing.num_prefix_tokens == 5

    assert packing.prefixes.positions.tolist() == [[0, 1, 2], [0, 1, NEVER]]
    assert packing.prefixes.index.tolist() == [0, 1, 2, 3, 4]
    assert packing.suffixes.positions.tolist() == [[3, 4, 5, 6], [3, 4, 5, NEVER], [2, 3, 4, NEVER]]
    assert packing.suffixes.index.tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]
    assert packing.keys_at.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 5, 6, 7, 8, 0, 1, 2, 9, 10, 11, 3, 4, 12, 13, 14]
    assert not packing.has_filler

    assert texts.reads.at.tolist() == [4, 7, 8, 10, 11, 13, 14] and texts.reads.are_last
    assert texts.reads.prefixes.positions.tolist() == [[NEVER], [1]]
    assert texts.reads.prefixes.index.tolist() == [1]
    assert texts.reads.suffixes.positions.tolist() == [[5, 6], [4, 5], [3, 4]] and texts.reads.suffixes.index is None


@pytest.mark.parametrize("window", [None, 1, 2, 4])
def test_a_token_sees_its_prefix_and_its_own_text_up_to_itself(window: int | None) -> None:
    packing = example().packed().packing
    texts = [0] * 3 + [1] * 2 + [2] * 4 + [3] * 3 + [4] * 3
    before, place = {2: 0, 3: 0, 4: 1}, packing.position.tolist()
    wanted = set()
    for token, other in itertools.product(range(15), repeat=2):
        distance = place[token] - place[other]
        is_near = distance >= 0 and (window is None or distance < window)
        if is_near and texts[other] in (texts[token], before.get(texts[token])):
            wanted.add((token, other))
    assert seen(packing, window) == wanted


def test_masks_of_wanted_tokens_are_rows_of_the_whole_ones() -> None:
    texts = example().packed()
    packing, reads = texts.packing, texts.reads
    whole = packing.suffix_mask(packing.suffixes, 3, None)
    some = packing.suffix_mask(reads.suffixes, 3, None)
    for row, places in enumerate(([2, 3], [1, 2], [1, 2])):
        assert some[row, 0].equal(whole[row, 0, places])
    assert packing.prefix_mask(reads.prefixes, None, None)[1, 0].tolist() == [[True, True, False]]


def test_masks_in_numbers_hide_by_the_lowest_and_repeat_for_heads() -> None:
    packing = example().packed().packing
    plain, numbers = (packing.prefix_mask(packing.prefixes, None, dtype) for dtype in (None, torch.bfloat16))
    lowest = torch.finfo(torch.bfloat16).min
    assert numbers.dtype == torch.bfloat16 and numbers.eq(0).equal(plain) and numbers[~plain].eq(lowest).all()
    repeated = packing.suffix_mask(packing.suffixes, None, torch.float32, repeats=3)
    assert repeated.shape == (3, 1, 12, 7) and repeated[:, :, 4:8].equal(repeated[:, :, :4])
    assert packing.suffix_mask(packing.suffixes, None, torch.float32, repeats=3) is repeated  # made once for all layers


def test_rows_pad_and_pack() -> None:
    rows = Padding.of([[0, 1, 2], [], [5]])
    heads = torch.arange(4 * 2 * 3.0).view(4, 2, 3)
    padded = rows.pad(heads)
    assert padded.shape == (3, 2, 3, 3) and rows.num_tokens == 4
    assert padded[0, 1].equal(heads[:3, 1]) and padded[2, :, 0].equal(heads[3]) and not padded[1].any()
    assert rows.pack(padded).equal(heads)
    full = Padding.of([[0, 1], [3, 4]])
    assert full.index is None and full.pack(full.pad(heads)).equal(heads)
    assert Padding.of([]).num_tokens == 0 and Padding.of([[], []]).num_tokens == 0


def test_stored_prefixes_leave_the_suffixes_alone() -> None:
    texts = example()
    texts = TextLists(texts.prefixes, texts.suffixes, texts.prefix, [[], [], *texts.reads[2:]]).packed()
    stored = [(torch.ones(2, 1, 3, 4), torch.ones(2, 1, 3, 4))]
    behind = texts.behind(stored)
    assert behind.ids.equal(texts.ids[5:]) and behind.packing.position.equal(texts.packing.position[5:])
    assert behind.reads.at.tolist() == [2, 3, 5, 6, 8, 9]
    assert behind.packing.stored is stored and behind.packing.num_prefix_tokens == 0
    assert behind.packing.prefixes is texts.packing.prefixes  # whose masks the suffixes still need


def test_filler_is_seen_by_nobody_and_moves_nothing() -> None:
    texts = example()
    grown = fill_texts(texts, 3, 5, 4, 6, num_reads=2).packed()
    packing, number = grown.packing, 3 * 5
    assert packing.has_filler
    assert packing.prefixes.positions.tolist() == [[0, 1, 2, NEVER, NEVER], [0, 1, NEVER, NEVER, NEVER], [NEVER] * 5]
    assert packing.position.tolist()[number:number + 6] == [3, 4, 5, 6, 7, 8]

    plain = texts.packed()
    place = {}
    for row, length in ((0, 3), (1, 2)):
        place |= {5 * row + column: len(place) + column for column in range(length)}
    for row, length in enumerate((4, 3, 3)):
        start = len(place)
        place |= {number + 6 * row + column: start + column for column in range(length)}
    found = {(place[token], place.get(other)) for token, other in seen(packing) if token in place}
    assert found == seen(plain.packing)
    wanted = [place.get(token) for token in grown.reads.at.tolist()]
    assert wanted[:7] == plain.reads.at.tolist()  # the states of dummies come behind those of real texts


def test_wanted_tokens_need_not_be_the_last() -> None:
    lists = TextLists([[1, 2, 3]], [[4, 5, 6]], [0], [[0, 2], [1]])
    texts = lists.packed()
    assert not texts.reads.are_last and texts.reads.at.tolist() == [0, 2, 4]
    assert texts.reads.prefixes.positions.tolist() == [[0, 2]] and texts.reads.suffixes.positions.tolist() == [[4]]


def test_no_texts_at_all() -> None:
    for lists in (TextLists([], [], [], []), TextLists([[1, 2]], [], [], [[]]), TextLists([[]], [[0]], [0], [[], [0]])):
        texts = lists.packed()
        assert len(texts.ids) == lists.num_tokens and len(texts.reads.at) == sum(map(len, lists.reads))


def test_packed_texts_travel_to_a_device_and_to_other_processes() -> None:
    texts = example().packed()
    moved = texts.to("meta")
    assert {moved.ids.device.type, moved.packing.keys_at.device.type, moved.packing.suffixes.index.device.type,
            moved.reads.at.device.type, moved.reads.suffixes.positions.device.type} == {"meta"}
    texts.packing.prefix_mask(texts.packing.prefixes, None, None)
    back = pickle.loads(pickle.dumps(texts))
    assert back.packing.keys_at.equal(texts.packing.keys_at) and back.reads.at.equal(texts.reads.at)
