"""The benchmark: what it compares computes the same thing, its JSON and figures are whole, mistakes are told."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch

from scaledown.config import ScaleDownConfig
from scaledown.evaluation.benchmark import __main__ as benchmark
from scaledown.evaluation.benchmark import measures
from scaledown.evaluation.benchmark.bench import Bench, Texts, preset
from scaledown.evaluation.benchmark.measures import answer_job, question_flops
from scaledown.evaluation.cost.shapes import decoder_shape
from scaledown.evaluation.evaluator import timing
from scaledown.evaluation.evaluator.timing import in_turns
from scaledown.evaluation.figures import speed

FAST = ["--preset", "tiny", "--rounds", "2", "--query_tokens", "8", "--document_tokens", "16", "--answer_tokens", "4",
        "--batch_size", "2", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's peak takes seconds, and no test asks how high it is."""
    monkeypatch.setitem(timing.PEAK_SIZE, "cpu", 128)


@pytest.fixture()
def bench() -> Bench:
    config = ScaleDownConfig(num_memory_tokens=8, compression_rate=2, query_tokens=6, lora_dropout=0.0)
    return Bench(preset("tiny"), config, torch.float32, torch.device("cpu")).eval()


def texts(query: int = 6, document: int = 16) -> Texts:
    return Texts.drawn([(query, [document, document], 3), (query, [document], 2)], 500)


