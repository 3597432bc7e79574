"""--readout_loss_weight: what the memory itself is to say, by hand, and what learns from it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
import torch
import torch.nn.functional as F
from transformers import TrainerCallback

from scaledown.config import PretrainingConfig, ScaleDownConfig, TrainingConfig
from scaledown.data.records import Record
from scaledown.models.loading.parameters import trained
from scaledown.models.losses import IGNORED, READOUT_SHARPNESS, Losses
from scaledown.models.model import ScaleDownModel
from scaledown.models.processor.training_targets import UNSTATED, readout_targets
from scaledown.training import objective, pretraining, run, trainer
from scaledown.training.batches import shapes_of
from scaledown.training.steps.callbacks import RunningMean

NUM_MEMORY_TOKENS = 3
RECORDS = [
    Record("stated", "Who was born in London?", ("Oslo is far.", "It was Ada, of course.", "Ada's London"), "Ada"),
    Record("alias", "Who?", ("Said Ada.",), "Her name was Ada Lovelace, says the document.", ("Byron", "Ada")),
    Record("own words", "Why?", ("Paris", "Oslo"), "Because nobody knows."),
    Record("yes", "Is it so?", ("Yes, it is.",), "yes"),
    Record("none", "Who?", (), "Ada"),
]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"))


def build(generator: str) -> ScaleDownModel:
    torch.manual_seed(0)
    return ScaleDownModel(ScaleDownConfig(generator_model=generator, num_memory_tokens=NUM_MEMORY_TOKENS,
                                          compression_rate=8, lora_dropout=0.0))


def test_each_document_states_the_answer_or_one_of_its_aliases_or_nothing() -> None:
    assert [record.stated_answers for record in RECORDS] == [("", "Ada", ""), ("Ada",), ("", ""), ("",), ()]


def test_the_memory_is_to_say_what_its_document_states_and_no_more(generator: str) -> None:
    processor = build(generator).processor
    end, rest = processor.prompt.end_id, [IGNORED] * NUM_MEMORY_TOKENS
    ada, unknown = processor.tokenizer(["Ada", UNSTATED], add_special_tokens=False).input_ids
    said, nothing = ((ids + [end] + rest)[:NUM_MEMORY_TOKENS] for ids in (ada, unknown))
    assert readout_targets(processor, RECORDS, NUM_MEMORY_TOKENS).tolist() == [
        nothing, said, nothing, said, rest, rest, rest]
    assert readout_targets(processor, RECORDS[:2], 1).tolist() == [
        unknown[:1], ada[:1], unknown[:1], ada[:1]]
    assert readout_targets(processor, RECORDS[4:], 2).shape == (0, 2)


def test_the_loss_goes_by_the_angle_to_the_tokens_embeddings(generator: str) -> None:
    model = build(generator)
    batch = model.processor.collate(RECORDS, with_readout=True)
    found = model(batch)
    memory = torch.cat([model.compress([record.query], [record.documents]).pairs() for record in RECORDS])
    table = model.generator.base.get_input_embeddings().weight
    expected = []
    for embeddings, targets in zip(memory, batch["readout_targets"], strict=True):
        for embedding, target in zip(embeddings, targets, strict=True):
            logits = READOUT_SHARPNESS * embedding / embedding.norm() @ table.T / table.norm(dim=-1).mean()
            expected += [] if target == IGNORED else [F.cross_entropy(logits, target)]
    torch.testing.assert_close(found.readout_loss, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)
    del batch["readout_targets"]
    without = model(batch)
    assert without.readout_loss is None and without.answer_loss.equal(found.answer_loss)


def test_the_loss_is_its_parts_each_times_its_weight() -> None:
    """The answers' counts whole, and that of the readout falls to 0; what a batch has nothing of adds nothing."""
    config = TrainingConfig(reranking_loss_weight=0.1, readout_loss_weight=0.5, readout_steps=2)
    found = [objective.weights(config, ScaleDownConfig(), step, 6) for step in range(7)]
    assert found[0] == (1.0, 0.1, 0.5)
    assert [readout for _, _, readout in found] == pytest.approx([0.5, 0.5, 0.5, 0.375, 0.25, 0.125, 0.0])
    soft = ScaleDownConfig(compressor_type="llm", generator_model="g", compressor_model="g", soft_tokens=True)
    assert {objective.weights(config, soft, step, 6) for step in range(7)} == {(1.0, 0.1, 0.5)}, "soft tokens keep it"
    parts = Losses(*map(torch.tensor, (4.0, 3.0, 2.0)))
    assert objective.weighted(parts, found[0]).item() == pytest.approx(4.0 + 0.1 * 3.0 + 0.5 * 2.0)
    assert objective.weighted(parts._replace(answer_loss=None, reranking_loss=None), found[0]).item() == 1.0
    assert objective.times(parts, (2, 1, 0)) == (8.0, 3.0, 0.0)


def test_the_compressor_alone_learns_from_it(generator: str) -> None:
    model = build(generator)
    model(model.processor.collate(RECORDS, with_readout=True)).readout_loss.backward()
    assert model.compressor.memory_rows.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.generator.parameters())


