"""The figures: what they say, that no text runs into another, and that poor data still gives a picture."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from scaledown.evaluation.evaluator.timing import PHASES, Latency, PhaseTime
from scaledown.evaluation.figures import colours, heat_maps, plots, speed, style, training_curves
from scaledown.evaluation.metrics import METRICS

SYSTEMS = ("no_documents", "truncated_text", "before_training", "scaledown", "full_text")
TIMED = ("scaledown", "full_text", "truncated_text", "no_documents")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures as they would be saved, to look into; not written, which takes as long as drawing."""
    figures: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    return figures


def summary(value: float, half_width: float = 0.02) -> dict:
    averages = {f"{metric}_avg": value for metric in METRICS}
    ends = [max(0.0, value - half_width), min(1.0, value + half_width)]
    return averages | {f"{metric}_ci95": ends for metric in METRICS} | {"n": 200}


def latency(*phases_ms: float) -> Latency:
    times = [PhaseTime(time_ms, time_ms * 0.9, time_ms * 1.3, time_ms) for time_ms in (*phases_ms, sum(phases_ms))]
    return Latency(*times, mean_prompt_tokens=10, mean_new_tokens=3, num_queries=30)


def texts(figure: Figure) -> list[Text]:
    """The texts that are drawn: matplotlib keeps labels of ticks outside the limits, but leaves them out."""
    figure.canvas.draw()
    left_out = set()
    for axis in itertools.chain.from_iterable((axes.xaxis, axes.yaxis) for axes in figure.axes):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high:
                left_out |= {tick.label1, tick.label2}
    return [text for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip() and text not in left_out]


def assert_readable(figure: Figure) -> None:
    """No two texts overlap, none leaves the picture, and none is small or faint."""
    for text in texts(figure):
        assert colours.contrast(to_hex(text.get_color()), colours.BACKGROUND) >= colours.TEXT_CONTRAST, text.get_text()
        assert text.get_fontsize() >= style.SMALL_POINTS, text.get_text()
    page = figure.bbox
    boxes = []
    for text in texts(figure):
        box = text.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, text.get_text()
        boxes.append((text.get_text(), box.padded(-1.5)))
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), f"{one!r} runs into {other!r}"


def words(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in texts(figure))


def test_contrast_by_hand() -> None:
    assert colours.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert colours.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert colours.contrast("#ffffff", "#ff0000") == pytest.approx(4.0, abs=0.01)


def test_every_colour_of_the_palette_has_a_readable_one_of_its_hue() -> None:
    for colour in (*colours.LINES, *colours.SYSTEMS.values(), colours.INK, colours.QUIET):
        text = colours.for_text(colour)
        assert colours.contrast(text, colours.BACKGROUND) >= 4.5
        # No darker than needed, and of the same hue: the channels keep their order.
        assert text == colour or colours.contrast(text, colours.BACKGROUND) < 4.8
        channels, darker = to_rgba(colour)[:3], to_rgba(text)[:3]
        assert sorted(range(3), key=lambda n: channels[n]) == sorted(range(3), key=lambda n: darker[n])
    assert colours.for_text(colours.INK) == colours.INK


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("values", [(0.01, 0.12, 0.0, 0.86, 1.0), (0, 0, 0, 0, 0)])
def test_before_after(tmp_path: Path, drawn: list[Figure], values: tuple[float, ...], narrow: bool) -> None:
    path = tmp_path / "before_after_comparison.png"
    plots.plot_before_after(path, {name: summary(value) for name, value in zip(SYSTEMS, values, strict=True)}, narrow)
    figure, = drawn
    assert figure.get_figwidth() == (style.NARROW_INCHES if narrow else style.WIDE_INCHES)
    assert_readable(figure)
    shown = words(figure).replace("\n", " ")
    assert "n = 200" in shown and "95% bootstrap interval" in shown
    assert f"{values[2]:.3f} before training, {values[3]:.3f} after" in shown
    assert f"| {values[3]:.3f} |" in shown, "numbers as in the tables"
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Exact match", "Token F1", "ROUGE-L", "Accuracy"]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx(values)
    assert [bar.get_facecolor() for bar in figure.axes[0].patches] == [
        to_rgba(colours.SYSTEMS[name]) for name in SYSTEMS]
    lefts = {round(axes.get_position().x0, 3) for axes in figure.axes}
    assert len(lefts) == (1 if narrow else 4), "beside one another, or in one column"


