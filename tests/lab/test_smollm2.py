"""The lessons of the checkpoint smollm2, and its command on a generator of a few thousand weights."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import tiny
import torch

from lab.smollm2 import lesson_loop, lesson_plan
from lab.smollm2.__main__ import main
from lab.smollm2.copying import ideal_memory, learn_to_copy
from lab.smollm2.fewer_layers import with_fewer_layers
from lab.smollm2.imitation import divergence, imitate, with_encoder
from lab.smollm2.lesson_plan import model_config, stages
from lab.smollm2.lesson_steps import LessonSteps
from lab.smollm2.lessons import IRRELEVANT, RELEVANT, Lesson, records_of
from scaledown import ScaleDownModel
from scaledown.data.answers import padded
from scaledown.data.records import Record, write_records
from scaledown.models.losses import IGNORED
from scaledown.models.processor.training_targets import UNSTATED

TOWNS = ("Oslo", "Rome", "Lima", "Cairo", "Quito", "Delhi")


def passage(number: int) -> str:
    town = TOWNS[number % len(TOWNS)]
    return f"Person {number} was born in {town} in the year {1900 + number} and sold {number + 2000} clocks."


def question(number: int, kind: str) -> Record:
    near = [passage((number + step) % 12) for step in (1, 2, 3)]
    answer = {"year": str(1900 + number), "clocks": str(number + 2000)}[kind]
    documents = (near[0], passage(number), *near[1:])
    return Record(f"{kind}-{number}", f"Which {kind} of person {number}?", documents, answer)


RECORDS = [question(number // 2, ("year", "clocks")[number % 2]) for number in range(24)]


def original(record: Record) -> str:
    return record.id.rsplit("-", 1)[0]


def test_every_question_comes_once_before_any_comes_again():
    made = records_of(Lesson((1, 2)), RECORDS, num_steps=6, batch_size=8, seed=3)
    assert len(made) == 48 and len({record.id for record in made}) == 48
    assert Counter(map(original, made[:24])) == Counter(record.id for record in RECORDS)
    assert Counter(map(original, made)) == Counter({record.id: 2 for record in RECORDS})
    assert made == records_of(Lesson((1, 2)), RECORDS, 6, 8, 3), "a resumed run gets the same ones"
    assert made[:8] == records_of(Lesson((1, 2)), RECORDS, 1, 8, 3), "a longer run begins like a shorter one"


def test_a_step_reads_few_passages():
    made = records_of(Lesson((1, 2, 3)), RECORDS, num_steps=3, batch_size=8, seed=0)
    for start in range(0, 24, 8):
        read: set[str] = set()
        for record in made[start:start + 8]:
            read.update(record.documents)
        assert len(read) <= 5, "8 questions are about 4 passages, or 5 where a step begins with the rest of one"


def test_each_record_has_its_passage_and_others_that_do_not_answer():
    lesson = Lesson((1, 2, 3, 4), own_share=0.5)
    for record in records_of(lesson, RECORDS, num_steps=6, batch_size=8, seed=1):
        gold = [padded(record.answer) in padded(document) for document in record.documents]
        assert gold.count(True) == 1
        assert record.reranking_scores == tuple(RELEVANT if is_gold else IRRELEVANT for is_gold in gold)
        assert len(set(record.documents)) == len(record.documents) <= 4


def test_without_the_passage_the_answer_is_unknown():
    made = records_of(Lesson((3,), unanswered_share=0.5, own_share=1.0), RECORDS, 6, 8, 2)
    unanswered = [record for record in made if record.answer == UNSTATED]
    assert 10 < len(unanswered) < 38
    by_id = {record.id: record for record in RECORDS}
    for record in unanswered:
        wanted = padded(by_id[original(record)].answer)
        assert record.answers == (UNSTATED,) and not any(wanted in padded(each) for each in record.documents)
        assert set(record.reranking_scores) == {IRRELEVANT} and len(record.documents) == 3


def test_records_without_an_answer_in_their_documents_are_refused():
    with pytest.raises(ValueError, match="no document states the answer"):
        records_of(Lesson((1,)), [Record("1", "Who?", ("Nobody knows.",), "Ada")], 1, 4, 0)


def test_the_first_stage_trains_the_compressor_alone_and_stages_of_no_steps_are_left_out():
    first, second = stages(RECORDS, LessonSteps(passage_steps=2, document_steps=2))
    assert first.training.readout_steps == 2 and not second.training.readout_steps
    assert [stage.name for stage in stages(RECORDS, LessonSteps(passage_steps=0, document_steps=2))] == ["documents"]
    assert len(first.records(None)) == 2 * first.training.batch_size


@pytest.mark.parametrize(("lengths", "names"), [
    ((1, 1, 1), ["passages", "copying", "documents"]), ((1, 1, 0), ["passages", "copying"]), ((0, 1, 0), ["copying"]),
    ((1, 0, 1), ["passages", "documents"])])
def test_copying_comes_after_the_passages_also_without_documents(lengths, names, monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr(lesson_plan, "train_all", lambda stages, model, folder: trained.extend(
        stage.name for stage in stages))
    monkeypatch.setattr(lesson_plan, "copy_first", lambda *arguments: trained.append("copying"))
    passages, copying, documents = lengths
    steps = LessonSteps(passage_steps=passages, copying_steps=copying, document_steps=documents)
    lesson_plan.train(None, RECORDS, steps, tmp_path)
    assert trained == names


@pytest.fixture
def generator(tmp_path) -> str:
    return tiny.generator_folder(tmp_path / "generator", tie_word_embeddings=True)


def build(generator: str) -> ScaleDownModel:
    torch.manual_seed(0)
    return ScaleDownModel(model_config(generator))


def test_ideal_memory_is_the_answers_tokens_then_the_end(generator):
    model = build(generator)
    record = Record("1", "Which year?", (passage(3), passage(4)), "1903")
    targets = model.processor.collate([record], with_readout=True)["readout_targets"]
    memory = ideal_memory(model, targets)
    end = model.generator.embed(torch.tensor(model.processor.prompt.end_id))
    for of_document, target in zip(memory, targets, strict=True):
        said = target[target != IGNORED]
        assert torch.equal(of_document[:len(said)], model.generator.embed(said))
        assert torch.equal(of_document[len(said):], end.expand(8 - len(said), -1))


def test_copying_trains_the_generator_alone(generator):
    model = build(generator)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    records = records_of(Lesson((1, 2)), RECORDS, num_steps=12, batch_size=4, seed=0)
    losses = learn_to_copy(model, records, batch_size=4, rate=3e-2, answer_tokens=8)
    assert len(losses) == 12 and sum(losses[-3:]) < sum(losses[:3])
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed and all(name.startswith("generator.") for name in changed)


def command(generator: str, tmp_path: Path, *flags: str) -> list[str]:
    write_records(tmp_path / "records.json", RECORDS)
    return ["--train_data", str(tmp_path / "records.json"), "--generator_model", generator, "--device", "cpu",
            "--passage_steps", "1", "--copying_steps", "1", "--document_steps", "1", *flags]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_command_trains_and_a_second_call_goes_on(dtype, generator, tmp_path, capsys):
    argv = command(generator, tmp_path, "--dtype", dtype, "--output_dir", str(tmp_path / "run"))
    assert main(argv) == 0
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert all(f"{stage}: done already" in out for stage in ("passages", "copying", "documents"))
    model = ScaleDownModel.from_pretrained(tmp_path / "run" / "checkpoint")
    assert model.config.soft_tokens and model.progress.num_steps == 2
    assert isinstance(model.answer("Which year of person 1?", [passage(1)]), str)


def test_the_command_takes_layers_away(generator, tmp_path, capsys):
    build(generator).save_pretrained(tmp_path / "whole")
    argv = command(generator, tmp_path, "--init_compressor", str(tmp_path / "whole"), "--keep_layers", "0,2-3",
                   "--output_dir", str(tmp_path / "run"))
    assert main(argv) == 0
    model = ScaleDownModel.from_pretrained(tmp_path / "run" / "checkpoint")
    assert model.config.layers == "0,2-3" and len(model.compressor.body.layers) == 3

    with pytest.raises(SystemExit) as refused:
        main(command(generator, tmp_path, "--keep_layers", "0"))
    assert refused.value.code == 2 and "name it with --init_compressor" in capsys.readouterr().err


def encoder_beside(larger: ScaleDownModel, tmp_path: Path) -> ScaleDownModel:
    return with_encoder(larger, tiny.encoder_folder(tmp_path / "encoder"), seed=5)


def test_an_encoder_stands_beside_the_trained_generator(generator, tmp_path):
    larger = build(generator)
    tiny.move_adapter(larger)
    model = encoder_beside(larger, tmp_path)
    assert model.config.compressor_type == "modernbert" and model.config.soft_tokens
    for name, weight in larger.generator.state_dict().items():
        assert torch.equal(model.generator.state_dict()[name], weight)
    again = with_encoder(larger, model.config.compressor_model, seed=5)
    assert torch.equal(again.compressor.mlp[0].weight, model.compressor.mlp[0].weight), "new weights are seeded"


def test_divergence_is_in_nats_a_token_and_none_from_itself():
    table, states, wanted = torch.randn(7, 4), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    p, q = (wanted @ table.T).softmax(-1), (states @ table.T).softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(divergence(states, wanted, table), expected)
    torch.testing.assert_close(divergence(wanted, wanted, table), torch.tensor(0.0))


@pytest.mark.parametrize("kind", ["encoder", "fewer layers"])
def test_imitation_brings_the_memory_nearer_and_trains_the_compressor_alone(kind, generator, tmp_path):
    larger = build(generator)
    tiny.move_adapter(larger)
    if kind == "encoder":
        model = encoder_beside(larger, tmp_path)
    else:
        model = with_fewer_layers(larger, "0,3")
    before = {name: weight.clone() for name, weight in model.generator.state_dict().items()}
    of_larger = {name: weight.clone() for name, weight in larger.state_dict().items()}

    def distance() -> float:
        memory = [each.compress(question(3, "year").query, [passage(3), passage(5)]).embeddings
                  for each in (model, larger)]
        return (memory[0] - memory[1]).norm().item()

    far = distance()
    records = records_of(Lesson((1, 2)), RECORDS, num_steps=30, batch_size=4, seed=0)
    losses = imitate(model, larger, records, batch_size=4, rate=1e-2)
    assert len(losses) == 30 and sum(losses[-5:]) < sum(losses[:5]) and distance() < far
    for name, weight in model.generator.state_dict().items():
        assert torch.equal(weight, before[name])
    for name, weight in larger.state_dict().items():
        assert torch.equal(weight, of_larger[name])


def test_a_killed_imitation_goes_on_from_its_last_checkpoint(generator, tmp_path, monkeypatch, capsys):
    larger = build(generator)
    records = records_of(Lesson((1,)), RECORDS, num_steps=5, batch_size=4, seed=0)
    monkeypatch.setattr(lesson_loop, "SAVE_STEPS", 2)

    model = with_fewer_layers(larger, "0,3")
    assert len(imitate(model, larger, records[:4 * 4], 4, 1e-2, tmp_path)) == 4
    trained = {name: weight.clone() for name, weight in model.compressor.state_dict().items()}

    # A new process has the weights of the start, and the lesson has one more step than the checkpoint.
    another = with_fewer_layers(larger, "0,3")
    assert len(imitate(another, larger, records[:4 * 4], 4, 1e-2, tmp_path)) == 0
    for name, weight in another.compressor.state_dict().items():
        assert torch.equal(weight, trained[name])
    assert len(imitate(with_fewer_layers(larger, "0,3"), larger, records, 4, 1e-2, tmp_path)) == 1
    assert f"imitation: goes on from {tmp_path / 'checkpoint-4'}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]


def test_imitation_needs_mixtures_of_tokens(generator):
    plain = ScaleDownModel(dataclasses.replace(model_config(generator), soft_tokens=False))
    with pytest.raises(ValueError, match="--memory_of: both compressors must make their memory of tokens"):
        imitate(build(generator), plain, RECORDS, 4, 1e-3)


def test_the_command_trains_an_encoder_by_the_memory_of_a_checkpoint(generator, tmp_path, capsys):
    build(generator).save_pretrained(tmp_path / "larger")
    encoder = tiny.encoder_folder(tmp_path / "encoder")
    argv = command(generator, tmp_path, "--compressor_model", encoder, "--memory_of", str(tmp_path / "larger"),
                   "--vocabulary_steps", "1", "--pointing_steps", "1", "--imitation_steps", "2",
                   "--output_dir", str(tmp_path / "run"))
    assert main(argv) == 0
    assert main(argv) == 0
    out = capsys.readouterr().out
    for stage in ("vocabulary", "pointing", "imitation", "passages", "documents"):
        assert f"{stage}: done already" in out
    model = ScaleDownModel.from_pretrained(tmp_path / "run" / "checkpoint")
    assert model.config.compressor_type == "modernbert"
    assert isinstance(model.answer("Which year of person 1?", [passage(1)]), str)

    # An encoder goes on from its checkpoint.
    argv = command(generator, tmp_path, "--init_compressor", str(tmp_path / "run" / "checkpoint"), "--memory_of",
                   str(tmp_path / "larger"), "--vocabulary_steps", "0", "--pointing_steps", "1", "--imitation_steps",
                   "0", "--output_dir", str(tmp_path / "further"))
    assert main(argv) == 0
    assert ScaleDownModel.from_pretrained(tmp_path / "further" / "checkpoint").config.compressor_type == "modernbert"

    # A lesson of no steps is left out.
    argv = command(generator, tmp_path, "--compressor_model", encoder, "--memory_of", str(tmp_path / "larger"),
                   "--vocabulary_steps", "0", "--pointing_steps", "0", "--imitation_steps", "0",
                   "--output_dir", str(tmp_path / "short"))
    assert main(argv) == 0
    assert not (tmp_path / "short" / "imitation").exists()

    with pytest.raises(SystemExit) as refused:
        main(command(generator, tmp_path, "--compressor_model", encoder))
    assert refused.value.code == 2 and "goes with --memory_of" in capsys.readouterr().err
