"""The times that arithmetic expects of a GPU: bounds worked out by hand, and the table in the guide."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.gpu_check import expected
from lab.gpu_check.__main__ import main
from scaledown.evaluation.cost.known_shapes import config_of
from scaledown.evaluation.cost.shapes import decoder_shape, generator_without_values

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "PLATFORMS.md"


def test_the_slowest_of_three_bounds_a_phase():
    assert expected.Time.of(1000, 4.8e9, 7e11) == expected.Time(pytest.approx(4.5e-3), "L")
    assert expected.Time.of(100, 4.8e10, 7e11) == expected.Time(pytest.approx(1e-2), "B")
    assert expected.Time.of(100, 4.8e9, 7e13) == expected.Time(pytest.approx(0.1), "F")


def test_the_shape_is_mistrals():
    config = config_of("mistralai/Mistral-7B-Instruct-v0.2")
    assert decoder_shape(generator_without_values(config)) == expected.GENERATOR


def test_phases_are_what_one_works_out_by_hand():
    # 32 tokens of 33 + 40 x 32 operations each, of 4.5 microseconds.
    compress, prefill, decode = expected.answer_times("for answering", "memory", 1)
    assert decode == expected.Time(pytest.approx(32 * 1313 * 4.5e-6), "L")
    assert prefill == expected.Time(pytest.approx((14 + 42 * 32) * 4.5e-6), "L")
    # 4.60 TFLOPs, as the count of a question has it, and 1% for attention.
    assert compress == expected.Time(pytest.approx(4.60e12 / 700e12, rel=0.02), "F")

    # 14.2 GB of weights, and for each of 256 questions 1,424 tokens of 131,072 bytes.
    _, _, decode = expected.answer_times("for answering", "text", 256)
    assert decode == expected.Time(pytest.approx(32 * (14.22e9 + 256 * 1424 * 131_072) / 4.8e12, rel=0.01), "B")


def test_the_table_in_the_guide_is_what_the_command_says(capsys):
    assert main(["--expected"]) == 0
    out, guide = capsys.readouterr().out, GUIDE.read_text(encoding="utf-8")
    assert "estimates, not measured" in out
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(expected.BATCH_SIZES) * len(expected.STATES)
    assert "\n".join(lines) in guide
