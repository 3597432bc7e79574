"""The robustness command: what each sweep asks, where needles are, that a killed run goes on, and its figures."""

from __future__ import annotations

import json

import pytest
import tiny
import torch

from scaledown.config import ScaleDownConfig
from scaledown.data.answers import normalise
from scaledown.data.records import Record, write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.evaluation.figures.needle import (
    WINDOW_TOKENS,
    Needle,
    cosines,
    find_needle,
    look_into_memory,
    memory_of_one,
)
from scaledown.evaluation.robustness import __main__ as robustness
from scaledown.evaluation.robustness import measuring
from scaledown.evaluation.robustness.sweep_figure import title
from scaledown.evaluation.robustness.sweeps import NUM_DOCUMENTS, cases, holds_answer, settings
from scaledown.models.model import ScaleDownModel

QUICK = ["--eval_examples", "3", "--max_new_tokens", "2", "--bootstrap_resamples", "10", "--device", "cpu"]


@pytest.fixture(scope="module")
def records():
    return list(synthetic_records(40, seed=5, split="eval", difficulty=robustness.EMBEDDED_WORLD))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    generator = tiny.generator_folder(tmp_path_factory.mktemp("generator"))
    return ScaleDownModel(ScaleDownConfig(generator_model=generator, num_memory_tokens=4, train_memory_tokens=(2, 4),
                                          compression_rate=64))


@pytest.fixture(scope="module")
def points(records):
    return settings(cases(records, 20, 1), (2, 4), 120, lambda text: len(text.split()))


def of(points, sweep):
    return {point.value: point for point in points if point.sweep == sweep}


def test_every_question_keeps_its_one_right_document_at_every_point(points):
    assert {point.sweep for point in points} == {"num_documents", "gold_place", "alike_share", "document_tokens",
                                                 "num_memory_tokens"}
    for point in points:
        assert [record.id for record in point.records] == [record.id for record in points[0].records]
        assert len(point.records) == 20
        for record in point.records:
            right = [document for document in record.documents if holds_answer(document, record)]
            # A filled-up document may come by the answer in its filler.
            assert len(right) == 1 or (point.sweep == "document_tokens" and right)


def test_each_sweep_changes_what_it_says(points, records):
    own = {record.id: record.documents for record in records}
    for value, point in of(points, "num_documents").items():
        assert {len(record.documents) for record in point.records} == {value}
    for value, point in of(points, "gold_place").items():
        assert all(holds_answer(record.documents[value - 1], record) for record in point.records)
    for value, point in of(points, "alike_share").items():
        for record in point.records:
            assert sum(document in own[record.id] for document in record.documents) == 1 + round(4 * value)
            assert len(record.documents) == NUM_DOCUMENTS
    for value, point in of(points, "document_tokens").items():
        for record in point.records:
            texts = own[record.id]
            most_words = max(value, *(len(text.split()) for text in texts))
            for document in record.documents:
                assert any(text in document for text in texts)
                assert value - 15 < len(document.split()) <= most_words
    assert set(of(points, "num_memory_tokens")) == {2, 4}
    places = set()
    for record in of(points, "num_documents")[5].records:
        holding = [holds_answer(document, record) for document in record.documents]
        places.add(holding.index(True))
    assert len(places) == 5


def test_questions_without_one_right_document_are_left_out(records):
    unfit = [Record("none", "q", ("no",), "yes"), Record("two", "q", ("yes a", "yes b"), "yes")]
    assert [case.record.id for case in cases([*unfit, *records[:2]], 9, 1)] == [each.id for each in records[:2]]
    with pytest.raises(ValueError, match="none of the 2 questions"):
        cases(unfit, 9, 1)


def test_points_that_a_question_cannot_fill_are_left_out(capsys):
    few = [Record(str(number), "who?", (f"answer{number} came", f"nobody{number} came"), f"answer{number}")
           for number in range(4)]
    left = settings(cases(few, 4, 1), (4,), 40, lambda text: len(text.split()))
    assert [(point.sweep, point.value) for point in left] == [
        *(("num_documents", value) for value in (1, 2, 5)), *(("gold_place", value) for value in (1, 3, 5, 8)),
        ("alike_share", 0.0), ("alike_share", 0.25), ("document_tokens", 0)]
    warning, = capsys.readouterr().out.strip().splitlines()
    assert "num_documents 10, num_documents 20, num_documents 50, gold_place 10, alike_share 0.5" in warning
    assert "document_tokens 40; the fewest documents of a question are 8" in warning and "look-alikes 1;" in warning


