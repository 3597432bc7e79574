"""Tables for the terminal: aligned, whole, and no wider than 100 columns whatever the numbers are."""

from __future__ import annotations

import itertools

import pytest

from scaledown.evaluation.answering import comparison_table, pairs_table
from scaledown.evaluation.benchmark import ratios
from scaledown.evaluation.cost import __main__ as cost
from scaledown.evaluation.evaluator import AnsweredQuestion, SystemResult
from scaledown.evaluation.evaluator.timing import PHASES
from scaledown.evaluation.figures.text_tables import CONSOLE_COLUMNS, console_table, flops_unit, markdown_table, short
from scaledown.evaluation.metrics import METRICS, AnswerScores
from scaledown.evaluation.pipelines import comparison
from scaledown.evaluation.ranking import rankings
from scaledown.evaluation.robustness import measuring

LONGEST_SWEEP, LONGEST_SYSTEM = "num_memory_tokens", "truncated_text"


def assert_fits(table: str) -> None:
    wide = [line for line in table.splitlines() if len(line) > CONSOLE_COLUMNS]
    assert not wide, wide


def test_columns_are_aligned_and_cells_may_have_lines() -> None:
    found = console_table(["n = 2", "exact\nmatch", "x"], [["a", "0.5\n[0, 1]", "1"], ["bcd", "1", "10"]])
    assert found == ("n = 2   exact   x\n"
                     "        match\n"
                     "a         0.5   1\n"
                     "       [0, 1]\n"
                     "bcd         1  10")


def test_a_long_name_stands_whole_on_a_line_of_its_own() -> None:
    name = "runs/a_rather_long_name/checkpoints/final"
    assert console_table(["", "x"], [[name, "1"], ["b", "2"]]) == f"   x\n{name}\n   1\nb  2"


def test_numbers_as_labels() -> None:
    assert [short(value) for value in (0.0123456, 1.234, 99.94, 123.4, 12345.6, 0)] == [
        "0.0123", "1.23", "99.9", "123", "12,346", "0"]
    assert [flops_unit(value)[1] for value in (2e12, 1e9, 3e6, 5)] == ["T", "G", "M", ""]
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def system_result(name: str) -> SystemResult:
    averages = {f"{metric}_avg": 1.0 for metric in METRICS} | {f"{metric}_ci95": [1.0, 1.0] for metric in METRICS}
    question = AnsweredQuestion("a", "who?", ("x",), "x", AnswerScores(1.0, 1.0, 1.0, 1.0), 99_999, 10)
    return SystemResult(name, averages, (question,))


def test_the_tables_of_answers_fit() -> None:
    name = "training_with_eval/checkpoints/final (auto kept)"
    table = comparison_table.table({name: system_result(name), "full_text": system_result("full_text")})
    assert_fits(table)
    assert name in table and all(metric.name in table for metric in METRICS.values())


def test_the_table_of_pairs_fits() -> None:
    names = ("a" * 10, "b" * 7, "training_with_eval/checkpoints/final (auto kept)")
    found = {name: system_result(name) for name in names}
    table = pairs_table.table(pairs_table.pairs(found, 10, 1), {})
    assert_fits(table)
    assert f"{names[1]} against {names[0]}" in table and f"{names[2]} against {names[0]}" in table


def test_the_table_of_rankings_fits() -> None:
    measures = ["nDCG@10", "RR@10", *(f"R@{k}" for k in rankings.RECALL_AT)]
    scores = rankings.RankingScores(dict.fromkeys(measures, 1.0), dict.fromkeys(measures, (1.0, 1.0)), 9)
    table = rankings.table({"order given": scores, "scaledown": scores})
    assert_fits(table)
    assert table.count("[1.000, 1.000]") == 2 * len(measures) and "n = 9" in table


def test_the_table_of_pipelines_fits() -> None:
    flops = comparison.PipelineFlops(123_456.789e9, 123_456.789e9, 123_456.789e9)
    table = comparison.table({"cross-encoder, ScaleDown": (system_result("scaledown"), flops)})
    assert_fits(table)
    assert "n = 1" in table


