"""The needle command: where facts are hidden, what is measured at a point, that a killed run goes on, its figures."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest
import tiny
import torch
from matplotlib.figure import Figure

from scaledown.config import EvaluationConfig, ScaleDownConfig
from scaledown.data.records import Record, write_records
from scaledown.evaluation.figures import style
from scaledown.evaluation.needle import __main__ as needle
from scaledown.evaluation.needle import depth_figure, growth_figure, haystack, needle_points
from scaledown.evaluation.robustness.sweeps import holds_answer
from scaledown.models.model import ScaleDownModel

QUICK = ["--eval_examples", "2", "--max_new_tokens", "2", "--bootstrap_resamples", "10", "--timed_queries", "1",
         "--lengths", "400", "200", "--depths", "0", "1", "--longest_full_text", "300", "--device", "cpu"]


def count(texts):
    return [len(text.split()) for text in texts]


@pytest.fixture(scope="module")
def hidden():
    records, others = haystack.demo_records(12, 1200, seed=3)
    return haystack.haystacks(records, others, 12, 1200, count, 3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = ScaleDownModel(ScaleDownConfig(tiny.generator_folder(root / "generator"), num_layers=1, num_memory_tokens=4,
                                           compression_rate=64, enable_reranking=True))
    model.save_pretrained(root / "checkpoint")
    return root / "checkpoint"


def test_a_needle_is_a_paragraph_that_nothing_else_answers(hidden):
    assert len(hidden) == 12
    for each in hidden:
        assert each.needle == each.record.documents[0] and holds_answer(each.needle, each.record)
        assert each.record.titles[0] in each.needle
        for text, num_tokens in each.others:
            assert not holds_answer(text, each.record) and each.record.titles[0] not in text
            assert num_tokens == len(text.split())


@pytest.mark.parametrize("length", [80, 200, 1200])
def test_documents_have_the_asked_length_and_depth(hidden, length):
    for each in hidden:
        places = []
        for depth in (0.0, 0.5, 1.0):
            record = each.of(length, depth, count)
            document, = record.documents
            assert length - 25 < len(document.split()) <= length and each.needle in document.split("\n\n")
            assert record.titles is None is record.reranking_scores and record.query == each.record.query
            places.append(document.index(each.needle) / (len(document) - len(each.needle)))
        # First, last, and near the middle: between two of the other texts.
        assert places[0] == 0 and places[2] == 1
        assert length < 200 or abs(places[1] - 0.5) < 45 / length + 0.05


def test_every_length_has_the_same_other_text(hidden):
    short, long = (hidden[0].of(length, 1.0, count).documents[0] for length in (200, 1200))
    short, long = short.split("\n\n"), long.split("\n\n")
    # The last other paragraph of the short one is perhaps not whole.
    assert len(short) > 3 and long[:len(short) - 2] == short[:-2] and short[-1] == long[-1] == hidden[0].needle


def test_sentences_that_fit():
    text = "One two three. Four five. Six."
    assert [haystack.first_sentences(text, room, count) for room in (0, 2, 3, 4, 5, 9)] == [
        [], [], ["One two three."], ["One two three."], ["One two three. Four five."], [text]]


def test_questions_that_cannot_be_hidden_are_told():
    record = Record("r", "q", ("yes a b", "no"), "yes")
    with pytest.raises(ValueError, match="--lengths 50: the documents of the other questions have only 2 tokens"):
        haystack.haystacks([record], ["yes c", "no e"], 1, 50, count, 1)
    with pytest.raises(ValueError, match="none of the 1 questions has exactly one document that holds its answer"):
        haystack.haystacks([Record("r", "q", ("no",), "yes")], ["c " * 50], 1, 50, count, 1)
    # Its own other documents are look-alikes of the needle, not other text.
    found, = haystack.haystacks([record], ["no", "c " * 60], 1, 50, count, 1)
    assert [text for text, _ in found.others] == ["c " * 60] and found.needle == "yes a b"
    # Neither is what names the subject.
    titled = Record("r", "q", ("yes a b", "no"), "yes", titles=("Ada", ""))
    with pytest.raises(ValueError, match="have only 2 tokens"):
        haystack.haystacks([titled], ["Ada " + "e " * 50, "no e"], 1, 50, count, 1)


def test_what_is_kept_fits_the_model(checkpoint):
    model = ScaleDownModel.from_pretrained(checkpoint)
    assert needle_points.kept(model, None) == 5 and needle_points.kept(model, 2) == 2
    with pytest.raises(ValueError, match="calibration"):
        needle_points.kept(model, "auto")
    object.__setattr__(model.config, "keep_threshold", 0.5)
    assert needle_points.kept(model, None) == "auto"
    object.__setattr__(model.config, "enable_reranking", False)
    assert needle_points.kept(model, None) is None

    args = argparse.Namespace(longest_full_text=300)
    points = needle_points.Points(model, [], count, args, EvaluationConfig(), 2)
    assert list(points.systems(300)) == ["scaledown", "full_text", "cut_text"]
    assert list(points.systems(301)) == ["scaledown", "cut_text"]


def row(length, depth, system, matches):
    return {"length_tokens": length, "depth": depth, "system": system, "exact_matches": matches,
            "exact_match_avg": sum(matches) / len(matches), "n": len(matches)}


ROWS = [row(128, 0.0, "scaledown", [1.0, 1.0]), row(128, 1.0, "scaledown", [1.0, 0.0]),
        row(512, 0.0, "scaledown", [1.0, 0.0]), row(512, 1.0, "scaledown", [0.0, 0.0]),
        row(128, 0.0, "full_text", [0.0, 1.0]), row(128, 1.0, "full_text", [0.0, 1.0])]
GROWTH = [{"length_tokens": length, "system": system, "first_token_ms": {"median_ms": time}, "peak_bytes": size,
           "num_queries": 3, "prompt_tokens": 60.0}
          for length, system, time, size in ((128, "scaledown", 50.0, 2**20), (128, "full_text", 100.0, None),
                                             (512, "scaledown", 80.0, 0), (512, "full_text", 400.0, 2**22))]


def test_means_over_depths_count_each_question_once():
    means = needle_points.by_length(ROWS, 200, 1)
    assert [(each["length_tokens"], each["system"], each["exact_match"]) for each in means] == [
        (128, "scaledown", 0.75), (512, "scaledown", 0.25), (128, "full_text", 0.5)]
    assert means[0]["ci95"] == [0.5, 1.0] and means[2]["ci95"] == [0.0, 1.0]
    table = needle_points.table(means, GROWTH)
    assert re.search(r"512 tokens, scaledown +0\.250 .* 0\.33 +80 +0 +60", table)


def test_the_maps_show_every_point_and_say_the_result(tmp_path, monkeypatch):
    figures: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    depth_figure.plot_depths(tmp_path / "depths.png", ROWS, 128)
    maps = [axes for axes in figures[0].axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in maps] == ["ScaleDown", "Full text"]
    assert maps[0].images[0].get_array().tolist() == [[1.0, 0.5], [0.5, 0.0]]
    assert [text.get_text() for text in maps[1].texts] == ["0.50", "0.50"]
    assert depth_figure.title(ROWS, 128) == "A fact in 512 tokens is found: ScaleDown 0.250; Full text 0.500 in 128"

    growth_figure.plot_growth(tmp_path / "growth.png", GROWTH)
    left, right = figures[1].axes
    assert left.lines[0].get_ydata().tolist() == [50.0, 80.0] and right.lines[0].get_ydata().tolist() == [1.0]
    assert growth_figure.title(GROWTH) == ("The first token after 512 tokens: 80 ms, 400 ms from full text, 5.0 times "
                                           "as long")
    assert growth_figure.title(GROWTH[:3]) == ("The first token after 128 tokens: 50 ms, 100 ms from full text, 2.0 "
                                               "times as long")
    assert growth_figure.title(GROWTH[::2]) == "The first token after 512 tokens: 80 ms"


def test_a_killed_run_goes_on_and_draws(checkpoint, tmp_path: Path, monkeypatch, capsys):
    records, others = haystack.demo_records(6, 400, seed=1)
    filled = [Record(f"{number}", record.query, (*record.documents, *others[number::6][:2]), record.answer)
              for number, record in enumerate(records)]
    write_records(tmp_path / "records.json", filled)
    folder = tmp_path / "out"
    argv = ["--checkpoint", str(checkpoint), "--eval_data", str(tmp_path / "records.json"), "--output_dir", str(folder)]
    measured = []

    def counted(*args, **settings):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(args[1])
        return real(*args, **settings)

    real = needle_points.evaluate_system
    monkeypatch.setattr(needle_points, "evaluate_system", counted)
    assert needle.main([*argv, *QUICK]) == 130
    assert len(json.loads((folder / "depths.json").read_text())) == 3
    monkeypatch.setattr(needle_points, "evaluate_system", real)
    assert needle.main([*argv, *QUICK]) == 2 and "--resume" in capsys.readouterr().err

    assert needle.main(["--output_dir", str(folder), "--resume"]) == 0
    rows = json.loads((folder / "depths.json").read_text())
    points = {(each["length_tokens"], each["depth"], each["system"]) for each in rows}
    # Full text of 400 tokens is beyond --longest_full_text.
    assert len(points) == len(rows) == 2 * 3 + 2 * 2 and {each["n"] for each in rows} == {2}
    growth = json.loads((folder / "growth.json").read_text())
    assert len(growth) == 3 + 2 and all(each["first_token_ms"]["median_ms"] > 0 for each in growth)
    for name in ("depths.png", "growth.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert f"{folder}: depths.png, growth.png, depths.json, growth.json" in capsys.readouterr().out
