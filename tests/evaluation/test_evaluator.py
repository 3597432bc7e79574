"""The evaluator and the latencies, on a stand-in model whose answers are known in advance."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from evaluation_fakes import EVALUATION, FakeModel, make_records

from scaledown.evaluation.evaluator import SystemResult, evaluate_system, inference
from scaledown.evaluation.evaluator.timing import (
    PHASES,
    WARM_UP_QUERIES,
    Latency,
    PhaseTime,
    evenly_spaced,
    time_systems,
)
from scaledown.evaluation.systems import BASELINES, FULL_TEXT, NO_DOCUMENTS, SCALEDOWN, TRUNCATED_TEXT, System


def run(system: System, num_records: int = 11, model: FakeModel | None = None, **changes) -> SystemResult:
    config = dataclasses.replace(EVALUATION, **changes)
    return evaluate_system(model or FakeModel(), system, make_records(num_records), config, seed=1, progress=False)


@pytest.mark.parametrize(("system", "exact_match", "prompt_tokens"), [
    (SCALEDOWN, 1.0, [18] * 5), (FULL_TEXT, 1.0, [25, 32, 39, 46, 53]), (TRUNCATED_TEXT, 0.0, [12] * 5),
    (NO_DOCUMENTS, 0.0, [2] * 5),
])
def test_each_system_sees_what_its_name_says(system: System, exact_match: float, prompt_tokens: list[int]) -> None:
    result = run(system, num_records=5)
    assert result.system == system.name
    assert result.averages["exact_match_avg"] == exact_match
    assert [question.num_prompt_tokens for question in result.questions] == prompt_tokens


def test_batches_hold_like_lengths_and_results_keep_the_records_order() -> None:
    model = FakeModel()
    result = run(FULL_TEXT, model=model)
    assert [question.id for question in result.questions] == [f"r{number}" for number in range(11)]
    assert [question.prediction for question in result.questions] == [f"value{number}" for number in range(11)]
    batches = [questions for phase, questions in model.calls if phase == "decode"]
    assert [len(batch) for batch in batches] == [3, 3, 3, 2]
    assert batches[0] == ("find name4", "find name9", "find name3"), "longest first"


def test_the_batch_size_changes_nothing() -> None:
    assert run(SCALEDOWN, eval_batch_size=1) == run(SCALEDOWN, eval_batch_size=11)


def test_results_are_json_with_texts_and_metrics() -> None:
    result = run(SCALEDOWN, num_records=3)
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["n"] == 3 and values["mean_prompt_tokens"] == 18 and values["mean_new_tokens"] == 2
    assert values["questions"][1] == {
        "id": "r1", "query": "find name1", "references": ["value1"], "prediction": "value1", "exact_match": 1.0,
        "token_f1": 1.0, "rouge_l": 1.0, "accuracy": 1.0, "num_prompt_tokens": 18, "num_new_tokens": 2}


def test_untrained_scaledown_finds_nothing() -> None:
    result = run(SCALEDOWN, model=FakeModel(is_trained=False))
    assert result.averages["exact_match_ci95"] == [0, 0] and result.mean_new_tokens == 1


def test_training_modes_come_back_even_after_a_failure() -> None:
    model = FakeModel()
    model.train()
    model.compressor[1].eval()
    wanted = [module.training for module in model.modules()]
    run(SCALEDOWN, num_records=2, model=model)
    assert [module.training for module in model.modules()] == wanted
    with pytest.raises(KeyError), inference(model):
        raise KeyError
    assert [module.training for module in model.modules()] == wanted
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_no_records_is_the_users_mistake() -> None:
    with pytest.raises(ValueError, match="no records"):
        run(SCALEDOWN, num_records=0)
    with pytest.raises(ValueError, match="no records"):
        time_systems(FakeModel(), (SCALEDOWN,), [], EVALUATION)


def test_phase_time_by_hand() -> None:
    times = PhaseTime.of([1.0, 2.0, 3.0, 4.0, 10.0])
    assert dataclasses.astuple(times) == pytest.approx((3, 1.4, 7.6, 4))


@pytest.mark.parametrize(("slow_phase", "expected"), [("compress", "compress"), ("prefill", "prefill"),
                                                      ("decode", "decode")])
def test_each_phase_gets_its_own_time(slow_phase: str, expected: str) -> None:
    config = dataclasses.replace(EVALUATION, timed_queries=2)
    latency = time_systems(FakeModel(slow_phase=slow_phase), (SCALEDOWN,), make_records(2), config, False)["scaledown"]
    medians = {phase: getattr(latency, phase).median_ms for phase in PHASES}
    assert medians.pop(expected) >= 20
    assert all(median < 15 for median in medians.values())
    assert latency.total.median_ms >= 20


def timed(num_records: int) -> tuple[FakeModel, dict[str, Latency]]:
    model = FakeModel()
    return model, time_systems(model, (SCALEDOWN, *BASELINES), make_records(num_records), EVALUATION, progress=False)


def test_timing_goes_question_by_question_over_all_systems() -> None:
    model, latencies = timed(num_records=9)
    asked = [questions for phase, questions in model.calls if phase == "decode"]
    assert all(len(questions) == 1 for questions in asked)
    after_warm_up = [question for question, in asked[WARM_UP_QUERIES * 4:]]
    assert after_warm_up == ["find name0"] * 4 + ["find name2"] * 4 + ["find name4"] * 4 + ["find name6"] * 4
    assert set(latencies) == {"scaledown", "no_documents", "truncated_text", "full_text"}
    assert all(latency.num_queries == EVALUATION.timed_queries for latency in latencies.values())
    assert latencies["no_documents"].mean_prompt_tokens == 2 and latencies["full_text"].mean_new_tokens == 2


def test_timed_questions_are_spread_over_all_of_them() -> None:
    model, _ = timed(num_records=7)  # less than twice the four that are timed
    asked = [questions for phase, questions in model.calls if phase == "decode"]
    assert [question for question, in asked[WARM_UP_QUERIES * 4::4]] == [f"find name{n}" for n in (0, 1, 3, 5)]
    assert evenly_spaced(range(15), 8) == [0, 1, 3, 5, 7, 9, 11, 13] and evenly_spaced("ab", 8) == ["a", "b"]


def test_no_system_always_goes_first() -> None:
    model, _ = timed(num_records=4)
    first_phases = [model.calls[place][0] for place in range(len(model.calls))
                    if place == 0 or model.calls[place][1] != model.calls[place - 1][1]]
    assert set(first_phases[WARM_UP_QUERIES:]) == {"compress", "prefill_text"}


def _one_of_two(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = FakeModel()
    result = evaluate_system(model, SCALEDOWN, make_records(7), EVALUATION, seed=1, progress=False)
    num_answered = sum(len(questions) for phase, questions in model.calls if phase == "decode")
    latency = time_systems(model, (SCALEDOWN,), make_records(7), EVALUATION, progress=False)["scaledown"]
    torch.distributed.destroy_process_group()
    values = {"result": result.to_dict(), "num_answered": num_answered, "latency": latency.to_dict()}
    Path(folder, f"{rank}.json").write_text(json.dumps(values))


@pytest.mark.slow
def test_two_processes_share_the_work_and_both_have_the_result(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_one_of_two, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=240)
    exit_codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert exit_codes == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["result"] == second["result"] == run(SCALEDOWN, num_records=7).to_dict()
    assert (first["num_answered"], second["num_answered"]) == (4, 3)
    assert first["latency"] == second["latency"]
