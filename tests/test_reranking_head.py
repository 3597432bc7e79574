"""A head for a trained checkpoint: what its losses are, and that the command leaves a model that scores and answers."""

from __future__ import annotations

import pytest
import tiny
import torch
from safetensors.torch import load_file

from scaledown import ScaleDownConfig, ScaleDownModel
from scaledown.data.records import Record
from scaledown.models.checkpoint import SHIPPED
from scaledown.models.compressor import Compressed
from scaledown.training.embedded import reranking_head
from scaledown.training.embedded.reranking_head import HeadTrainingConfig, Lesson, lessons, losses

RECORDS = [Record("a", "?", ("x", "y"), "z", reranking_scores=(1.0, 3.0))]


def test_losses_by_hand():
    found = Compressed(torch.full((2, 1, 4), 3.0), torch.tensor([2.0, 0.0]))
    score_loss, memory_loss = losses(found, torch.full((2, 1, 4), 2.0), RECORDS)
    assert score_loss.item() == (1 + 9) / 2 and memory_loss.item() == 1 / 4
    assert losses(found, None, RECORDS)[1].item() == 0


def test_lessons_are_short_documents_then_scored_candidates():
    names, candidates = lessons(HeadTrainingConfig(name_steps=3, candidate_steps=2, num_candidates=4),
                                lambda records: records[::-1])
    assert (names.num_steps, candidates.num_steps) == (3, 2)
    assert not names.keeps_memory and candidates.keeps_memory
    assert {len(record.documents) for record in candidates.records} == {4}
    assert candidates.records[0].id.endswith("-19"), "as the teacher gave them back"
    assert max(len(document.split()) for record in names.records for document in record.documents) < 20


def test_training_brings_scores_and_memory_where_they_should_be(tmp_path):
    torch.manual_seed(0)
    ScaleDownModel(ScaleDownConfig(tiny.generator_folder(tmp_path / "generator"), num_layers=1, num_memory_tokens=2,
                                   memory_norm=True)).save_pretrained(tmp_path / "checkpoint")
    wanted, model = (ScaleDownModel.from_pretrained(tmp_path / "checkpoint") for _ in range(2))
    model.enable_reranking()
    with torch.no_grad():
        model.compressor.memory_rows.copy_(torch.randn_like(model.compressor.memory_rows))

    def measured():
        with torch.no_grad():
            memory = reranking_head.compressed(wanted, RECORDS).embeddings
            return [loss.item() for loss in losses(reranking_head.compressed(model, RECORDS), memory, RECORDS)]

    before = measured()
    lesson = Lesson(RECORDS * 60, 1, 0.5, keeps_memory=True)
    reranking_head.learn(model, wanted, lesson, HeadTrainingConfig(learning_rate=1e-2))
    after = measured()
    assert after[0] < 0.2 * before[0] and after[1] < 0.5 * before[1]
    assert not model.training


def test_the_command_trains_the_compressor_alone(tmp_path, capsys):
    argv = ["--output_dir", str(tmp_path / "out"), "--name_steps", "1", "--candidate_steps", "1",
            "--num_candidates", "2"]
    assert reranking_head.main(argv) == 0
    model = ScaleDownModel.from_pretrained(tmp_path / "out")
    assert len(model.rerank("Who?", ["Ada", "Bob"])[0]) == 2
    shipped, written = (load_file(folder / "generator.safetensors") for folder in (SHIPPED, tmp_path / "out"))
    assert all(torch.equal(written[name], weight.to(written[name].dtype)) for name, weight in shipped.items())
    assert reranking_head.main(argv) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["name_steps", "candidate_steps", "num_candidates", "reranking_loss_weight"])
def test_a_setting_that_cannot_be_is_refused(flag, tmp_path, capsys):
    assert reranking_head.main(["--output_dir", str(tmp_path / "x"), f"--{flag}", "0"]) == 2
    assert f"--{flag}" in capsys.readouterr().err and not (tmp_path / "x").exists()
