"""The figures: what they say, that no text runs into another, and that poor data still gives a picture."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from scaledown.evaluation.figures import plots, style
from scaledown.evaluation.metrics import METRICS
from scaledown.evaluation.timing import PHASES, Latency, PhaseTime

SYSTEMS = ("no_documents", "truncated_text", "before_training", "scaledown", "full_text")
TIMED = ("scaledown", "full_text", "truncated_text", "no_documents")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures as they are saved, to look into."""
    figures: list[Figure] = []
    save = style.save
    monkeypatch.setattr(style, "save", lambda figure, path: (figures.append(figure), save(figure, path)))
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
        left_out |= {label for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high
                     for label in (tick.label1, tick.label2)}
    return [text for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip() and text not in left_out]


def assert_readable(figure: Figure) -> None:
    """No two texts overlap, and none leaves the picture."""
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


@pytest.mark.parametrize("values", [(0.01, 0.12, 0.0, 0.86, 1.0), (0, 0, 0, 0, 0)])
def test_before_after(tmp_path: Path, drawn: list[Figure], values: tuple[float, ...]) -> None:
    path = tmp_path / "before_after_comparison.png"
    plots.plot_before_after(path, {name: summary(value) for name, value in zip(SYSTEMS, values, strict=True)})
    assert imread(path).shape[1] > 1500
    figure, = drawn
    assert_readable(figure)
    shown = words(figure)
    assert "n = 200" in shown and "95% bootstrap interval" in shown
    assert f"{values[2]:.2f} before training, {values[3]:.2f} after" in shown
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Exact match", "Token F1", "ROUGE-L", "Accuracy"]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx(values)
    assert [bar.get_facecolor() for bar in figure.axes[0].patches] == [
        to_rgba(style.COLOURS[name]) for name in SYSTEMS]


def history(num_steps: int) -> list[dict]:
    entries: list[dict] = []
    for step in range(10, num_steps + 1, 10):
        answer = 4 * math.exp(-step / 150)
        entries.append({"step": step, "loss": answer + 0.05, "answer_loss": answer, "reranking_loss": 1.0,
                        "learning_rate": 1e-4, "learning_rate_generator": 1e-4, "learning_rate_compressor": 5e-5,
                        "grad_norm": 1.0})
        if step % 100 == 0:
            entries.append({"step": step, "eval_loss": answer, "eval_exact_match_avg": 0.4, "eval_runtime": 9.0})
    return [*entries, {"step": num_steps, "train_loss": 1.0, "train_runtime": 20.0}]


def test_training_curves(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.plot_training_curves(tmp_path / "training_curves.png", history(300))
    figure, = drawn
    assert_readable(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "Learning rate",
                                                                    "Evaluation during training"]
    names = [[text.get_text() for text in axes.texts[1:]] for axes in figure.axes]
    assert names == [["loss", "eval loss", "answer loss", "reranking loss"], ["generator", "compressor"],
                     ["exact match"]]
    losses = figure.axes[0].lines[2]
    assert list(losses.get_xdata()) == list(range(10, 301, 10))
    assert losses.get_ydata()[0] == pytest.approx(4 * math.exp(-10 / 150))


def test_held_out_losses_have_the_colours_of_those_in_training_and_no_other_has(tmp_path: Path,
                                                                                 drawn: list[Figure]) -> None:
    names = ("loss", "answer_loss", "reranking_loss", "readout_loss", "eval_answer_loss", "eval_reranking_loss",
             "eval_readout_loss")
    plots.plot_training_curves(tmp_path / "curves.png", [
        {"step": step, **{name: float(number + step) for number, name in enumerate(names)}} for step in (1, 2)])
    colours = {text.get_text(): text.get_color() for text in drawn[0].axes[0].texts}
    assert len({colours[name.replace("_", " ")] for name in names[:4]}) == 4
    for name in ("answer loss", "reranking loss", "readout loss"):
        assert colours[f"eval {name}"] == colours[name]


def test_equal_losses_are_one_line_with_both_names(tmp_path: Path, drawn: list[Figure]) -> None:
    entries = [{"step": step, "loss": 2.0 / step, "answer_loss": 2.0 / step} for step in (1, 2)]
    plots.plot_training_curves(tmp_path / "curves.png", entries)
    assert len(drawn[0].axes[0].lines) == 1
    assert "loss = answer loss" in words(drawn[0]) and "from 2 to 1" in words(drawn[0])


@pytest.mark.parametrize("entries", [
    [{"step": 1, "loss": 2.0, "learning_rate": 0.0}], [{"step": 5, "loss": float("nan")}],
    [{"step": step, "loss": 0.0, "answer_loss": 0.0, "learning_rate": 0.0} for step in (1, 2)],
])
def test_poor_histories_still_give_a_figure(tmp_path: Path, drawn: list[Figure], entries: list[dict]) -> None:
    plots.plot_training_curves(tmp_path / "curves.png", entries)
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert_readable(drawn[0])
    assert len(drawn[0].axes) == 2


def test_losses_that_are_no_numbers_are_left_out(tmp_path: Path, drawn: list[Figure]) -> None:
    values = (float("inf"), 2.0, float("nan"), 1.0)
    plots.plot_training_curves(tmp_path / "curves.png", [{"step": step, "loss": value}
                                                         for step, value in enumerate(values)])
    assert list(drawn[0].axes[0].lines[0].get_xdata()) == [1, 3]


LATENCIES = {"scaledown": latency(12, 8, 30), "full_text": latency(0, 55, 33), "truncated_text": latency(0, 7, 30),
             "no_documents": latency(0, 4, 30)}
FLOPS = {"scaledown": {"compress": 4e9, "prefill": 2e9, "decode": 1e8, "total": 6.1e9},
         **{name: {"compress": 0.0, "prefill": 2e10, "decode": 1e8, "total": 2.01e10} for name in TIMED[1:]}}


def test_speed(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.plot_speed(tmp_path / "speed_comparison.png", LATENCIES, FLOPS, "CPU (x86_64, 2 threads)")
    figure, = drawn
    assert_readable(figure)
    shown = words(figure)
    assert "50 ms with ScaleDown and 88 ms with full text (1.8x the speed)" in shown
    for word in ("n = 30", "CPU (x86_64, 2 threads)", "milliseconds a query", "GFLOPs a query", "6.1 GFLOPs"):
        assert word in shown
    left, right = figure.axes
    for axes in figure.axes:
        assert all(total.get_window_extent().x1 <= axes.bbox.x1 for total in axes.texts), "totals stand on the panel"
    assert [bar.get_width() for bar in left.patches[:3]] == [12, 8, 30]
    assert [bar.get_x() for bar in left.patches[:3]] == [0, 12, 20]
    assert [bar.get_width() for bar in right.patches[:3]] == pytest.approx([4, 2, 0.1])


@pytest.mark.parametrize("scale", [0.0, 1e5])
def test_speed_at_any_scale(tmp_path: Path, drawn: list[Figure], scale: float) -> None:
    latencies = {name: latency(scale, scale, 2 * scale) for name in TIMED}
    flops = {name: dict.fromkeys(PHASES, scale * 1e6) for name in TIMED}
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
