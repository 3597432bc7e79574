"""The lines of a training for people: what they say and when they come; the Trainer's own log keeps everything."""

from __future__ import annotations

import json
import re
import sys

import pytest
import tiny
from transformers import TrainerControl, TrainerState, TrainingArguments

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.training import run
from scaledown.training.steps import step_lines
from scaledown.training.steps.step_lines import StepLines, held_out_line, step_line

ENTRY = {"loss": 0.8402, "answer_loss": 0.8, "reranking_loss": 0.804, "grad_norm": 3.2, "learning_rate": 5e-4,
         "learning_rate_compressor": 5e-4, "learning_rate_generator": 1e-4, "padding_share": 0.1, "epoch": 0.5}


def test_a_step_says_place_losses_rates_and_time_left():
    assert step_line(ENTRY, 120, 1800, 720.0) == (
        "step   120 of 1,800 | loss 0.840 (unweighted: answer 0.800, reranking 0.804) "
        "| lr generator 1.0e-04, compressor 5.0e-04 | 12 min left")


def test_a_loss_of_one_part_is_shown_once_and_an_unknown_time_is_left_out():
    entry = {"loss": 2.7534, "answer_loss": 2.7534, "learning_rate": 1e-3}
    assert step_line(entry, 10, 12) == "step 10 of 12 | loss 2.75 | lr 1.0e-03"
    # A trainer that logs parts alone.
    entry = {"answer_loss": 2.0, "text_loss": 0.004}
    assert step_line(entry, 10, 12) == "step 10 of 12 | loss answer 2.00, text 0.00400"


def test_a_held_out_check_shows_the_loss_of_the_training_beside_its_own():
    entry = {"eval_answer_loss": 1.9312, "eval_level": 3, "epoch": 0.5}
    assert held_out_line(entry, {"answer_loss": 2.01}, 100, 1850, 50.0) == (
        "held-out check, step   100 of 1,850 | answer loss 1.93 (in training 2.01), level 3 | 50 s left")


class Run:
    """A run of 1,000 steps whose clock the test moves on, with the log entry of each step."""

    def __init__(self, tmp_path, monkeypatch, seconds_a_step, num_steps=1000):
        self.seconds_a_step, self.now = seconds_a_step, 0.0
        monkeypatch.setattr(step_lines, "monotonic", lambda: self.now)
        self.arguments = TrainingArguments(str(tmp_path), use_cpu=True)
        self.state, self.lines = TrainerState(max_steps=num_steps), StepLines()
        self.call("on_train_begin")

    def call(self, event, is_logged=False, **values):
        control = TrainerControl(should_log=is_logged)
        getattr(self.lines, event)(self.arguments, self.state, control, **values)

    def train(self, check_every=None, log_every=1):
        for step in range(1, self.state.max_steps + 1):
            self.state.global_step, self.now = step, self.now + self.seconds_a_step
            is_logged = step % log_every == 0
            self.call("on_step_end", is_logged=is_logged)
            if is_logged:
                self.call("on_log", logs={"loss": 1.0, "answer_loss": 1.0})
            if check_every and step % check_every == 0:
                self.call("on_log", logs={"eval_answer_loss": 2.0})
        self.call("on_log", logs={"train_runtime": self.now, "train_loss": 1.0})
        self.call("on_train_end")


def printed(capsys):
    """The first words of each line."""
    shown = capsys.readouterr()
    assert shown.err == "", "no bar elsewhere than on a terminal"
    return [line.partition(" |")[0] for line in shown.out.splitlines()]


def test_a_short_run_has_its_first_and_last_step_and_every_held_out_check(tmp_path, monkeypatch, capsys):
    Run(tmp_path, monkeypatch, seconds_a_step=1.0, num_steps=20).train(check_every=8)
    assert printed(capsys) == ["step  1 of 20", "held-out check, step  8 of 20", "held-out check, step 16 of 20",
                               "step 20 of 20", "trained up to step 20 of 20 in 20 s"]


@pytest.mark.parametrize(("seconds_a_step", "most"), [(0.1, 5), (1.0, 15), (4.0, 15), (60.0, 103)])
def test_lines_are_at_least_half_a_minute_apart_and_at_most_ten_minutes(seconds_a_step, most, tmp_path, monkeypatch,
                                                                        capsys):
    Run(tmp_path, monkeypatch, seconds_a_step).train()
    *steps, _ = printed(capsys)
    assert most - 3 <= len(steps) <= most
    places = [int(step.split()[1].replace(",", "")) for step in steps]
    gaps = [(late - early) * seconds_a_step for early, late in zip(places, places[1:], strict=False)]
    # The last line comes whenever the run ends.
    assert min(gaps[:-1]) >= 30 and max(gaps) <= 600


def test_time_left_is_measured_from_the_end_of_the_first_step(tmp_path, monkeypatch, capsys):
    training = Run(tmp_path, monkeypatch, seconds_a_step=60.0, num_steps=10)
    # Compiling takes 1,000 s of the first step.
    training.now = 1000.0
    training.train()
    lines = capsys.readouterr().out.splitlines()
    assert "left" not in lines[0] and lines[1].endswith("| 8 min left")


