"""The main job's phases, the summary at its end, and the commands that it offers."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import example_usage
from scaledown.data.storage.run_information import next_commands
from scaledown.evaluation.report import phases
from scaledown.evaluation.report.phases import Phases
from scaledown.evaluation.report.run_summary import summary

Capture = pytest.CaptureFixture[str]


def averages(exact_match: float, token_f1: float) -> dict:
    return {"exact_match_avg": exact_match, "exact_match_ci95": [exact_match - 0.05, exact_match + 0.05],
            "token_f1_avg": token_f1, "token_f1_ci95": [token_f1 - 0.05, token_f1 + 0.05]}


def test_a_phase_says_its_time_if_one_like_it_was_measured(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    times = iter([0.0, 10.0, 250.0, 300.0, 360.0])
    monkeypatch.setattr(phases, "monotonic", lambda: next(times))
    job = Phases(4)
    job.begin("read")
    job.begin("answer")
    job.begin("train")
    job.begin("answer again", as_phase=2)
    # The second phase lasted from 10 to 250.
    assert capsys.readouterr().out.splitlines() == ["1 of 4: read", "2 of 4: answer", "3 of 4: train",
                                                    "4 of 4: answer again; about 4 min, as phase 2"]
    assert job.seconds == 360.0


def test_the_summary_has_the_model_the_time_the_change_and_the_report() -> None:
    report = {"run": {"n": 300, "settings": {"generator_model": "embedded", "compressor_type": "n_layers"}},
              "before_training": averages(0.1, 0.2), "after_training": averages(0.85, 0.9),
              "improvements": {"absolute": {"exact_match_avg": 0.75, "token_f1_avg": -0.7},
                               "absolute_ci95": {"exact_match_avg": [0.7, 0.8], "token_f1_avg": [-0.75, -0.65]}},
              "baselines": {"full_text": averages(0.93, 0.93)}}
    assert summary(report, Path("run"), 14800, 900).splitlines() == [
        "done in 15 min: generator embedded, compressor n_layers, 14,800 training records",
        "        n = 300  questions, and the 95% interval of each figure",
        "before training  exact match  0.100 [0.050, 0.150]  token F1  0.200 [0.150, 0.250]",
        " after training  exact match  0.850 [0.800, 0.900]  token F1  0.900 [0.850, 0.950]",
        "         change  exact match +0.750 [0.700, 0.800]  token F1 -0.700 [-0.750, -0.650]",
        "      full text  exact match  0.930 [0.880, 0.980]  token F1  0.930 [0.880, 0.980]",
        "report: run/report.html (open it in a browser); all numbers: metrics_report.json beside it"]
    # A process that does not write the report.
    assert summary({}, Path("run"), 14800, 900) == ""


def test_a_longer_training_has_the_flags_of_this_one_but_those_of_a_single_run() -> None:
    argv = ["--train_data", "my data.json", "--output_dir=here", "--init_compressor", "embedded", "--overwrite",
            "--pretrain_steps", "9", "--enable_reranking"]
    ask, longer = next_commands("train.py", argv, Path("here/final"), Path("here")).splitlines()
    assert ask == "ask it: python example_usage.py --checkpoint here/final"
    assert example_usage.build_parser().parse_args(ask.split()[4:]).checkpoint == "here/final"
    assert shlex.split(longer.removeprefix("train it longer: ")) == [
        "python", "train.py", "--train_data", "my data.json", "--enable_reranking", "--init_compressor", "here/final",
        "--output_dir", "here_longer"]

    # A resumed run has its settings from its own file.
    resumed = next_commands("train.py", ["--resume"], Path("here/final"), Path("here")).splitlines()[1]
    assert resumed == ("train it longer: python train.py --config here/config.json --init_compressor here/final "
                       "--output_dir here_longer")