def test_a_batch_in_one_shape_has_the_same_loss(generator: str) -> None:
    model = build(generator)
    batch = model.processor.collate(RECORDS[:2], with_readout=True)
    shapes = shapes_of(RECORDS, model.processor)
    padded = model.processor.collate(RECORDS[:2], with_readout=True, shapes=shapes, batch_size=4)
    assert len(padded["readout_targets"]) == 4 * 3
    torch.testing.assert_close(model(padded).readout_loss, model(batch).readout_loss)


def test_it_is_logged_and_trained_and_left_out_of_pretraining(generator: str, tmp_path) -> None:
    model = build(generator)
    config = TrainingConfig(batch_size=2, max_steps=2, logging_steps=1, readout_loss_weight=0.25)
    rows = [row for row in run.train(model, config, RECORDS[:4], tmp_path) if "answer_loss" in row]
    assert len(rows) == 2
    for row, weight in zip(rows, (0.25, 0.125), strict=True):
        assert row["loss"] == pytest.approx(row["answer_loss"] + weight * row["readout_loss"], rel=1e-3)
    texts = tmp_path / "texts.txt"
    texts.write_text("a b c d e f g h i j k l\n")
    stage = pretraining.prepare(PretrainingConfig(pretrain_steps=1, pretrain_data=str(texts)), config, 24, tmp_path)
    assert stage.config.readout_loss_weight == 0


def test_at_first_the_compressor_learns_from_it_alone(generator: str, tmp_path, monkeypatch) -> None:
    """The generator is not run and does not change; then the weight falls from there, as it does without."""
    model = build(generator)
    weights: list[list[torch.Tensor]] = []
    run_at, states = [], model.generator.states

    def counted(*args: object) -> torch.Tensor:
        run_at.append(len(weights))
        return states(*args)

    class Watch(TrainerCallback):
        def on_step_end(self, *args: object, **kwargs: object) -> None:
            weights.append([each.detach().clone() for each in trained(model.generator).values()])

    monkeypatch.setattr(model.generator, "states", counted)
    monkeypatch.setattr(trainer, "CompressorFirst", lambda *args: Watch())
    before = [each.detach().clone() for each in trained(model.generator).values()]
    config = TrainingConfig(batch_size=2, max_steps=4, logging_steps=1, readout_loss_weight=0.5, readout_steps=2)
    rows = [row for row in run.train(model, config, RECORDS[:4], tmp_path) if "readout_loss" in row]
    assert run_at == [2, 3]
    assert ["answer_loss" in row for row in rows] == [False, False, True, True]
    for row, weight in zip(rows, (0.5, 0.5, 0.5, 0.25), strict=True):
        assert row["loss"] == pytest.approx(row.get("answer_loss", 0) + weight * row["readout_loss"], rel=1e-3)
    assert all(map(torch.equal, weights[1], before)) and not all(map(torch.equal, weights[3], before))


def test_steps_on_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="--readout_steps 10 learns from the readout loss alone: give it a weight"):
        TrainingConfig(readout_steps=10)


def test_a_mean_is_over_the_steps_that_had_such_a_part() -> None:
    means = RunningMean()
    for values in ({"a": 1.0}, {"a": 2.0, "b": 5.0}):
        means.add(**{name: torch.tensor(value) for name, value in values.items()})
        means.end_step()
    assert means.take() == {"a": 1.5, "b": 5.0} and means.take() == {}


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="--readout_loss_weight must be at least 0"):
        TrainingConfig(readout_loss_weight=-1.0)


class Spacing:
    """A tokenizer to which a word and its space are one token, and a number's space one of its own."""

    def __call__(self, texts: list[str], **settings: object) -> SimpleNamespace:
        ids = {"Ada": [7, 8], " Ada": [9], "1791": [1, 2], " 1791": [3, 1, 2], "unknown": [5], " unknown": [6]}
        return SimpleNamespace(input_ids=[ids[text] for text in texts])


def test_an_answer_is_asked_for_behind_its_space_where_that_is_no_longer(generator: str, monkeypatch) -> None:
    processor = build(generator).processor
    end = processor.prompt.end_id
    monkeypatch.setattr(processor, "tokenizer", Spacing())
    records = [Record("word", "Who?", ("It was Ada.", "Oslo"), "Ada"), Record("year", "When?", ("In 1791.",), "1791")]
    assert readout_targets(processor, records, 3).tolist() == [[9, end, IGNORED], [6, end, IGNORED], [1, 2, end]]


def test_the_reply_leads_from_a_query_behind_its_document_to_the_memory(generator: str) -> None:
    model = ScaleDownModel(ScaleDownConfig(generator_model=generator, num_memory_tokens=NUM_MEMORY_TOKENS,
                                           input_order="document_first", memory_init="reply"))
    reply = model.processor.prompt.reply
    texts = model.processor.compressor_texts(["Who?"], [["Ada"]])
    behind = [*reply[:-1], *[0] * NUM_MEMORY_TOKENS]
    assert len(reply) > 1 and texts.suffixes[0][-len(behind):] == behind
    assert list(texts.reads[-1]) == list(range(len(texts.suffixes[0])))[-NUM_MEMORY_TOKENS:]
    last = model.generator.embed(torch.tensor(reply[-1:]))
    assert torch.equal(model.compressor.memory_rows, last.expand(NUM_MEMORY_TOKENS, -1))
