"""What stops a run in time: losses that are no numbers, and batches that do not fit into memory."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import tiny
import torch

import train
from scaledown.config import EvaluationConfig, ScaleDownConfig, TrainingConfig
from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.evaluation import evaluator
from scaledown.evaluation.systems import SCALEDOWN
from scaledown.models.model import ScaleDownModel
from scaledown.training import checkpoints, run
from scaledown.training.devices import is_out_of_memory, largest_fitting, out_of_memory, out_of_memory_of_many
from scaledown.training.steps.callbacks import GRADIENT, MOST_SKIPPED, LossGuard

SETTINGS = {"batch_size": 4, "max_steps": 6, "logging_steps": 3, "save_steps": 2}


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def records():
    return list(synthetic_records(8, seed=5))


def new_model(generator):
    return run.build_model(ScaleDownConfig(generator_model=generator, num_memory_tokens=2), "cpu", seed=1)


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_records(generator, records, tmp_path, monkeypatch):
    model, steps = new_model(generator), []
    forward = ScaleDownModel.forward

    def spoilt(self, batch):
        steps.append(1)
        losses = forward(self, batch)
        return losses._replace(answer_loss=losses.answer_loss * (float("nan") if len(steps) == 4 else 1.0))

    monkeypatch.setattr(ScaleDownModel, "forward", spoilt)
    with pytest.raises(ValueError, match=r"loss of step 4 is nan, on the records synthetic-train-5-\d.*--init_comp"):
        run.train(model, TrainingConfig(**SETTINGS), records, tmp_path)
    assert len(steps) == 4 and [path.name for path in checkpoints.complete(tmp_path)] == ["checkpoint-2"]
    saved = ScaleDownModel.from_pretrained(tmp_path / "checkpoint-2")
    assert all(parameter.isfinite().all() for parameter in saved.parameters())


def test_a_gradient_that_is_no_number_stops_the_run_before_its_last_step_spoils_what_it_ends_with(
        generator, records, tmp_path, monkeypatch):
    forward, steps = ScaleDownModel.forward, []

    def steep(self, batch):
        """The loss stays a number; in the last step its gradient is infinite."""
        losses = forward(self, batch)
        steps.append(1)
        if len(steps) == SETTINGS["max_steps"]:
            losses.answer_loss.register_hook(lambda gradient: gradient * float("inf"))
        return losses

    monkeypatch.setattr(ScaleDownModel, "forward", steep)
    with pytest.raises(ValueError, match=r"norm of the gradient of step 6 is (nan|inf), on the records synthetic-"):
        run.train(new_model(generator), TrainingConfig(**SETTINGS), records, tmp_path)
    assert not (tmp_path / run.FINAL).exists()
    assert [path.name for path in checkpoints.complete(tmp_path)] == ["checkpoint-2", "checkpoint-4"]


def test_losses_are_looked_at_together_and_once():
    guard = LossGuard()
    guard.check()
    guard.add(1, ["a"], torch.tensor(1.0))
    guard.check()
    guard.add(2, [str(number) for number in range(10)], torch.tensor(float("inf")))
    guard.add(3, ["c"], torch.tensor(1.0))
    with pytest.raises(ValueError, match="step 2 is inf, on the records 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"):
        guard.check()
    guard.check()


def test_scaled_gradients_may_be_infinite_for_some_steps_and_losses_never():
    """With the scale of torch's own scaler: it falls below 1 before the guard speaks."""
    guard, scaler = LossGuard(is_scaled=True), torch.amp.GradScaler("cpu")
    weight = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)

    def skipped_steps(number):
        for step in range(number):
            optimizer.zero_grad()
            scaler.scale(weight.sum() * float("inf")).backward()
            scaler.unscale_(optimizer)
            guard.add(step, ["a"], weight.grad.norm(), GRADIENT)
            scaler.step(optimizer)
            scaler.update()

    skipped_steps(MOST_SKIPPED)
    guard.check()
    assert weight.tolist() == [1.0, 1.0] and scaler.get_scale() < 1.0
    guard.add(20, ["a"], torch.tensor(1.0), GRADIENT)
    skipped_steps(MOST_SKIPPED)
    guard.check()
    guard.add(21, ["b"], torch.tensor(float("nan")), GRADIENT)
    with pytest.raises(ValueError, match="norm of the gradient of step 21 is nan, on the records b.*--dtype float32"):
        guard.check()
    guard = LossGuard(is_scaled=True)
    guard.add(1, ["c"], torch.tensor(float("inf")))
    with pytest.raises(ValueError, match="the loss of step 1 is inf.*65,504.*--dtype float32"):
        guard.check()