def test_a_long_title_takes_more_lines(tmp_path: Path, drawn: list[Figure]) -> None:
    heights = []
    for title in ("Short", "Long " * 40):
        figure = style.new_figure(4.6, 3)
        figure.subplots()
        style.head(figure, title, "Words " * 30)
        style.save(figure, tmp_path / "figure.png")
        assert_readable(figure)
        heights.append(figure.get_figheight())
    assert 3 < heights[0] < heights[1]


def history(num_steps: int) -> list[dict]:
    entries: list[dict] = []
    for step in range(10, num_steps + 1, 10):
        answer = 4 * math.exp(-step / 150)
        entries.append({"step": step, "loss": answer + 0.05, "answer_loss": answer, "reranking_loss": 1.0,
                        "learning_rate": 1e-4, "learning_rate_generator": 1e-4, "learning_rate_compressor": 5e-5,
                        "grad_norm": 1.0})
        if step % 100 == 0:
            entries.append({"step": step, "eval_answer_loss": answer, "eval_runtime": 9.0})
    return [*entries, {"step": num_steps, "train_loss": 1.0, "train_runtime": 20.0}]


@pytest.mark.parametrize("narrow", [False, True])
def test_training_curves(tmp_path: Path, drawn: list[Figure], narrow: bool) -> None:
    plots.plot_training_curves(tmp_path / "training_curves.png", history(300), narrow)
    figure, = drawn
    assert_readable(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.axison] == [
        "Loss", "Answer loss", "Reranking loss", "Learning rate"]
    assert [axes.get_ylabel() for axes in figure.axes[:3]] == [
        "weighted sum of the losses", "nats a token", "squared error of a score"]
    assert "Over 300 steps the answer loss in training goes from" in words(figure).replace("\n", " ")
    names = []
    for axes in figure.axes:
        if axes.axison:
            names.append([text.get_text() for text in axes.texts])
    assert names == [["training"], ["training", "held out"], ["training"], ["compressor", "generator"]]
    trained, held_out = figure.axes[1].lines
    assert list(trained.get_xdata()) == list(range(10, 301, 10)) and list(held_out.get_xdata()) == [100, 200, 300]
    assert trained.get_ydata()[0] == pytest.approx(4 * math.exp(-10 / 150))
    assert (trained.get_linestyle(), held_out.get_linestyle()) == ("-", "--")
    assert trained.get_color() == held_out.get_color()


def test_the_title_tells_the_course_in_training_and_on_held_out_records(tmp_path: Path, drawn: list[Figure]) -> None:
    entries = [{"step": step, "loss": 2.0 / step, "answer_loss": 2.0 / step} for step in (1, 2)]
    plots.plot_training_curves(tmp_path / "curves.png", [*entries, {"step": 2, "eval_answer_loss": 1.5}])
    assert ("Over 2 steps the answer loss in training goes from 2 to 1; on held-out records it is 1.5 at step 2"
            in words(drawn[0]).replace("\n", " "))


def test_each_kind_of_loss_has_an_axis_of_its_own() -> None:
    names = ("loss", "answer_loss", "reranking_loss", "readout_loss", "eval_answer_loss", "eval_reranking_loss")
    entries = []
    for step in (1, 2):
        losses = {name: float(number + step) for number, name in enumerate(names)}
        entries.append({"step": step, **losses})
    panels = training_curves.loss_panels(entries)
    assert [panel.title for panel in panels] == ["Loss", "Answer loss", "Readout loss", "Reranking loss"]
    curves = []
    for panel in panels:
        curves.append([curve.name for curve in panel.curves])
    assert curves == [["training"], ["training", "held out"], ["training"], ["training", "held out"]]


@pytest.mark.parametrize("difference", [0.0, 1e-8])
def test_a_total_that_equals_its_only_part_is_drawn_once(difference: float) -> None:
    """Up to rounding: the two are logged by different sums."""
    entries = [{"step": step, "loss": 2.0 / step + difference, "answer_loss": 2.0 / step} for step in (1, 2)]
    panel, = training_curves.loss_panels(entries)
    assert panel.title == "Answer loss" and len(panel.curves) == 1


