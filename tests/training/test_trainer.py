from __future__ import annotations

import dataclasses
import json

import pytest
import tiny
import torch
from safetensors.torch import load_file

from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.model import ScaleDownModel
from scaledown.training import run
from scaledown.training.steps.trainer_arguments import OneDeviceArguments
from scaledown.training.trainer import ScaleDownTrainer, compressor_learning_rate

SETTINGS = {"batch_size": 2, "max_steps": 6, "logging_steps": 1, "save_steps": 3, "warmup_ratio": 0.0,
            "learning_rate_generator": 1e-3, "learning_rate_compressor": 4e-3}


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def records():
    return list(synthetic_records(8, seed=5))


def new_model(generator, **settings):
    config = ScaleDownConfig(generator_model=generator, num_memory_tokens=2, lora_dropout=0.0, **settings)
    return run.build_model(config, "cpu", seed=1)


def weights(folder):
    """Return every saved tensor by its part of the model and its name."""
    found = {}
    for part in ("compressor", "generator"):
        tensors = load_file(folder / f"{part}.safetensors")
        found |= {(part, name): tensor for name, tensor in tensors.items()}
    return found


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_each_part_of_the_loss_and_each_learning_rate_is_logged(generator, records, tmp_path):
    log = run.train(new_model(generator, enable_reranking=True), TrainingConfig(**SETTINGS), records, tmp_path)
    rows = [row for row in log if "answer_loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert row["loss"] == pytest.approx(row["answer_loss"] + 0.05 * row["reranking_loss"], rel=1e-3)
    # Linear, without warm-up: the rate in step s of 6 is (7 - s) / 6 of the peak.
    left = [step / 6 for step in range(6, 0, -1)]
    assert [row["learning_rate_generator"] for row in rows] == pytest.approx([1e-3 * share for share in left])
    assert [row["learning_rate_compressor"] for row in rows] == pytest.approx([4e-3 * share for share in left])


def test_accumulated_parts_give_the_step_of_the_whole_batch(generator, records, tmp_path):
    same_length = [records[0], records[0]]
    ends = []
    for parts in (1, 2):
        settings = SETTINGS | {"max_steps": 1, "gradient_accumulation_steps": parts}
        run.train(new_model(generator), TrainingConfig(**settings), same_length, tmp_path / str(parts))
        ends.append(weights(tmp_path / str(parts) / run.FINAL))
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("optimizer", tiny.OF_TORCH)
def test_a_resumed_run_ends_as_an_undisturbed_one(generator, records, tmp_path, optimizer):
    config = TrainingConfig(**SETTINGS, optimizer=optimizer)
    run.train(new_model(generator), config, records, tmp_path / "whole")
    run.train(new_model(generator), config, records, tmp_path / "resumed",
              resume_from=tmp_path / "whole" / "checkpoint-3")
    assert same(weights(tmp_path / "whole" / run.FINAL), weights(tmp_path / "resumed" / run.FINAL))


def test_the_compressor_learns_alone_for_as_long_as_asked(generator, records, tmp_path):
    start = {name: value.clone() for name, value in new_model(generator).named_parameters() if value.requires_grad}
    for steps in (2, 3):
        model = new_model(generator)
        config = TrainingConfig(**SETTINGS | {"max_steps": steps}, compressor_warmup_steps=2)
        run.train(model, config, records, tmp_path / str(steps))
        moved = {name.split(".")[0] for name, value in model.named_parameters()
                 if value.requires_grad and not value.equal(start[name])}
        assert moved == ({"compressor"} if steps == 2 else {"compressor", "generator"})


def test_one_seed_gives_one_training(generator, records, tmp_path):
    for name in ("a", "b"):
        run.train(new_model(generator), TrainingConfig(**SETTINGS), records, tmp_path / name)
    assert same(weights(tmp_path / "a" / run.FINAL), weights(tmp_path / "b" / run.FINAL))


def test_gradient_checkpointing_changes_no_result(generator, records, tmp_path):
    for name, is_on in (("off", False), ("on", True)):
        settings = SETTINGS | {"max_steps": 2, "gradient_checkpointing": is_on}
        run.train(new_model(generator), TrainingConfig(**settings), records, tmp_path / name)
    one, other = (weights(tmp_path / name / run.FINAL) for name in ("off", "on"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-5, rtol=1e-4)


def test_checkpoints_hold_no_pickle_of_the_model_and_load_as_models(generator, records, tmp_path):
    run.train(new_model(generator), TrainingConfig(**SETTINGS), records, tmp_path)
    assert not list(tmp_path.rglob("training_args.bin")) and not list(tmp_path.rglob("pytorch_model*"))
    model = ScaleDownModel.from_pretrained(tmp_path / "checkpoint-3")
    assert len(model.answer([records[0].query], [records[0].documents], max_new_tokens=2)) == 1
    assert json.loads((tmp_path / run.FINAL / "config.json").read_text())["num_layers"] == 1


def test_records_in_order_stay_in_order(generator, records, tmp_path):
    trainer = ScaleDownTrainer(new_model(generator), TrainingConfig(**SETTINGS), records, tmp_path, in_order=True)
    assert list(trainer._get_train_sampler()) == list(range(len(records)))
    trainer = ScaleDownTrainer(new_model(generator), TrainingConfig(**SETTINGS), records, tmp_path)
    assert list(trainer._get_train_sampler()) != list(range(len(records)))


def test_evaluation_is_called_when_due_and_joins_the_log(generator, records, tmp_path):
    log = run.train(new_model(generator), TrainingConfig(**SETTINGS), records, tmp_path,
                    evaluate=lambda: {"answer_loss": 7.0}, eval_steps=2)
    never = run.train(new_model(generator), TrainingConfig(**SETTINGS), records, tmp_path / "never",
                      evaluate=lambda: {"answer_loss": 7.0}, eval_steps=500)
    assert [row["step"] for row in never if "eval_answer_loss" in row] == [6]
    assert [(row["step"], row["eval_answer_loss"]) for row in log if "eval_answer_loss" in row] == [
        (2, 7.0), (4, 7.0), (6, 7.0)], "also at the end"
    losses = [row for row in log if "loss" in row]
    assert [row["step"] for row in losses] == [1, 2, 3, 4, 5, 6], "an evaluation leaves its step's own row alone"
    assert all("answer_loss" in row and "learning_rate_compressor" in row for row in losses)


def test_a_head_without_scores_to_learn_from_has_no_loss_in_the_log(generator, records, tmp_path):
    unscored = [dataclasses.replace(record, reranking_scores=None) for record in records]
    log = run.train(new_model(generator, enable_reranking=True), TrainingConfig(**SETTINGS), unscored, tmp_path)

    # A loss of 0.00 would read as a perfect reranker.
    assert any("answer_loss" in entry for entry in log)
    assert not any("reranking_loss" in entry for entry in log)


def test_a_run_that_ends_in_its_last_check_is_saved_before_it_and_resumes_there(generator, records, tmp_path, capsys,
                                                                                monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = TrainingConfig(**SETTINGS)

    def failing():
        assert (tmp_path / "checkpoint-6").is_dir()
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run.train(new_model(generator), config, records, tmp_path, evaluate=failing, eval_steps=100)

    # No step is left; the check is.
    log = run.train(new_model(generator), config, records, tmp_path, resume_from=tmp_path / "checkpoint-6",
                    evaluate=lambda: {"answer_loss": 1.5}, eval_steps=100)
    assert run.last_check(log) == {"answer_loss": 1.5}
    assert [entry["step"] for entry in log if "eval_answer_loss" in entry] == [6]
    assert same(weights(tmp_path / "final"), weights(tmp_path / "checkpoint-6"))
    assert "held-out check, step 6 of 6 | answer loss 1.50" in capsys.readouterr().out
    assert not any((tmp_path / "here").iterdir()), "its curves are in its own folder"


def test_earlier_checks_are_in_the_log_of_their_checkpoint(generator, records, tmp_path):
    run.train(new_model(generator), TrainingConfig(**SETTINGS), records, tmp_path,
              evaluate=lambda: {"answer_loss": 1.5}, eval_steps=3)
    history = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "eval_answer_loss" in entry] == [3]


def test_mean_reranking_loss_is_that_of_all_scored_documents(generator, records):
    model, config = new_model(generator, enable_reranking=True), TrainingConfig(**SETTINGS)
    # As in training, where the start of a long document is scored.
    model.long_documents = "cut"
    shared = [records[0], dataclasses.replace(records[1], reranking_scores=None), records[2]]
    errors = []
    for record in (records[0], records[2]):
        scores = model.rerank(record.query, record.documents)[1]
        errors += [(score - wanted) ** 2 for score, wanted in zip(scores, record.reranking_scores, strict=True)]
    for batch_size in (1, 3):
        found = run.mean_loss(model, shared, config, batch_size)()
        assert found["reranking_loss"] == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert set(run.mean_loss(model, shared[1:2], config)()) == {"answer_loss"}


def test_mean_loss_does_not_depend_on_the_batch_size(generator, records):
    model, config = new_model(generator), TrainingConfig()
    one = run.mean_loss(model, [records[0]] * 4, config, batch_size=1)()["answer_loss"]
    assert run.mean_loss(model, [records[0]] * 4, config, batch_size=4)()["answer_loss"] == pytest.approx(one, rel=1e-5)


def test_the_paper_s_learning_rates_are_the_defaults():
    for kind, rate in (("n_layers", 5e-5), ("modernbert", 1e-4), ("llm", 1e-4)):
        assert compressor_learning_rate(TrainingConfig(), ScaleDownConfig(compressor_type=kind)) == rate
        by_lora = ScaleDownConfig(compressor_type=kind, compressor_lora_rank=8)
        assert compressor_learning_rate(TrainingConfig(), by_lora) == pytest.approx(10 * rate)
        assert compressor_learning_rate(TrainingConfig(learning_rate_compressor=0.1), by_lora) == 0.1


def test_a_batch_that_processes_cannot_share_is_refused(generator, records, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="--batch_size 2.*3 processes"):
        ScaleDownTrainer(new_model(generator), TrainingConfig(**SETTINGS), records, tmp_path)


def test_a_trainer_that_would_move_the_model_is_refused(generator, records, tmp_path, monkeypatch):
    monkeypatch.setattr(OneDeviceArguments, "device", torch.device("cuda", 0))
    model = new_model(generator)
    with pytest.raises(ValueError, match="the model is on cpu, but training is on cuda:0"):
        ScaleDownTrainer(model, TrainingConfig(**SETTINGS), records, tmp_path)
    assert model.device.type == "cpu"


def test_another_models_checkpoint_is_refused_as_a_start(generator, tmp_path):
    new_model(generator).save_pretrained(tmp_path / "pretrained")
    config = ScaleDownConfig(generator_model=generator, num_memory_tokens=4)
    with pytest.raises(ValueError, match="--num_memory_tokens is 4 but 2 there"):
        run.build_model(config, "cpu", 1, str(tmp_path / "pretrained"))
