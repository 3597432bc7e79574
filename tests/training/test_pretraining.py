"""Pretraining: its two tasks, the texts they are made of, and a first stage that goes on after a kill."""

from __future__ import annotations

import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from safetensors.torch import load_file

import train
from scaledown import hub
from scaledown.config import PretrainingConfig, ScaleDownConfig, TrainingConfig
from scaledown.data import texts as texts_room
from scaledown.data.records import write_records
from scaledown.data.texts import read_texts
from scaledown.data.world.synthetic import synthetic_records
from scaledown.training import pretraining, run
from scaledown.training.pretraining import CLEAR_WORDS, CONTINUE, REPEAT, PretrainingRecords

TEXTS = [" ".join(f"w{number}" for number in range(80)), "too short"]
QUICK = ["--num_memory_tokens", "2", "--batch_size", "2", "--logging_steps", "1", "--pretrain_steps", "4"]


def test_repeating_gives_back_a_span_of_the_text():
    for record in PretrainingRecords(TEXTS, 50, auto_encoding_share=1.0):
        assert record.query == REPEAT
        assert record.documents == (record.answer,)
        assert f" {record.answer} " in f" {TEXTS[0]} "


def test_continuing_goes_on_where_the_clear_words_end():
    for record in PretrainingRecords(TEXTS, 50, auto_encoding_share=0.0):
        clear = record.query.removeprefix(CONTINUE)
        assert len(clear.split()) == CLEAR_WORDS
        assert f" {record.documents[0]} {clear} {record.answer} " in f" {TEXTS[0]} "


def test_half_and_half_by_default_and_the_same_for_one_seed():
    records = PretrainingRecords(TEXTS, 400, seed=3)
    assert 150 < sum(record.query == REPEAT for record in records) < 250
    assert list(records) == list(PretrainingRecords(TEXTS, 400, seed=3)) != list(PretrainingRecords(TEXTS, 400, seed=4))
    assert len({record.id for record in records}) == len(records) == 400


def test_spans_grow_from_short_to_long():
    lengths = [len(record.documents[0].split()) for record in PretrainingRecords(TEXTS, 300, words=(2, 32))]
    assert max(lengths[:20]) <= 3
    assert sum(lengths[-50:]) / 50 > 16
    assert max(lengths) <= 32


def test_texts_that_are_too_short_are_an_error():
    with pytest.raises(ValueError, match="at least 7 words"):
        PretrainingRecords(["a b c"], 3)


def test_texts_come_from_each_kind_of_file(tmp_path):
    paragraphs = ["One paragraph\nof two lines.", "Another."]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs) + "\n\n \n", encoding="utf-8")
    records = list(synthetic_records(2, seed=1))
    write_records(tmp_path / "a.jsonl", [*records, records[0].__class__("again", "q", records[0].documents, "a")])
    pq.write_table(pa.table({"text": ["first", "second", " "], "url": ["x"] * 3}), tmp_path / "a.parquet")
    assert [text.strip() for text in read_texts(str(tmp_path / "a.txt"), 9, 0)] == paragraphs
    documents = itertools.chain.from_iterable(record.documents for record in records)
    assert read_texts(str(tmp_path / "a.jsonl"), 99, 0) == list(documents)
    assert read_texts(str(tmp_path / "a.parquet"), 9, 0) == ["first", "second"]
    assert read_texts(str(tmp_path / "a.txt"), 1, 0) == paragraphs[:1]


