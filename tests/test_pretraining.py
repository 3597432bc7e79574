from __future__ import annotations

import pytest

from scaledown.training.pretraining import CLEAR_WORDS, CONTINUE, REPEAT, pretraining_records

TEXTS = [" ".join(f"w{number}" for number in range(80)), "too short"]


def test_repeating_gives_back_a_span_of_the_text():
    for record in pretraining_records(TEXTS, 50, auto_encoding_share=1.0):
        assert record.query == REPEAT
        assert record.documents == (record.answer,)
        assert f" {record.answer} " in f" {TEXTS[0]} "


def test_continuing_goes_on_where_the_clear_words_end():
    for record in pretraining_records(TEXTS, 50, auto_encoding_share=0.0):
        clear = record.query.removeprefix(CONTINUE)
        assert len(clear.split()) == CLEAR_WORDS
        assert f" {record.documents[0]} {clear} {record.answer} " in f" {TEXTS[0]} "


def test_half_and_half_by_default_and_the_same_for_one_seed():
    records = pretraining_records(TEXTS, 400, seed=3)
    assert 150 < sum(record.query == REPEAT for record in records) < 250
    assert records == pretraining_records(TEXTS, 400, seed=3)
    assert len({record.id for record in records}) == 400


def test_spans_grow_from_short_to_long():
    lengths = [len(record.documents[0].split()) for record in pretraining_records(TEXTS, 300, words=(2, 32))]
    assert max(lengths[:20]) <= 3
    assert sum(lengths[-50:]) / 50 > 16
    assert max(lengths) <= 32


def test_texts_that_are_too_short_are_an_error():
    with pytest.raises(ValueError, match="at least 7 words"):
        pretraining_records(["a b c"], 3)