def test_a_needle_is_found_token_by_token():
    tokenizer = tiny.tokenizer()
    document = "Ada Lovelace was born in London in 1815."
    needle = find_needle(tokenizer, document, ["Paris", "london"], 100)
    assert tokenizer.decode(needle.ids[needle.first:needle.last + 1]).strip() == "London"
    assert [needle.distance(place) for place in (needle.first - 2, needle.first, needle.last, needle.last + 3)] == [
        -2, 0, 0, 3]
    assert find_needle(tokenizer, document, ["Paris"], 100) is None
    assert find_needle(tokenizer, document, ["London"], needle.last) is None


def test_a_needle_is_a_whole_word_at_its_own_place():
    """Not a part of another word or number; and not moved by letters whose lower case is longer."""
    tokenizer = tiny.tokenizer()
    assert find_needle(tokenizer, "Norwegian words of 11815 pages", ["way", "1815", "Norwegia"], 100) is None
    document = "\u0130\u0130\u0130\u0130 came after 11815 in 1815 and left"
    needle = find_needle(tokenizer, document, ["1815"], 100)
    assert tokenizer.decode(needle.ids[needle.first:needle.last + 1]).strip() == "1815"
    assert tokenizer.decode(needle.ids[needle.last + 1:]).strip() == "and left"


def test_likeness_is_cosine_and_nearest_are_vocabulary_rows(model, records):
    table = model.generator.base.get_input_embeddings().weight.detach()
    assert cosines(table[5:7], table[5:7]).diagonal().tolist() == pytest.approx([1, 1])
    assert cosines(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.6)
    found = look_into_memory(model, [(case.record, case.gold) for case in cases(records, 6, 1)])
    example, around = found["example"], found["around"]["asked"]
    assert len(example["similarity"]) == len(example["nearest"]) == 4
    assert {len(row) for row in example["similarity"]} == {len(example["tokens"])}
    first, last = example["answer_tokens"]
    # The word's punctuation counts as part of it.
    assert normalise("".join(example["tokens"][first:last + 1])) == normalise(example["answer"])
    assert around["distance_tokens"] == sorted(around["distance_tokens"]) and 0 in around["distance_tokens"]
    assert max(map(abs, around["distance_tokens"])) <= WINDOW_TOKENS
    assert all(row[0]["cosine"] >= row[1]["cosine"] for row in example["nearest"])


def test_one_documents_memory_is_that_of_the_first_one_that_holds_its_answer(model, records):
    nowhere = Record(id="x", query="Who?", documents=("Nobody is here.",), answer="Somebody Else")
    record = records[0]
    found = memory_of_one(model, [nowhere, record])
    assert found["query"] == record.query and found["answer"] == record.references[0]
    document = next(each for each in record.documents if record.references[0].lower() in each.lower())
    memory = model.compress([record.query], [[document]]).embeddings[0, 0]
    table = model.generator.base.get_input_embeddings().weight.detach()
    ids = model.processor.tokenizer(document, add_special_tokens=False).input_ids
    torch.testing.assert_close(torch.tensor(found["similarity"]), cosines(memory, table[ids]))
    assert memory_of_one(model, [nowhere]) is None


def test_memory_is_compared_with_embeddings_as_the_layers_get_them(records, tmp_path):
    """Some families change what their table holds: Gemma 3 scales it; this one scales each dimension differently."""
    class Scaled(torch.nn.Embedding):
        def forward(self, ids):
            return super().forward(ids) * torch.linspace(0.1, 4, self.embedding_dim)

    model = ScaleDownModel(ScaleDownConfig(generator_model=tiny.generator_folder(tmp_path), num_memory_tokens=4,
                                           compression_rate=64))
    base = model.generator.base
    table = base.get_input_embeddings().weight
    base.set_input_embeddings(Scaled(*table.shape, _weight=table))
    case, = cases(records, 1, 1)
    memory = model.compress([case.record.query], [[case.gold]]).embeddings[0, 0]
    ids = model.processor.tokenizer(case.gold, add_special_tokens=False, return_tensors="pt").input_ids[0]
    expected = cosines(memory, model.generator.embed(ids))
    found = look_into_memory(model, [(case.record, case.gold)])
    torch.testing.assert_close(torch.tensor(found["example"]["similarity"]), expected)
    one = memory_of_one(model, [Record("x", case.record.query, (case.gold,), case.record.answer)])
    torch.testing.assert_close(torch.tensor(one["similarity"]), expected)


