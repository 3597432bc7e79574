"""The benchmark of documents read ahead, on a model of a few thousand weights."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import tiny

from lab.benchmark_read_ahead import COMPRESSED, FULL_TEXT, READ_AHEAD, job, main
from scaledown import ScaleDownModel
from scaledown.config import ScaleDownConfig
from scaledown.data.records import Record, write_records

RECORDS = [Record(str(number), f"Where is number {number}?", (f"Number {number} is in box {number + 3}.", "A box."),
                  "there") for number in range(6)]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    generator = tiny.generator_folder(tmp_path / "generator")
    config = ScaleDownConfig(generator_model=generator, num_layers=2, num_memory_tokens=2, input_order="document_first")
    ScaleDownModel(config).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def command(checkpoint: Path, *flags: str) -> list[str]:
    write_records(checkpoint.parent / "records.json", RECORDS)
    return ["--checkpoint", str(checkpoint), "--eval_data", str(checkpoint.parent / "records.json"), "--device", "cpu",
            "--batch_sizes", "1", "2", "--answer_tokens", "3", "--output_dir", str(checkpoint.parent / "out"), *flags]


def test_every_system_and_batch_size_has_its_times(checkpoint, capsys):
    assert main(command(checkpoint, "--rounds", "2")) == 0
    out = capsys.readouterr().out
    rows = json.loads((checkpoint.parent / "out" / "read_ahead.json").read_text())["rows"]
    measured = [(row["batch_size"], row["system"]) for row in rows]
    assert measured == [(1, FULL_TEXT), (1, COMPRESSED), (1, READ_AHEAD),
                        (2, FULL_TEXT), (2, COMPRESSED), (2, READ_AHEAD)]
    assert all(row["first_token"]["median"] > 0 and row["whole_answer"]["median"] > 0 for row in rows)
    assert out.count("1.00x") >= 4, "full text is as fast as itself"


def test_all_say_as_many_tokens_and_only_one_system_has_read_the_documents(checkpoint, monkeypatch):
    model = ScaleDownModel.from_pretrained(checkpoint, device="cpu").for_answering()
    store = model.read_documents(list(itertools.chain.from_iterable(record.documents for record in RECORDS)))
    said, stores = [], []
    compress, decode = model.compress, model.decode

    def watched_decode(prompts, max_new_tokens, **options):
        answers = decode(prompts, max_new_tokens, **options)
        said.append(prompts.num_new_tokens)
        return answers

    def watched_compress(questions, documents, store=None):
        stores.append(store)
        return compress(questions, documents, store=store)

    monkeypatch.setattr(model, "decode", watched_decode)
    monkeypatch.setattr(model, "compress", watched_compress)
    for system in (FULL_TEXT, COMPRESSED, READ_AHEAD):
        job(model, system, [RECORDS[:2]], store, 3)()
    assert said == [[1, 1], [3, 3]] * 3
    assert stores == [None, None, store, store]


def test_too_few_records_are_refused(checkpoint, capsys):
    assert main(command(checkpoint, "--rounds", "9")) == 2
    assert "6 records, but 9 rounds and one to warm up" in capsys.readouterr().err
