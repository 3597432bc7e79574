"""A generator for real questions from nothing: what a row asks, what is measured, and the command from end to end."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen2Config

from lab.embedded import blanks, pretrain, real_course, transfer
from lab.embedded.__main__ import main
from lab.embedded.building import PretrainConfig, build_generator
from lab.embedded.real_batches import RealMixture, RecordBatches
from lab.embedded.tokenizer import build_tokenizer, record_texts
from scaledown.config import ScaleDownConfig
from scaledown.data.records import Record, eval_path, write_records
from scaledown.hub import EMBEDDED_FOLDER
from scaledown.models.model import ScaleDownModel

PLACES = ("Oslo", "Paris", "Rome", "Lima", "Cairo", "Quito", "Delhi", "Minsk")
COUNTRIES = ("Norway", "France", "Italy", "Peru", "Egypt", "Ecuador", "India", "Belarus")
TEXTS = [f"The capital of {country}, where many people live and work, is the old town of {place}."
         for country, place in zip(COUNTRIES, PLACES, strict=True)]
TINY = ["--hidden_size", "32", "--num_layers", "2", "--num_heads", "2", "--intermediate_size", "32",
        "--vocabulary_tokens", "400", "--batch_tokens", "200", "--eval_steps", "2", "--device", "cpu"]


def records(num_documents: int = 3) -> list[Record]:
    """Each answer stands in the record's second document; the others answer other records' questions."""
    made = []
    for number, (country, place) in enumerate(zip(COUNTRIES, PLACES, strict=True)):
        others = [TEXTS[(number + step) % len(TEXTS)] for step in range(1, num_documents)]
        made.append(Record(str(number), f"What is the capital of {country}?", (others[0], TEXTS[number], *others[1:]),
                           place))
    return made


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(record_texts(records()), 400)


@pytest.fixture
def data(tmp_path) -> str:
    path = tmp_path / "data.json"
    write_records(path, records())
    write_records(eval_path(path), records()[:3])
    return str(path)


def branches(tokenizer, batch, row: int) -> list[tuple[str, str]]:
    """Trunk and branch, each as text, of every answer of a row: what it sees, and what is learnt to be said."""
    found, places = [], batch["answers"][row].nonzero().flatten().tolist()
    for place in (place for place in places if place - 1 not in places):
        end = place
        while end + 1 in places:
            end += 1
        seen = (batch["mask"][row, 0, place] == 0).nonzero().flatten()
        found.append((tokenizer.decode(batch["input_ids"][row, seen]),
                      tokenizer.decode(batch["next_ids"][row, place:end + 1])))
    return found


def test_a_row_asks_what_its_documents_answer(tokenizer):
    batches, asked = RecordBatches(tokenizer, records(), seed=0), 0
    batch = batches.batch(0, RealMixture((3, 3), query_first_share=0.0, tokens=600))
    for row in range(len(batch["input_ids"])):
        for seen, said in branches(tokenizer, batch, row):
            country = seen.split("capital of")[-1].split("?")[0].strip()
            document = next(text for text in TEXTS if f"capital of {country}," in text)
            assert document in seen.split("Question:")[0]
            assert said.strip() == f"{PLACES[COUNTRIES.index(country)]}<|im_end|>"
            asked += 1
    assert asked > 2 * len(batch["input_ids"])


def test_pieces_to_be_continued_are_the_documents(tokenizer):
    batch = RecordBatches(tokenizer, records(), 0).batch(1, RealMixture((2, 2), query_first_share=0.0, cloze_share=1.0))
    for seen, said in branches(tokenizer, batch, 0):
        documents, _, piece = seen.rpartition("\n")
        assert f"{piece.strip()} {said.strip()}" in documents


def test_a_blank_asks_for_words_of_a_sentence_by_the_others():
    text = "In 1905 the young Ada Byron King moved to Rome. It rained. There she wrote two long letters to her mother."
    found = [blanks.blank(random.Random(seed), text) for seed in range(200)]
    answers = {answer for _, answer in found}
    assert {"1905", "Ada Byron King", "Rome"} <= answers
    assert answers - {"1905", "Ada Byron King", "Rome"} and all(answer in text for answer in answers)
    for query, answer in found:
        word, *asked = query.rstrip("?").split()
        assert word in blanks.QUESTION_WORDS and asked and query.endswith("?")
        assert any({each.rstrip(".") for each in asked} <= {each.rstrip(".") for each in sentence.split()} - {answer}
                   for sentence in text.split(". ") if answer in sentence)
    assert blanks.blank(random.Random(0), "It rained. It snowed.") is None


def test_blanks_come_on_top_of_a_row_s_questions(tokenizer):
    batches = RecordBatches(tokenizer, records(), seed=0)
    mixture = RealMixture((2, 2), query_first_share=0.0, tokens=300)
    for number in range(3):
        plain, more = (batches.batch(number, replace(mixture, num_blanks=count)) for count in (0, 3))
        asked = [branches(tokenizer, batch, 0) for batch in (plain, more)]
        assert len(asked[0]) < len(asked[1]) <= len(asked[0]) + 3
        for seen, said in asked[1][len(asked[0]):]:
            documents, _, query = seen.partition("Question:")
            assert said.removesuffix("<|im_end|>").strip() in documents and query.strip().split()[0] in (
                blanks.QUESTION_WORDS)


def test_a_document_that_does_not_answer_is_said_to(tokenizer):
    batch = RecordBatches(tokenizer, records(), 0).batch(2, RealMixture((1, 1), query_first_share=1.0, tokens=1500))
    pairs = [pair for row in range(len(batch["input_ids"])) for pair in branches(tokenizer, batch, row)]
    for seen, said in pairs:
        place = said.removesuffix("<|im_end|>").strip()
        query, document = seen.split("\n", 1)
        country = query.split("capital of")[1].strip(" ?")
        assert (f"capital of {country}," in document) == (place != "unknown")
    assert {"unknown"} < {said.removesuffix("<|im_end|>").strip() for _, said in pairs}


def test_batches_have_as_many_documents_as_the_level_says_and_depend_on_their_number(tokenizer):
    batches = RecordBatches(tokenizer, records(5), 0)
    for number in range(6):
        batch = batches.batch(number, RealMixture((2, 4), query_first_share=0.0, tokens=300))
        counts = {tokenizer.decode(row).count("capital of") - tokenizer.decode(row).count("Question:")
                  for row in batch["input_ids"]}
        assert len(counts) == 1 and counts <= {2, 3, 4}
    one, other = batches.batch(3, real_course.LEVELS[0].mixture), batches.batch(3, real_course.LEVELS[0].mixture)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_records_without_their_answer_are_left_out_and_none_left_is_told(tokenizer):
    yes = Record("yes", "Is Oslo old?", (TEXTS[0],), "yes")
    assert RecordBatches(tokenizer, [*records(), yes], 0).num_left_out == 1
    with pytest.raises(ValueError, match="no document of the 1 records"):
        RecordBatches(tokenizer, [yes], 0)


def test_levels_end_by_mastery_or_by_time():
    level = real_course.LEVELS[2]
    assert level.is_over(0.71, 0.0) and level.is_over(0.0, 0.5) and not level.is_over(0.69, 0.49)


def test_f1_is_squads():
    assert real_course._f1(["old", "town", "oslo"], ["oslo"]) == pytest.approx(2 * (1 / 3) * 1 / (1 / 3 + 1))
    assert real_course._f1([], []) == 1 and real_course._f1(["a"], []) == 0 and real_course._f1(["a"], ["b"]) == 0


def test_answers_are_read_greedily_and_padding_changes_none(tokenizer, monkeypatch):
    model = build_generator(PretrainConfig(hidden_size=32, num_layers=2, num_heads=2, vocabulary_tokens=400), tokenizer)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    scores = real_course.AnswerScores(tokenizer, [records()[0], *records(5)[1:3]])
    together = scores._answers(model.eval(), scores.records)
    assert [scores._answers(model, [record])[0] for record in scores.records] == together
    monkeypatch.setattr(scores, "_answers", lambda model, batch: ["the Oslo", "Rome and Paris", "Lima"][:len(batch)])
    assert scores(model) == {"answered_exactly": pytest.approx(1 / 3), "answered_f1": pytest.approx((1 + 0.5) / 3)}


def test_the_command_makes_a_generator_that_answers(data, tmp_path):
    work = tmp_path / "work"
    assert main(["--train_data", data, "--work_dir", str(work), "--steps", "2", *TINY]) == 0
    row = json.loads((work / "log.jsonl").read_text())
    assert {"answered_exactly", "answered_f1", "one_document", "five_documents", "tokens_per_second"} <= set(row)
    folder = work / "generator"
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 2
    assert len(AutoTokenizer.from_pretrained(folder)) == 400
    model = ScaleDownModel(ScaleDownConfig(generator_model=str(folder)))
    assert len(model.answer(["What is the capital of Norway?"], [TEXTS[:2]], max_new_tokens=3)) == 1


def test_layers_of_a_generator_go_on_under_another_tokenizer(tokenizer):
    """With the embeddings in the same order, too, the new generator computes what its source does."""
    source = transfer.load_source("embedded", PretrainConfig())
    model = build_generator(PretrainConfig(), tokenizer)
    transfer.start_from(source, model, tokenizer, seed=0)
    table, rows = model.get_input_embeddings().weight, source.model.get_input_embeddings().weight
    known = source.tokenizer.get_vocab()
    shared = [token for token in tokenizer.get_vocab() if token in known]
    assert {tokenizer.eos_token, tokenizer.pad_token, "a", "Ċ"} <= set(shared)
    here, there = ([each.get_vocab()[token] for token in shared] for each in (tokenizer, source.tokenizer))
    assert torch.equal(table[here], rows[there])
    with torch.no_grad():
        said = model.model(torch.tensor([here[:20]])).last_hidden_state
        expected = source.model.model(torch.tensor([there[:20]])).last_hidden_state
    torch.testing.assert_close(said, expected)
    new = [number for token, number in tokenizer.get_vocab().items() if token not in known]
    assert new and len(torch.unique(table[new], dim=0)) == len(new)
    assert table[new].std().item() == pytest.approx(rows.std().item(), rel=0.15)


def test_layers_that_compute_otherwise_are_refused(tmp_path):
    config = PretrainConfig()
    sources = {"grouped": LlamaConfig(num_key_value_heads=2, num_attention_heads=4, hidden_size=128,
                                      num_hidden_layers=9, intermediate_size=256, rms_norm_eps=1e-5),
               "other": Qwen2Config()}
    for name, source in sources.items():
        source.save_pretrained(tmp_path / name)
    with pytest.raises(ValueError, match="its num_key_value_heads is 2, 4 here; its rms_norm_eps is 1e-05, 1e-06 here"):
        transfer.load_source(str(tmp_path / "grouped"), config)
    with pytest.raises(ValueError, match="--init_generator .*other: its family is 'qwen2'"):
        transfer.load_source(str(tmp_path / "other"), config)


def test_a_new_token_starts_near_its_pieces(tokenizer):
    source, model = transfer.load_source("embedded", PretrainConfig()), build_generator(PretrainConfig(), tokenizer)
    transfer.start_from(source, model, tokenizer, seed=0)
    rows, angles = source.model.get_input_embeddings().weight, []
    for token, number in tokenizer.get_vocab().items():
        if token not in source.tokenizer.get_vocab():
            pieces = source.tokenizer(tokenizer.convert_tokens_to_string([token]), add_special_tokens=False).input_ids
            own, mean = model.get_input_embeddings().weight[number], rows[pieces].mean(0)
            angles.append(torch.cosine_similarity(own, mean, dim=0).item())
    assert 0.2 < sum(angles) / len(angles) < 0.6


def test_a_generator_that_starts_from_another_has_all_its_layers_at_work(data, tmp_path, monkeypatch):
    depths = []
    losses = pretrain.losses
    monkeypatch.setattr(pretrain, "losses",
                        lambda model, batch: depths.append(model.config.num_hidden_layers) or losses(model, batch))
    argv = ["--train_data", data, "--steps", "2", "--batch_tokens", "200", "--vocabulary_tokens", "400"]
    assert main([*argv, "--init_generator", "embedded", "--work_dir", str(tmp_path / "work")]) == 0
    assert depths == [9, 9]


@pytest.mark.parametrize("save_seconds", [300, 0])
def test_a_killed_run_goes_on_to_the_same_weights(data, tmp_path, monkeypatch, save_seconds):
    monkeypatch.setattr(pretrain, "SAVE_SECONDS", save_seconds)
    argv = ["--train_data", data, "--steps", "4", *TINY]
    assert main([*argv, "--work_dir", str(tmp_path / "whole")]) == 0
    step = pretrain.Pretraining._train_step
    monkeypatch.setattr(pretrain.Pretraining, "_train_step",
                        lambda self: step(self) if self.step < 3 else (_ for _ in ()).throw(KeyboardInterrupt))
    assert main([*argv, "--work_dir", str(tmp_path / "killed")]) == 130
    with safe_open(tmp_path / "killed" / pretrain.STATE_FILE, framework="pt") as state:
        assert state.metadata()["step"] == ("2" if save_seconds else "3")
    monkeypatch.setattr(pretrain.Pretraining, "_train_step", step)
    assert main([*argv, "--work_dir", str(tmp_path / "killed")]) == 0
    one, other = ((tmp_path / name / "generator" / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert one == other


def test_a_state_that_was_made_from_other_records_is_refused(data, tmp_path, capsys):
    generator = tmp_path / "generator"
    copytree(EMBEDDED_FOLDER, generator)
    argv = ["--train_data", data, "--steps", "1", "--batch_tokens", "200", "--vocabulary_tokens", "400",
            "--init_generator", str(generator), "--work_dir", str(tmp_path / "work")]
    assert main(argv) == 0
    for path in (data, eval_path(data)):
        write_records(path, [replace(each, query=each.query.upper()) for each in records()])
    template = generator / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    capsys.readouterr()
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert all(f"{each} has changed" in told for each in (
        f"--train_data {data}", f"the evaluation half of --train_data {data}", f"--init_generator {generator}"))


def test_bfloat16_arithmetic_trains(tokenizer, monkeypatch, tmp_path):
    """What a GPU does, on the CPU: masks, losses and figures hold in half precision."""
    monkeypatch.setattr(pretrain, "dtype_for", lambda device: torch.bfloat16)
    config = PretrainConfig(hidden_size=32, num_layers=2, num_heads=2, vocabulary_tokens=400, steps=2, eval_steps=1,
                            batch_tokens=200)
    model = build_generator(config, tokenizer)
    pretrain.Pretraining(config, model, real_course.real_course(tokenizer, records(), records(), 0), tmp_path).run()
    assert all(parameter.isfinite().all() and parameter.dtype == torch.float32 for parameter in model.parameters())
    row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert 0 < row["answer_loss"] < 60


@pytest.mark.parametrize(("flags", "message"), [
    (["--train_data", "nowhere.json"], "nowhere.json"), (["--hidden_size", "30"], "--hidden_size 30"),
    (["--init_generator", "embedded"], "--init_generator embedded: --hidden_size is 32, 128 there; --num_layers is 2"),
    (["--init_generator", "no/such"], "no/such"), (["--vocabulary_tokens", "20"], "--vocabulary_tokens"),
    (["--device", "gpu"], "--device gpu")])
def test_a_mistake_is_told_before_anything_is_made(flags, message, data, tmp_path, capsys):
    if torch.cuda.is_available() and "gpu" in flags:
        pytest.skip("this machine has a GPU")
    assert main(["--train_data", data, "--work_dir", str(tmp_path / "work"), *TINY, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_a_state_of_another_run_or_a_damaged_one_is_refused(data, tmp_path, capsys):
    argv = ["--train_data", data, "--work_dir", str(tmp_path / "work"), "--steps", "1", *TINY]
    assert main(argv) == 0
    assert main([*argv, "--num_layers", "3"]) == 2
    assert "--num_layers was 2, is 3" in capsys.readouterr().err
    state = tmp_path / "work" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    assert main(argv) == 2
    assert f"{Path(state)}: damaged" in capsys.readouterr().err
