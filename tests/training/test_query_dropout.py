"""--query_dropout: what is drawn, what a batch then has, that a resumed run draws alike, and where it is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

import train
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record, write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.models.engine.packing import NEVER
from scaledown.models.loading import model_card, training_progress
from scaledown.models.losses import IGNORED
from scaledown.models.model import ScaleDownModel
from scaledown.training import run
from scaledown.training.batches import StepCollator, draw_memory_tokens, draw_without_query, shapes_of

RECORDS = [Record("a", "who came?", ("Ada came", "Bob"), "Ada", reranking_scores=(1.0, 0.0)),
           Record("b", "where?", ("Oslo",), "Oslo", reranking_scores=(2.0,)),
           Record("c", "when?", ("May", "June", "Ada"), "June", reranking_scores=(0.0, 3.0, 1.0))]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def model(generator: str) -> ScaleDownModel:
    return run.build_model(ScaleDownConfig(generator, num_memory_tokens=2, lora_dropout=0.0, enable_reranking=True,
                                           train_memory_tokens=(1, 2)), "cpu", seed=1)


def steps(number: int) -> list[list[Record]]:
    """Steps of the same records, whose queries tell them apart."""
    found = []
    for step in range(number):
        found.append([dataclasses.replace(record, query=f"{record.query} {step}") for record in RECORDS])
    return found


def test_the_share_is_drawn_for_each_record_by_itself_and_the_same_again() -> None:
    drawn = [draw_without_query(records, 0.25) for records in steps(400)]
    assert drawn == [draw_without_query(records, 0.25) for records in steps(400)]
    flat = list(itertools.chain.from_iterable(drawn))
    assert abs(sum(flat) / len(flat) - 0.25) < 0.04
    assert set(map(sum, drawn)) == {0, 1, 2, 3}, "records of a step do not go together"
    assert draw_without_query(RECORDS, 0.0) == [False] * 3 and draw_without_query(RECORDS, 1.0) == [True] * 3


def test_it_is_independent_of_the_other_draws() -> None:
    numbers = (1, 2, 4)
    pairs = [(draw_memory_tokens(records, numbers), draw_without_query(records, 0.5)[0]) for records in steps(400)]
    assert all(abs(pairs.count(pair) / len(pairs) - 1 / 6) < 0.06 for pair in itertools.product(numbers, (False, True)))


def prefixes_of(batch: dict) -> list[list[int]]:
    """The ids of what the compressor reads first, of each record."""
    lengths = (batch["documents"].packing.prefixes.positions != NEVER).sum(1).tolist()
    ids = batch["documents"].ids[:sum(lengths)]
    return [part.tolist() for part in ids.split(lengths)]


@pytest.mark.parametrize("is_padded", [False, True])
def test_only_the_compressor_reads_without_the_query(model: ScaleDownModel, is_padded: bool) -> None:
    """Scores and readouts depend on the query, so there the documents have no targets; the prompts are the same."""
    shapes = None
    if is_padded:
        model.processor.config = dataclasses.replace(model.config, train_memory_tokens=None)
        shapes = shapes_of(RECORDS, model.processor)
    batch, whole = (model.processor.collate(RECORDS, None, 2, True, shapes, 3, None, drawn)
                    for drawn in ([False, True, False], None))
    model.processor.config = model.config
    assert batch["prompts"].ids.equal(whole["prompts"].ids)
    assert batch["answer_targets"].equal(whole["answer_targets"])
    assert batch["has_score"].tolist()[:6] == [True, True, False, True, True, True]
    assert whole["has_score"].tolist()[:6] == [True] * 6
    assert (batch["readout_targets"][2] == IGNORED).all() and (whole["readout_targets"][2] != IGNORED).all()
    others = torch.tensor([0, 1, 3, 4, 5])
    assert batch["readout_targets"][others].equal(whole["readout_targets"][others])
    if not is_padded:
        read, with_query = prefixes_of(batch), prefixes_of(whole)
        start, separator = model.processor._start, model.processor._separator
        assert read[1] == start + separator and [read[0], read[2]] == [with_query[0], with_query[2]]
    with torch.no_grad():
        assert all(loss.isfinite() for loss in model(batch) if loss is not None)


def test_all_processes_and_micro_batches_draw_alike(model: ScaleDownModel) -> None:
    settings = TrainingConfig(batch_size=4, query_dropout=0.5)
    parts = dataclasses.replace(settings, gradient_accumulation_steps=2)
    for records in steps(8):
        records = [*records, Record("d", "who?", ("Ada came", "Bob", "Oslo"), "Ada")]
        whole, = StepCollator(model.processor, settings)(records)
        found = [None] * 4
        for rank in (0, 1):
            for number, part in enumerate(StepCollator(model.processor, parts, None, rank, 2)(records)):
                found[2 * number + rank], = prefixes_of(part.unpacked("cpu"))
        assert found == prefixes_of(whole.unpacked("cpu"))
        is_without = [len(ids) == len(model.processor._start + model.processor._separator) for ids in found]
        assert is_without == draw_without_query(records, 0.5)


def test_a_resumed_run_ends_as_an_undisturbed_one(generator: str, tmp_path: Path) -> None:
    write_records(tmp_path / "data.json", list(synthetic_records(8, seed=5)))
    flags = ["--train_data", str(tmp_path / "data.json"), "--generator_model", generator, "--batch_size", "2",
             "--num_memory_tokens", "2", "--max_steps", "4", "--save_steps", "2", "--query_dropout", "0.5",
             "--device", "cpu", "--readout_loss_weight", "0.5", "--output_dir"]
    assert train.main([*flags, str(tmp_path / "whole")]) == 0
    whole = load_file(tmp_path / "whole" / "final" / "compressor.safetensors")
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["settings"]["query_dropout"] == 0.5

    # As after a kill behind step 2.
    for name in ("final", "checkpoint-4"):
        shutil.rmtree(tmp_path / "whole" / name)
    assert train.main(["--resume", "--output_dir", str(tmp_path / "whole")]) == 0
    again = load_file(tmp_path / "whole" / "final" / "compressor.safetensors")
    assert all(again[name].equal(weight) for name, weight in whole.items())

    # With all queries it is another training.
    assert train.main([*flags, str(tmp_path / "with_query"), "--query_dropout", "0"]) == 0
    other = load_file(tmp_path / "with_query" / "final" / "compressor.safetensors")
    assert any(not other[name].equal(weight) for name, weight in whole.items())


def test_the_checkpoint_remembers_the_share_of_its_latest_training(generator: str, tmp_path: Path) -> None:
    model = run.build_model(ScaleDownConfig(generator, num_memory_tokens=2), "cpu", seed=1)
    records = list(synthetic_records(4, seed=5))
    run.train(model, TrainingConfig(batch_size=2, max_steps=1, query_dropout=0.5), records, tmp_path / "first")
    loaded = ScaleDownModel.from_pretrained(tmp_path / "first" / "final")
    assert loaded.progress.query_dropout == 0.5
    assert "Of 50% of the training questions" in (tmp_path / "first" / "final" / model_card.FILE).read_text()
    run.train(loaded, TrainingConfig(batch_size=2, max_steps=1), records, tmp_path / "second")
    assert loaded.progress == training_progress.TrainingProgress(2, 0, 2)
    assert "without the question" not in (tmp_path / "second" / "final" / model_card.FILE).read_text()


@pytest.mark.parametrize(("flags", "message"), [
    (["--query_dropout", "1.5"], "--query_dropout must be a share from 0 to 1, got 1.5"),
    (["--query_dropout", "-0.1"], "--query_dropout must be a share from 0 to 1"),
    (["--query_dropout", "0.2", "--compressor_type", "none"], "--query_dropout belongs to a compressor"),
    (["--query_dropout", "1", "--readout_loss_weight", "1"], "--query_dropout 1 leaves nothing to read out"),
    (["--query_dropout", "1", "--enable_reranking"], "--enable_reranking and --query_dropout 1 contradict")])
def test_it_is_refused_where_it_means_nothing(flags: list[str], message: str, generator: str, tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    write_records(tmp_path / "data.json", RECORDS)
    argv = ["--train_data", str(tmp_path / "data.json"), "--generator_model", generator, "--max_steps", "1",
            "--batch_size", "2", "--output_dir", str(tmp_path / "run"), *flags]
    assert train.main(argv) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