def test_the_table_of_robustness_fits() -> None:
    row = {"sweep": LONGEST_SWEEP, "value": 0.125, "system": LONGEST_SYSTEM, "exact_match_avg": 1.0,
           "exact_match_ci95": [1.0, 1.0], "n": 9}
    assert_fits(measuring.table([row]))
    assert "n = 9" in measuring.table([row])


def benchmark_row(system: str, count: int) -> dict:
    spread = {"median": 1.0 if system == "scaledown" else 123.4, "p10": 1.0, "p90": 1.0}
    return {"system": system, "num_documents": count, "ms_per_query": dict.fromkeys((*PHASES, "first_token", "total"),
                                                                                    spread),
            "flops_per_query": dict.fromkeys((*PHASES, "first_token", "total"), 1e15 * count),
            "share_of_matmul_peak": dict.fromkeys(PHASES, 0.5), "peak_bytes": 2**33}


def test_the_tables_of_the_benchmark_fit() -> None:
    counts = (1, 10, 20, 50, 100, 500)
    rows = [benchmark_row(system, count) for count, system in itertools.product(counts, ratios.SYSTEMS)]
    for table in (ratios.ratio_table(rows), ratios.share_table(rows), "\n".join(ratios.growth(rows))):
        assert table
        assert_fits(table)
    training = [{"system": system, "num_documents": 5, "step_ms": {}, "examples_per_second": 1e4, "peak_bytes": None,
                 "share_of_matmul_peak": 0.5} for system in ratios.SYSTEMS]
    table = ratios.ratio_table(training)
    assert_fits(table)
    assert "1.00x" in table and table.splitlines()[-1].endswith("-"), "memory is not known"
    assert_fits(ratios.share_table(training))
    assert ratios.ratio_table(training[1:]) == "", "nothing to compare with"


@pytest.mark.parametrize("flags", [[], ["--generator_model", "mistralai/Mistral-Small-24B-Instruct-2501"],
                                   ["--generator_model", "embedded", "--measure_flops", "--query_tokens", "8",
                                    "--document_tokens", "16", "--answer_tokens", "4"]])
def test_the_costs_fit(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cost.main(flags) == 0
    told = capsys.readouterr().out
    assert_fits(told)
    assert "naive_compressor" in told and "paper's count" in told
    assert ("as PyTorch counts" in told) == ("--measure_flops" in flags)


def rows_of(times: list[float]) -> list[dict]:
    rows = []
    for count, time in zip((1, 10, 100), times, strict=True):
        row = benchmark_row("scaledown", count)
        row["ms_per_query"] = row["ms_per_query"] | {"total": {"median": time, "p10": time, "p90": time}}
        rows.append(row)
    return rows


@pytest.mark.parametrize(("times", "told"), [
    ([2.0, 20.0, 200.0], "within 0% of a straight line"),
    ([9.0, 6.0, 3.0], "does not rise throughout"), ([3.0, 3.0, 30.0], "does not rise throughout"),
    ([1.0, 100.0, 101.0], "away from a straight line")])
def test_a_line_is_claimed_only_for_numbers_on_one(times: list[float], told: str) -> None:
    of_time, of_flops, _ = ratios.growth(rows_of(times))
    assert of_time.startswith("time, from 1 to 100 documents: ") and told in of_time
    assert "within 0% of a straight line" in of_flops
    assert ratios.growth(list(reversed(rows_of(times)))) == [of_time, of_flops, ratios.growth(rows_of(times))[2]]
    assert ratios.growth(rows_of(times)[:2]) == []


def test_ratios_are_the_others_time_over_ours() -> None:
    ours, other = benchmark_row("scaledown", 5), benchmark_row("full_text", 5)
    ours["ms_per_query"] = ours["ms_per_query"] | {"total": {"median": 2.0}, "first_token": {"median": 1.0}}
    other["ms_per_query"] = other["ms_per_query"] | {"total": {"median": 5.0}, "first_token": {"median": 3.0},
                                                     "compress": {"median": 0.0}}
    other["flops_per_query"] = {**other["flops_per_query"], "total": 2e16}
    other["peak_bytes"] = 2**34
    found, = ratios.ratios([ours, other])
    assert found == {"num_documents": 5, "against": "full_text", "compression": None, "first_token": 3.0,
                     "first_token_flops": 1.0, "whole_answer": 2.5, "whole_answer_flops": 4.0, "peak_memory": 0.5}