def test_a_model_in_float16_is_not_trained_without_a_scaler(generator, records, tmp_path):
    with pytest.raises(ValueError, match="--dtype float16 trains on CUDA alone"):
        run.train(new_model(generator).half(), TrainingConfig(**SETTINGS), records, tmp_path)


def test_out_of_memory_tells_what_fits(generator, records, tmp_path, monkeypatch, capsys):
    """Memory for one record's documents and no more: 4 and 2 examples do not fit."""
    forward = ScaleDownModel.forward

    def narrow(self, batch):
        if len(batch["documents"].packing.suffixes.positions) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    monkeypatch.setattr(ScaleDownModel, "forward", narrow)
    write_records(tmp_path / "data.json", records)
    assert train.main(["--train_data", str(tmp_path / "data.json"), "--generator_model", generator, "--batch_size", "4",
                       "--num_memory_tokens", "2", "--output_dir", str(tmp_path / "out"), "--device", "cpu"]) == 2
    message = capsys.readouterr().err
    assert "out of memory with 4 examples" in message and "1 of the longest fit" in message
    assert "--gradient_accumulation_steps 4" in message and "Traceback" not in message


def test_the_longest_records_must_fit():
    records = [SimpleNamespace(query="q", documents=["x" * length]) for length in (1, 9, 5, 7)]
    tried = []

    def step(some):
        tried.append([len(record.documents[0]) for record in some])
        if len(some) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    assert largest_fitting(step, records, 4) == 1 and tried == [[9, 7], [9]]

    def never(some):
        raise MemoryError

    assert largest_fitting(never, records, 4) == 0
    assert "not even one example fits" in out_of_memory(4, 0, 1)
    assert "--gradient_accumulation_steps 4" in out_of_memory(4, 2, 2)


@pytest.mark.parametrize(("examples", "num_fitting", "steps"), [(100, 12, 10), (50, 6, 10), (6, 3, 2), (7, 3, 7)])
def test_the_advice_divides_the_batch_into_equal_parts(examples, num_fitting, steps):
    assert f"--gradient_accumulation_steps {steps} " in out_of_memory(examples, num_fitting, 1)
    assert f"--gradient_accumulation_steps {3 * steps} " in out_of_memory(examples, num_fitting, 3)
    # As the training checks it.
    TrainingConfig(batch_size=examples, gradient_accumulation_steps=steps)


@pytest.mark.parametrize(("examples", "parts"), [(6, 2), (9, 3), (7, 7)])
def test_the_advice_for_a_sharded_model_divides_the_batch_as_well(examples, parts):
    assert f"--gradient_accumulation_steps {2 * parts}," in out_of_memory_of_many(examples, 2)
    assert "not even one example fits" in out_of_memory_of_many(1, 2)


def test_another_fault_is_not_taken_for_memory():
    assert not is_out_of_memory(RuntimeError("shapes differ")) and not is_out_of_memory(ValueError("out of memory"))

    def broken(some):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        largest_fitting(broken, [SimpleNamespace(query="", documents=[])] * 4, 4)


def test_an_evaluation_that_does_not_fit_says_so(generator, records, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(evaluator, "answer_batch", full)
    config = dataclasses.replace(EvaluationConfig(), eval_batch_size=6)
    with pytest.raises(ValueError, match="out of memory while scaledown answered 6.*--eval_batch_size 3"):
        evaluator.evaluate_system(new_model(generator), SCALEDOWN, records, config, progress=False)