def test_slow_steps_say_their_place_before_the_first_losses_and_between_them(tmp_path, monkeypatch, capsys):
    """36 steps of 110 s, with an entry every 10: the first one comes after 18 minutes."""
    training = Run(tmp_path, monkeypatch, seconds_a_step=110.0, num_steps=36)
    training.arguments.logging_steps = 10
    training.train(log_every=10)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step  2 of 36 | 1 h 2 min left", "as soon as the speed is known"

    with_losses = [line.split(" |")[0] for line in lines if "loss" in line]
    assert with_losses == ["step 10 of 36", "step 20 of 36", "step 30 of 36"]
    places = [int(line.split()[1]) for line in lines[:-1]]
    gaps = [(late - early) * 110 for early, late in zip(places, places[1:], strict=False)]
    assert places == sorted(places) and max(gaps) <= 600 and len(lines) <= 15


def test_steps_whose_losses_come_soon_have_no_other_lines(tmp_path, monkeypatch, capsys):
    training = Run(tmp_path, monkeypatch, seconds_a_step=4.0, num_steps=500)
    training.arguments.logging_steps = 10
    training.train(log_every=10)
    *steps, _ = capsys.readouterr().out.splitlines()
    assert all("loss" in line for line in steps)


def test_on_a_terminal_the_bar_alone_says_the_place(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    training = Run(tmp_path, monkeypatch, seconds_a_step=110.0, num_steps=9)
    training.arguments.logging_steps = 10
    training.train(log_every=10)
    assert capsys.readouterr().out.splitlines() == ["trained up to step 9 of 9 in 16 min"]


def test_on_a_terminal_the_lines_stand_above_a_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    Run(tmp_path, monkeypatch, seconds_a_step=1.0, num_steps=20).train()
    shown = capsys.readouterr()
    assert "training:   0%" in shown.err and shown.out.splitlines()[-1].startswith("trained up to step 20")
    assert not shown.err.splitlines()[-1].strip(), "the bar is wiped out at the end"


def test_a_training_prints_no_dictionary_and_its_log_keeps_all_numbers(tmp_path, capsys):
    config = ScaleDownConfig(generator_model=tiny.generator_folder(tmp_path / "generator"), num_memory_tokens=2,
                             enable_reranking=True)
    training = TrainingConfig(batch_size=2, max_steps=4, logging_steps=1, save_steps=4)
    log = run.train(run.build_model(config, "cpu", seed=1), training, list(synthetic_records(8, seed=5)),
                    tmp_path / "run", evaluate=lambda: {"answer_loss": 7.0}, eval_steps=2)

    shown = capsys.readouterr()
    assert "{" not in shown.out and "training" not in shown.err
    first, check, last, end = shown.out.splitlines()
    # The last step has a check, too, which has the training's values beside its own.
    assert re.fullmatch(r"step 1 of 4 \| loss \S+ \(unweighted: answer \S+, reranking \S+\) "
                        r"\| lr generator \S+, compressor \S+", first)
    assert re.match(r"held-out check, step 2 of 4 \| answer loss 7\.00 \(in training \d", check)
    assert last.startswith("held-out check, step 4 of 4") and end.startswith("trained up to step 4 of 4 in ")

    names = {"loss", "answer_loss", "reranking_loss", "padding_share", "grad_norm", "learning_rate",
             "learning_rate_generator", "learning_rate_compressor"}
    saved = json.loads((tmp_path / "run" / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    assert all(names <= row.keys() for row in [*log, *saved] if "loss" in row)
    assert any("train_runtime" in row for row in log) and {"eval_answer_loss": 7.0}.items() <= saved[2].items()


def test_the_last_held_out_check_is_taken_from_the_log():
    log = [{"loss": 2.0}, {"eval_answer_loss": 2.5, "epoch": 1.0}, {"eval_answer_loss": 1.5, "eval_readout_loss": 0.1},
           {"loss": 1.0}, {"train_runtime": 3.0}]
    assert run.last_check(log) == {"answer_loss": 1.5, "readout_loss": 0.1}
    assert run.last_check([{"loss": 1.0}]) == {}


def test_a_training_that_fails_closes_its_bar(tmp_path, monkeypatch):
    config = ScaleDownConfig(generator_model=tiny.generator_folder(tmp_path / "generator"), num_memory_tokens=2)
    model = run.build_model(config, "cpu", seed=1)
    ended = []
    monkeypatch.setattr(StepLines, "on_train_end", lambda *_, **kwargs: ended.append(1))
    monkeypatch.setattr(type(model), "forward", lambda self, batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.train(model, TrainingConfig(batch_size=2, max_steps=2), list(synthetic_records(4)), tmp_path / "run")
    assert ended == [1]


def test_the_main_job_stays_within_its_lines(tmp_path, monkeypatch, capsys):
    """Under 40 lines in all: 1,850 steps in 15 minutes with a check every 100, the phases and the results."""
    Run(tmp_path, monkeypatch, seconds_a_step=0.49, num_steps=1850).train(check_every=100)
    assert len(printed(capsys)) <= 22