@torch.no_grad()
def test_the_naive_compressor_computes_what_ours_does(bench: Bench) -> None:
    """Where no text needs padding: there the plain way pads between document and memory, and is another model."""
    torch.testing.assert_close(bench.compress(texts()), bench.compress_naively(texts()), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_naive_loss_is_ours(bench: Bench) -> None:
    memory = bench.compress(texts())
    wanted = bench.loss(texts(), memory)
    torch.testing.assert_close(bench.naive_loss(texts(), memory, num_tokens=40), wanted, rtol=1e-4, atol=1e-5)


def test_truncated_text_has_the_length_of_memory(bench: Bench) -> None:
    memory, cut = (bench.prompts(texts(), from_memory, 8) for from_memory in (True, False))
    # Our prompts have one separator more between two documents.
    assert [len(ids) for ids in cut] == [len(memory[0]) - 1, len(memory[1])]


@torch.no_grad()
def test_answers_have_exactly_the_length_asked_for(bench: Bench) -> None:
    """Whatever ends an answer by the family's own config."""
    assert bench.shape.config.eos_token_id is not None
    first, second = bench.prefill(texts(), bench.compress(texts())), bench.prefill(texts(), None)
    assert bench.decode(first, 5).shape == (2, 5)
    bench.shape.config.eos_token_id = bench.decode(second, 1).flatten().tolist()
    again = Bench(bench.shape, bench.config, torch.float32, bench.device).eval()
    assert again.decode(again.prefill(texts(), None), 5).shape == (2, 5)


@torch.no_grad()
@pytest.mark.parametrize("system", benchmark.SYSTEMS)
def test_the_first_token_is_prefill_and_one_step(bench: Bench, system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every system alike; the whole answer is begun anew."""
    calls: list[object] = []
    prefill, decode = bench.prefill, bench.decode
    monkeypatch.setattr(bench, "prefill", lambda *given: calls.append("prefill") or prefill(*given))
    monkeypatch.setattr(bench, "decode", lambda prompts, number: calls.append(number) or decode(prompts, number))
    # Time goes by a second at each phase.
    monkeypatch.setattr(measures, "seconds", lambda job, device: [1.0, job()][0])
    times = answer_job(bench, texts(), system, 3)()
    compress = float(system in ("scaledown", "naive_compressor"))
    assert calls == ["prefill", 1, "prefill", 3]
    assert times == {"compress": compress, "prefill": 1.0, "decode": 1.0, "first_token": compress + 2,
                     "total": compress + 2}


def test_flops_promise_the_first_token_as_it_is_measured(bench: Bench) -> None:
    whole, first = (question_flops(bench, texts(), "full_text", number) for number in (3, 1))
    # One step of decoding, behind prompts of 38 and 22 tokens: weights of all layers and the head, and 30 keys.
    shape = decoder_shape(bench.generator.base)
    assert first.decode == 2 * (shape.body_weights + shape.head_weights) + shape.score_flops(30)
    assert first.prefill == whole.prefill and first.total < whole.total


def test_jobs_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def job(name: str):
        return lambda: order.append(name) or {"step": float(len(order))}

    found = in_turns({"a": job("a"), "b": job("b")}, rounds=2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": {"step": [4.0, 5.0]}, "b": {"step": [3.0, 6.0]}}


@pytest.mark.parametrize("module", [timing])
def test_a_clock_waits_for_any_accelerator_s_queue(module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of stand-ins for Apple's module and for one that, like Neuron's, registers itself with torch."""
    waited: list[str] = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    other = SimpleNamespace(synchronize=lambda: waited.append("other"))
    monkeypatch.setattr(torch, "privateuseone", other, raising=False)
    for name in ("mps", "privateuseone", "cpu"):
        module.synchronise(torch.device(name))
    assert waited == ["mps", "other"]


def test_seconds_hold_what_is_still_queued_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device whose calls return at once: the clock is read after the work is done, before it begins anew."""
    now, queue = [0.0], [7.0]

    def synchronize() -> None:
        now[0] += sum(queue)
        queue.clear()

    monkeypatch.setattr(torch.mps, "synchronize", synchronize)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    assert timing.seconds(lambda: queue.append(3.0), torch.device("mps")) == 3.0


def test_inference_writes_rows_and_figures(tmp_path: Path) -> None:
    assert benchmark.main(["inference", *FAST, "--num_documents", "1", "3", "--output_dir", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "benchmark_inference.json").read_text())
    measured = [(row["num_documents"], row["system"]) for row in report["rows"]]
    assert measured == list(itertools.product((1, 3), benchmark.SYSTEMS))
    for row in report["rows"]:
        assert row["ms_per_query"]["total"]["median"] > 0 and row["flops_per_query"]["total"] > 0
    assert len(report["ratios"]) == 6 and report["growth"] == [] and report["run"]["versions"]
    assert {path.name for path in tmp_path.glob("*.png")} == {"cost_by_documents.png", "time_by_phase.png"}


def test_numbers_of_documents_take_turns_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down slows all of them: measured one after the other they would lie on no line."""
    together: list[list[tuple[int, str]]] = []

    def recorded(jobs, *rest):
        together.append(list(jobs))
        return in_turns(jobs, *rest)

    monkeypatch.setattr(measures, "in_turns", recorded)
    flags = [*FAST, "--num_documents", "1", "2", "--systems", "scaledown", "full_text", "--output_dir", str(tmp_path)]
    assert benchmark.main(["inference", *flags]) == benchmark.main(["training", *flags]) == 0
    assert together == [[(1, "scaledown"), (1, "full_text"), (2, "scaledown"), (2, "full_text")]] * 2


def test_figures_name_the_model_that_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setups: list[str] = []
    monkeypatch.setattr(speed, "plot_by_documents", lambda path, rows, setup: setups.append(setup))
    monkeypatch.setattr(speed, "plot_by_phase", lambda path, rows, setup: setups.append(setup))
    generator = tiny.generator_folder(tmp_path / "generator")
    flags = ["inference", *FAST, "--num_documents", "1", "--systems", "full_text", "--output_dir", str(tmp_path)]
    assert benchmark.main([*flags, "--generator_model", generator, "--num_layers", "1"]) == 0
    assert len(setups) == 2 and all(setup.startswith(f"{generator}, batch 2") for setup in setups)
    assert benchmark.main(flags) == 0
    assert all(setup.startswith("tiny preset, batch 2") for setup in setups[2:])


def test_a_figure_that_fails_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    def fail(path: Path, *data: object) -> None:
        assert (tmp_path / "benchmark_inference.json").exists()
        raise RuntimeError("no font")

    monkeypatch.setattr(speed, "plot_by_documents", fail)
    assert benchmark.main(["inference", *FAST, "--num_documents", "1", "--output_dir", str(tmp_path)]) == 0
    assert "cost_by_documents.png: this figure is left out (RuntimeError: no font)" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark_inference.json", "time_by_phase.png"}


def test_training_takes_the_lengths_of_records(tmp_path: Path) -> None:
    records = [{"query": "who?", "documents": ["Ada wrote it.", "Oslo"], "answer": "Ada"}] * 3
    file = tmp_path / "records.json"
    file.write_text(json.dumps(records))
    assert benchmark.main(["training", *FAST, "--train_data", str(file), "--output_dir", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "benchmark_training.json").read_text())["rows"]
    assert {row["system"] for row in rows} == set(benchmark.SYSTEMS)
    assert all(row["examples_per_second"] > 0 for row in rows)
    assert {row["num_documents"] for row in rows} == {2.0}, "the records' own"


@pytest.mark.parametrize(("flags", "named"), [
    (["inference", "--rounds", "0", "--batch_size", "0"], "--batch_size"),
    (["inference", "--document_tokens", "12"], "--document_tokens"),
    (["inference", "--train_data", "x.json"], "--train_data"),
    (["training", "--train_data", "x.json", "--num_documents", "5"], "--num_documents does not go with --train_data"),
    (["training", "--preset", "tiny", "--num_layers", "99"], "--num_layers"),
    (["inference", *FAST, "--output_dir", __file__], "--output_dir"),
    (["training", *FAST, "--train_data", "nowhere.json"], "nowhere.json")])
def test_mistakes_are_told(flags: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--output_dir", str(tmp_path), *flags]) == 2
    assert named in capsys.readouterr().err
