"""BM25 by hand, and the order of what it finds."""

from __future__ import annotations

from math import log

import pytest

from scaledown.data.pipeline.retrieval import BM25

TEXTS = ["red fox", "red red hen barn", "blue whale", ""]


def test_scores_are_those_of_the_formula():
    # 4 texts of 2, 4, 2 and 0 words: 2 on average. "red" is in two of them, "fox" in one.
    idf_red, idf_fox = log(1 + (4 - 2 + 0.5) / (2 + 0.5)), log(1 + (4 - 1 + 0.5) / (1 + 0.5))

    def weight(count: int, length: int) -> float:
        return count / (count + 1.5 * (1 - 0.75 + 0.75 * length / 2))

    (first, second, *rest), = BM25(TEXTS).search(["Red fox!"], 4)
    assert first.index == 0 and second.index == 1
    assert first.score == pytest.approx(idf_red * weight(1, 2) + idf_fox * weight(1, 2), rel=1e-5)
    assert second.score == pytest.approx(idf_red * weight(2, 4), rel=1e-5)
    assert [hit.score for hit in rest] == [0, 0]


def test_many_queries_at_once_and_no_more_than_there_is():
    whale, fox, unknown = BM25(TEXTS).search(["whale", "fox", "zebra"], 10)
    assert [hit.index for hit in whale] == [2, 0, 1, 3]
    assert fox[0].index == 0
    assert [(hit.index, hit.score) for hit in unknown] == [(0, 0), (1, 0), (2, 0), (3, 0)]


def test_equal_scores_come_in_the_order_of_the_texts():
    texts = ["same same", "same words", "other words"] * 400
    hits = BM25(texts).search(["same"], 600)[0]
    assert [hit.index for hit in hits] == list(range(0, 1200, 3)) + list(range(1, 600, 3))


@pytest.mark.parametrize("query", ["", "?", "the of a"])
def test_a_query_without_words_scores_nothing(query):
    assert {hit.score for hit in BM25(TEXTS).search([query], 4)[0]} == {0}


def test_an_empty_index_finds_nothing():
    assert BM25([]).search(["red", "blue"], 3) == [[], []]
    assert [hit.score for hit in BM25(["", "?"]).search(["red"], 3)[0]] == [0, 0]