def test_a_folder_is_its_files_one_after_another(tmp_path):
    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_text("One paragraph\nof two lines.\n\nAnother.", encoding="utf-8")
    records = list(synthetic_records(1, seed=1))
    write_records(folder / "b.json", records)
    pq.write_table(pa.table({"text": ["first", "second"]}), folder / "more" / "c.parquet")
    (folder / "README.md").write_text("No text to train on.", encoding="utf-8")
    in_order = ["One paragraph\nof two lines.", "Another.", *records[0].documents, "first", "second"]
    assert read_texts(str(folder), 99, 0) == in_order

    (folder / "z.txt").write_bytes(b"caf\xe9")
    assert read_texts(str(folder), len(in_order), 0) == in_order, "nothing behind the last text asked for is read"
    with pytest.raises(ValueError, match="z.txt: not UTF-8"):
        read_texts(str(folder), 99, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no file of .txt, .json, .jsonl, .parquet in this folder"):
        read_texts(str(tmp_path / "empty"), 99, 0)


def test_a_hub_dataset_is_streamed_no_further_than_needed(monkeypatch):
    asked = []

    def stream(place, seed, **options):
        asked.append(options)
        yield {"text": "one"}
        yield {"text": "two"}
        raise AssertionError("read further than needed")

    monkeypatch.setattr(hub, "locate", lambda name, kind: name)
    monkeypatch.setattr(texts_room, "stream_rows", stream)
    assert read_texts("HuggingFaceFW/fineweb", 2, 0) == ["one", "two"]
    assert asked == [{"path": "HuggingFaceFW/fineweb", "split": "train"}]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.txt", b"caf\xe9", "not UTF-8"), ("a.txt", b" \n\n ", "no text in it"), ("a.json", b"[{}]", "query is missing"),
    ("a.tsv", b"id\ttext\n1\tA town.\n", "a table"),
    ("a.parquet", b"no parquet", "cannot be read"), ("b.txt", None, "no such file")])
def test_a_bad_source_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as fault:
        read_texts(str(tmp_path / name), 5, 0)
    assert name in str(fault.value)