def test_distances_are_averaged_over_documents():
    from scaledown.evaluation.figures.needle import _mean_by_distance

    similarities = [torch.tensor([[0.1, 0.5], [0.3, 0.2]]), torch.tensor([[0.8, 0.1]])]
    found = _mean_by_distance(similarities, [Needle([1, 2], 1, 1), Needle([1, 2], 0, 0)])
    assert found["distance_tokens"] == [-1, 0, 1]
    assert found["cosine"] == pytest.approx([0.3, (0.5 + 0.8) / 2, 0.1])


def point_row(sweep, value, system, mean):
    return {"sweep": sweep, "value": value, "system": system, "exact_match_avg": mean, "n": 9}


def test_the_figure_s_title_names_the_weak_side():
    rows = [point_row("num_documents", 50, "scaledown", 0.75), point_row("num_documents", 1, "scaledown", 1.0),
            point_row("document_tokens", 128, "full_text", 0.8), point_row("document_tokens", 0, "full_text", 0.1),
            point_row("document_tokens", 0, "scaledown", 0.9), point_row("document_tokens", 128, "scaledown", 0.4)]
    assert title(rows, "exact_match") == ("Exact match of ScaleDown: 1.000 with 1 document, 0.750 with 50 documents; "
                                          "its weak side is documents of 128 tokens: 0.400 (full text 0.800)")
    rows[-2]["exact_match_avg"] = 0.2
    assert title(rows[2:], "exact_match") == ("Exact match of ScaleDown is lowest with documents as they are: 0.200 "
                                              "(full text 0.100)")


def test_a_killed_run_goes_on_and_draws(model, records, tmp_path, monkeypatch, capsys):
    model.save_pretrained(tmp_path / "checkpoint")
    write_records(tmp_path / "records.json", records[:8])
    monkeypatch.setattr("scaledown.evaluation.robustness.sweeps.NUMBERS_OF_DOCUMENTS", (1, 3))
    monkeypatch.setattr("scaledown.evaluation.robustness.sweeps.PLACES", (2,))
    monkeypatch.setattr("scaledown.evaluation.robustness.sweeps.SHARES", (1.0,))
    monkeypatch.setattr("scaledown.evaluation.robustness.sweeps.LENGTHS", (0.0,))
    folder, argv = tmp_path / "out", ["--checkpoint", str(tmp_path / "checkpoint"), "--eval_data",
                                      str(tmp_path / "records.json"), "--output_dir", str(tmp_path / "out"), *QUICK]
    measured = []

    def counted(*args, **settings):
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.append(args[1])
        return real(*args, **settings)

    real = measuring.evaluate_system
    monkeypatch.setattr(measuring, "evaluate_system", counted)
    assert robustness.main(argv) == 130
    assert len(json.loads((folder / "robustness.json").read_text())) == 4
    assert robustness.main(argv) == 2 and "--resume" in capsys.readouterr().err
    monkeypatch.setattr(measuring, "evaluate_system", real)
    # --resume alone has the run's settings, and refuses others.
    again = ["--output_dir", str(folder), "--resume"]
    assert robustness.main([*again, "--seed", "7"]) == 2
    assert "--seed was 42, is 7" in capsys.readouterr().err
    assert robustness.main(again) == 0
    rows = json.loads((folder / "robustness.json").read_text())
    assert len(rows) == 2 * 3 + 3 * 2 + 2 * 2
    assert {row["n"] for row in rows} == {3}
    for name in ("robustness.png", "needle.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr("scaledown.evaluation.figures.needle.find_needle", lambda *arguments: None)
    assert robustness.main([*argv, "--resume"]) == 0
    shown = capsys.readouterr()
    assert "needle.png: this figure is left out (no answer stands literally" in shown.err
    assert shown.out.endswith(f"{folder}: robustness.png, robustness.json\n") and "num_documents" in shown.out

    assert robustness.main([*argv, "--eval_data", "nowhere.json", "--overwrite"]) == 2
    assert "nowhere.json" in capsys.readouterr().err and (folder / "robustness.json").exists()