def test_a_learning_rate_is_read_at_its_tick(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.plot_training_curves(tmp_path / "curves.png", [
        {"step": step, "loss": 1.0, "learning_rate": 2e-3 * (500 - step) / 500} for step in range(10, 500, 10)])
    axes = drawn[0].axes[-1]
    drawn[0].canvas.draw()
    for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        assert float(label.get_text()) == pytest.approx(tick, abs=1e-12)


def test_equal_learning_rates_are_one_line_with_both_names(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.plot_training_curves(tmp_path / "curves.png", [
        {"step": step, "loss": 1.0, "learning_rate_generator": 1e-4, "learning_rate_compressor": 1e-4}
        for step in (1, 2)])
    rates = drawn[0].axes[1]
    assert len(rates.lines) == 1 and [text.get_text() for text in rates.texts] == ["compressor and generator"]


@pytest.mark.parametrize("entries", [
    [{"step": 1, "loss": 2.0, "learning_rate": 0.0}], [{"step": 5, "loss": float("nan")}],
    [{"step": step, "loss": 0.0, "answer_loss": 0.0, "learning_rate": 0.0} for step in (1, 2)],
])
def test_poor_histories_still_give_a_figure(tmp_path: Path, drawn: list[Figure], entries: list[dict]) -> None:
    plots.plot_training_curves(tmp_path / "curves.png", entries)
    assert_readable(drawn[0])
    assert len(drawn[0].axes) == 2


def test_losses_that_are_no_numbers_are_left_out(tmp_path: Path, drawn: list[Figure]) -> None:
    values = (float("inf"), 2.0, float("nan"), 1.0)
    plots.plot_training_curves(tmp_path / "curves.png", [{"step": step, "loss": value}
                                                         for step, value in enumerate(values)])
    assert list(drawn[0].axes[0].lines[0].get_xdata()) == [1, 3]


def test_lessons_are_marked_where_the_loss_was_logged(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.plot_training_curves(tmp_path / "curves.png", [
        {"step": 5, "lesson_starts": "5 documents"}, {"step": 90, "lesson_starts": "never reached"},
        *({"step": step, "loss": 1.0} for step in (1, 9))])
    assert "5 documents from here on" in words(drawn[0]) and "never reached" not in words(drawn[0])


LATENCIES = {"scaledown": latency(12, 8, 30), "full_text": latency(0, 55, 33), "truncated_text": latency(0, 7, 30),
             "no_documents": latency(0, 4, 30)}
FLOPS = {"scaledown": {"compress": 4e9, "prefill": 2e9, "decode": 1e8, "total": 6.1e9},
         **{name: {"compress": 0.0, "prefill": 2e10, "decode": 1e8, "total": 2.01e10} for name in TIMED[1:]}}


@pytest.mark.parametrize("narrow", [False, True])
def test_speed(tmp_path: Path, drawn: list[Figure], narrow: bool) -> None:
    plots.plot_speed(tmp_path / "speed_comparison.png", LATENCIES, FLOPS, "CPU (x86_64, 2 threads)", narrow)
    figure, = drawn
    assert_readable(figure)
    shown = words(figure).replace("\n", " ")
    assert "50 ms with ScaleDown and 88 ms with full text (1.76x the speed)" in shown
    for word in ("n = 30", "CPU (x86_64, 2 threads)", "milliseconds a query", "GFLOPs a query", "6.1 GFLOPs"):
        assert word in shown
    left, right = figure.axes
    for axes in figure.axes:
        assert all(total.get_window_extent().x1 <= axes.bbox.x1 for total in axes.texts), "totals stand on the panel"
    assert [bar.get_width() for bar in left.patches[:3]] == [12, 8, 30]
    assert [bar.get_x() for bar in left.patches[:3]] == [0, 12, 20]
    assert [bar.get_width() for bar in right.patches[:3]] == pytest.approx([4, 2, 0.1])


def test_bars_end_at_their_labels(tmp_path: Path, drawn: list[Figure]) -> None:
    """Medians of phases do not sum to the median of whole queries: here they sum to 50, and that is 80."""
    whole = PhaseTime(80.0, 70.0, 90.0, 81.0)
    latencies = {name: dataclasses.replace(found, total=whole) for name, found in LATENCIES.items()}
    plots.plot_speed(tmp_path / "speed.png", latencies, FLOPS, "CPU")
    left, _ = drawn[0].axes
    assert [bar.get_x() for bar in left.patches[:3]] == pytest.approx([0, 12 * 1.6, 20 * 1.6])
    assert [bar.get_width() for bar in left.patches[:3]] == pytest.approx([12 * 1.6, 8 * 1.6, 30 * 1.6])
    ends = [left.patches[number].get_x() + left.patches[number].get_width() for number in (2, 5, 8, 11)]
    assert ends == pytest.approx([80] * 4) and [text.get_text() for text in left.texts] == ["80 ms"] * 4


def documents_row(system: str, count: int, total: float) -> dict:
    spread = {"median": total / 2, "p10": total / 2, "p90": total / 2}
    phases = dict.fromkeys(PHASES, spread)
    return {"system": system, "num_documents": count,
            "ms_per_query": phases | {"total": {"median": total, "p10": total * 0.9, "p90": total * 1.2}}}


def test_the_benchmarks_figures_have_messages_for_titles(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = []
    for count in (50, 1, 10):
        rows += [documents_row("scaledown", count, 2.0 * count), documents_row("full_text", count, 5.0 * count),
                 documents_row("truncated_text", count, 1.9 * count)]
    setup = "small preset, batch 4, on CPU (x86_64, 2 threads), n = 7 rounds"
    speed.plot_by_documents(tmp_path / "documents.png", rows, setup)
    speed.plot_by_phase(tmp_path / "phases.png", rows, setup)
    speed.plot_by_documents(tmp_path / "alone.png", [row for row in rows if row["system"] == "scaledown"], setup)
    for figure in drawn:
        assert_readable(figure)
        assert setup in words(figure).replace("\n", " ")
    titles = [words(figure).replace("\n", " ") for figure in drawn]
    assert "With 50 documents a question takes 100 ms with ScaleDown and 250 ms with full text (2.50x the" in titles[0]
    assert "With 10 documents ScaleDown spends 33% of its time in the phase 'compress'" in titles[1]
    assert "With 50 documents a question takes 100 ms with ScaleDown |" in titles[2]
    assert list(drawn[0].axes[0].lines[0].get_xdata()) == [1, 10, 50]


def memory_example(highest: float) -> dict:
    near = [{"token": "word", "cosine": 0.5}] * 3
    return {"query": "Where is it?", "answer": "Oslo", "tokens": list("abcdefghijklmnopqrstuvw"),
            "answer_tokens": [10, 11], "similarity": [[0.1] * 10 + [highest, highest / 2] + [-0.2] * 11] * 8,
            "nearest": [near] * 8}


@pytest.mark.parametrize("narrow", [False, True])
def test_the_memory_before_and_after_has_one_scale(tmp_path: Path, drawn: list[Figure], narrow: bool) -> None:
    stages = {"before_training": memory_example(0.1), "after_training": memory_example(0.8)}
    heat_maps.plot_memory(tmp_path / "memory.png", stages, narrow)
    figure, = drawn
    assert_readable(figure)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 2 and {image.get_clim() for image in images} == {(0, 1)}
    title = words(figure).replace("\n", " ")
    assert "The memory's likeness to the answer's tokens is 0.08 before training and 0.60 after" in title
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["Before training", "After training"]
    assert images[0].get_array().shape[1] == (10 if narrow else 23)


@pytest.mark.parametrize("scale", [0.0, 1e5])
def test_speed_at_any_scale(tmp_path: Path, drawn: list[Figure], scale: float) -> None:
    latencies = {name: latency(scale, scale, 2 * scale) for name in TIMED}
    flops = {name: dict.fromkeys((*PHASES, "total"), scale * 1e6) for name in TIMED}
    plots.plot_speed(tmp_path / "speed.png", latencies, flops, "NVIDIA H200")
    assert_readable(drawn[0])


def test_labels_move_apart_and_stay_inside() -> None:
    for wanted in ([0.5, 0.5, 0.5], [0.0, 0.01, 0.02, 0.9], [1.0, 1.0], [0.3], [0.2, 0.1, 0.15], [0.02, 0.1, 0.0]):
        moved = style.spread(wanted, gap=0.1)
        ordered = sorted(moved)
        assert all(high - low >= 0.1 - 1e-9 for low, high in itertools.pairwise(ordered))
        assert ordered[0] >= 0 and ordered[-1] <= 1 + 1e-9
        assert [place for place, _ in sorted(enumerate(moved), key=lambda pair: pair[1])] == [
            place for place, _ in sorted(enumerate(wanted), key=lambda pair: pair[1])]
    assert style.spread([0.1, 0.5], gap=0.1) == [0.1, 0.5]


def test_a_failed_save_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def fail(*arguments: object, **settings: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(ValueError, match=r"figure.png: cannot be written \(disk full\)"):
        style.save(style.new_figure(2, 2), path)
    assert path.read_bytes() == b"old"