def test_a_dataset_without_texts_tells_its_columns(tmp_path):
    pq.write_table(pa.table({"question": ["who?"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="column 'text'.*question"):
        read_texts(str(tmp_path / "a.parquet"), 5, 0)


def test_what_is_no_text_in_a_dataset_is_told_by_row(tmp_path):
    pq.write_table(pa.table({"text": ["a", None, "b", None]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="2 faults in its rows\n  row 2, text: expected text, got null\n  row 4, text"):
        read_texts(str(tmp_path / "a.parquet"), 5, 0)


def test_steps_lengths_and_rates_are_pretrainings_own_and_the_batch_is_that_of_the_training(tmp_path):
    (tmp_path / "a.txt").write_text(TEXTS[0])
    config = PretrainingConfig(pretrain_steps=50, pretrain_data=str(tmp_path / "a.txt"))
    training = TrainingConfig(batch_size=4, max_steps=7, learning_rate_generator=1e-2, readout_loss_weight=1.0)
    first_stage = pretraining.prepare(config, training, 32, tmp_path)
    assert (first_stage.config.batch_size, first_stage.config.max_steps) == (4, 50)
    assert first_stage.config.learning_rate_generator == first_stage.config.learning_rate_compressor == 1e-4
    assert first_stage.config.readout_loss_weight == 0.0
    lengths = [len(record.documents[0].split()) for record in first_stage.records]
    assert len(lengths) == 200 and min(lengths) == 2 and 20 <= max(lengths) <= 24
    assert pretraining.prepare(PretrainingConfig(), TrainingConfig(), 32, tmp_path) is None


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return tiny.generator_folder(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "records.json"
    write_records(path, list(synthetic_records(4, seed=3)))
    return str(path)


def compressor_weights(folder):
    return load_file(folder / "compressor.safetensors")


def same(one, other):
    return all(tensor.equal(other[name]) for name, tensor in one.items())


def test_one_command_does_both_stages_and_goes_on_after_a_kill(generator, data, tmp_path, monkeypatch, capsys):
    flags = ["--train_data", data, "--pretrain_data", data, "--generator_model", generator, "--save_steps", "2",
             "--max_steps", "2", *QUICK]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train.main([*flags, "--output_dir", str(whole)]) == 0
    pretrained = compressor_weights(whole / "pretraining" / run.FINAL)
    assert not same(pretrained, compressor_weights(whole / run.FINAL))

    def is_killed(*_, **__):
        raise KeyboardInterrupt

    # Killed at the end of pretraining, before its last checkpoint is written as final: it goes on from step 4.
    with monkeypatch.context() as patch:
        patch.setattr(run.ScaleDownModel, "save_pretrained", _saves(2, run.ScaleDownModel.save_pretrained, is_killed))
        assert train.main([*flags, "--output_dir", str(killed)]) != 0
    assert not (killed / "pretraining" / run.FINAL).exists()
    with monkeypatch.context() as patch:
        patch.setattr(run, "mean_loss", is_killed)
        assert train.main([*flags, "--output_dir", str(killed), "--resume"]) == 0
    assert same(pretrained, compressor_weights(killed / "pretraining" / run.FINAL))
    assert same(compressor_weights(whole / run.FINAL), compressor_weights(killed / run.FINAL))
    # A third start finds the first stage done and reads no text for it.
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "read_texts", is_killed)
        capsys.readouterr()
        assert train.main([*flags, "--output_dir", str(killed), "--resume"]) == 0
    out = capsys.readouterr().out
    assert "pretraining: done already" in out and "pretraining for" not in out


def _saves(number, save, is_killed):
    """``save``, which works for so many calls and then is killed."""
    calls = []

    def counted(self, folder):
        calls.append(folder)
        return save(self, folder) if len(calls) <= number else is_killed()

    return counted


def test_pretraining_alone_is_a_start_for_training(generator, data, tmp_path):
    base = ["--generator_model", generator, *QUICK[:6]]
    assert train.main([*base, "--pretrain_steps", "2", "--pretrain_data", data,
                       "--output_dir", str(tmp_path / "first")]) == 0
    assert not (tmp_path / "first" / run.FINAL).exists()
    start = str(tmp_path / "first" / "pretraining" / run.FINAL)
    assert train.main([*base, "--train_data", data, "--max_steps", "1", "--init_compressor", start,
                       "--learning_rate_compressor", "1e-12", "--output_dir", str(tmp_path / "second")]) == 0
    first, second = (compressor_weights(folder) for folder in (tmp_path / "first" / "pretraining" / run.FINAL,
                                                               tmp_path / "second" / run.FINAL))
    assert all((first[name] - second[name]).abs().max() < 1e-6 for name in first)
    assert json.loads((tmp_path / "second" / "config.json").read_text())["settings"]["init_compressor"] == start


def test_pretraining_makes_a_model_repeat(generator, tmp_path):
    """Three words, over and over: what the memory says is all that tells which comes next."""
    texts = [" ".join(each) for each in (("Ada",) * 12, ("Oslo",) * 12, ("1815.",) * 12)]
    config = ScaleDownConfig(generator_model=generator, num_memory_tokens=2, lora_dropout=0.0)
    model = run.build_model(config, "cpu", 1)
    settings = TrainingConfig(batch_size=4, max_steps=50, learning_rate_generator=5e-3, learning_rate_compressor=5e-3,
                              warmup_ratio=0.0, logging_steps=5)
    records = PretrainingRecords(texts, 200, (2, 3), auto_encoding_share=1.0)
    log = pretraining.Pretraining(settings, records, tmp_path, resume=False).run(model)
    losses = [row["answer_loss"] for row in log if "answer_loss" in row]
    assert losses[-1] < 0.2 * losses[0]
    answers = model.answer([REPEAT] * 2, [["Ada Ada"], ["Oslo Oslo Oslo"]])
    assert [set(answer.split()) for answer in answers] == [{"Ada"}, {"Oslo"}]


@pytest.mark.parametrize(("flags", "message"), [
    ([], "--train_data, or --pretrain_steps"), (["--pretrain_steps", "0", "--pretrain_data", "x"], "--pretrain_steps"),
    (["--pretrain_data", "texts.txt"], "--pretrain_steps"),
    (["--pretrain_steps", "2", "--pretrain_data", "nowhere.txt"], "nowhere.txt: no such file"),
    (["--pretrain_steps", "2"], "fineweb.*--pretrain_data FILE")])
def test_a_users_mistake_gets_a_message_and_leaves_nothing(generator, tmp_path, capsys, flags, message):
    assert train.main(["--generator_model", generator, "--output_dir", str(tmp_path / "run"), *flags]) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in message.split(".*"))
    assert not (tmp_path / "run").exists()
