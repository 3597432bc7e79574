"""What fits a card: the table of --training, the presets of GPUs, and the refusal before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

import train
from scaledown.cli import config_from
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.evaluation.cost import __main__ as cost
from scaledown.evaluation.cost import card_table, machine_check
from scaledown.evaluation.cost.empty_model import EmptyModel
from scaledown.evaluation.cost.flops import TokenCounts
from scaledown.evaluation.cost.needed_memory import answering_need, state_bytes, training_need
from scaledown.training import devices, presets

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "PLATFORMS.md"
MISTRAL = "mistralai/Mistral-7B-Instruct-v0.2"
QUESTION = TokenCounts(query_tokens=128, document_tokens=128, num_documents=10, memory_tokens=8, prompt_tokens=320,
                       new_tokens=128)
WEIGHTS = {"base": 7.242e9, "8 layers": 8 * 218.1e6, "adapter": 41.9e6}
"""Numbers of Mistral-7B, from its published sizes; an adapter of rank 16 is on all its linear maps."""


def mistral(**settings):
    return EmptyModel.of(ScaleDownConfig(generator_model=MISTRAL, **settings), torch.bfloat16)


def test_a_7b_model_needs_what_arithmetic_says():
    model, training = mistral(), TrainingConfig(gradient_accumulation_steps=16)
    trained = WEIGHTS["8 layers"] + WEIGHTS["adapter"]
    fixed = 2 * WEIGHTS["base"] + 16 * trained
    assert training_need(model, training, QUESTION).fixed == pytest.approx(fixed, rel=0.01)
    assert fixed == pytest.approx(43e9, rel=0.01)

    weights = 2 * WEIGHTS["base"] + 4 * trained + 2 * trained
    need = answering_need(model, 1, QUESTION)
    assert need.moment == "compressing" and need.peak - need.parts["at work"] == pytest.approx(weights, rel=0.01)
    assert weights == pytest.approx(25e9, rel=0.01)

    # Folded, all weights are held in bfloat16, and no pass needs copies.
    folded = answering_need(model, 1, QUESTION, only_answers=True)
    assert folded.fixed == pytest.approx(2 * (WEIGHTS["base"] + trained), rel=0.01)
    assert folded.peak - folded.parts["at work"] == folded.fixed


def test_bits_and_lora_shrink_the_parts_that_they_are_for():
    whole, small = mistral(), mistral(load_in_4bit=True, compressor_lora_rank=16)
    # Embeddings and the output head stay in bfloat16; the copied layers are frozen, and not in 4 bits.
    in_4_bits = 2 * 2 * 32000 * 4096 + 32 * 218.1e6 * 0.5159
    assert small.frozen_bytes == pytest.approx(in_4_bits + 2 * WEIGHTS["8 layers"], rel=0.01)
    assert mistral(load_in_8bit=True).frozen_bytes == pytest.approx(2 * 2 * 32000 * 4096 + 32 * 218.1e6, rel=0.01)
    assert sum(map(torch.numel, small.trained)) == pytest.approx(WEIGHTS["adapter"] * 10 / 8, rel=0.02)

    states = {name: state_bytes(whole, name) / state_bytes(whole, "adamw") for name in (
        "muon", "adamw_8bit", "paged_adamw_8bit")}
    assert states == {"muon": pytest.approx(0.51, abs=0.01), "adamw_8bit": pytest.approx(0.25, abs=0.01),
                      "paged_adamw_8bit": pytest.approx(0, abs=0.01)}


@pytest.mark.parametrize(("preset", "gigabytes"), [("gpu_24gb", 24), ("gpu_48gb", 48), ("paper", 80)])
def test_a_preset_fits_its_card_with_a_tenth_to_spare(preset, gigabytes):
    args = presets.parse(train.build_parser(), ["--preset", preset, "--train_data", "x.json"])
    model, training = config_from(args, ScaleDownConfig), config_from(args, TrainingConfig)
    need = training_need(EmptyModel.of(model, torch.bfloat16), training, QUESTION)
    assert need.peak <= 0.9 * gigabytes * card_table.GIGA


def test_the_command_prints_parts_and_what_fits(tmp_path, capsys):
    file = tmp_path / "memory.json"
    assert cost.main(["--training", "--gradient_accumulation_steps", "16", "--answer_tokens", "128",
                      "--gradient_checkpointing", "--output_file", str(file)]) == 0
    found, printed = json.loads(file.read_text()), capsys.readouterr().out
    assert sum(found["training"]["parts"].values()) == pytest.approx(found["training"]["bytes"])
    assert all(f"{size} GB" in printed for size in card_table.CARDS) and "estimates" in printed

    # A larger card needs fewer changes, and what fits leaves a tenth of it free.
    by_card = [found["cards"][str(size)]["trains"] for size in card_table.CARDS]
    assert by_card[-1]["flags"] == [] and "--load_in_4bit" in by_card[0]["flags"]
    for size, way in zip(card_table.CARDS, by_card, strict=True):
        assert way["bytes"] <= 0.9 * size * card_table.GIGA


def test_the_number_format_counts(tmp_path, capsys):
    """A GPU that computes in float32 needs twice the bytes for the frozen base, and folding frees nothing."""
    found = {}
    for dtype in ("bfloat16", "float32"):
        file = tmp_path / f"{dtype}.json"
        assert cost.main(["--training", "--dtype", dtype, "--output_file", str(file)]) == 0
        assert f"estimates in {dtype}" in capsys.readouterr().out
        found[dtype] = json.loads(file.read_text())
    frozen = [found[dtype]["training"]["parts"]["frozen weights"] for dtype in ("float32", "bfloat16")]
    assert frozen[0] == pytest.approx(2 * frozen[1])
    assert found["bfloat16"]["cards"]["24"]["answers"]["flags"] == ["for_answering()"]
    assert found["float32"]["cards"]["24"]["answers"]["flags"] == ["--load_in_4bit"]


def test_a_base_in_4_bits_is_not_folded():
    config = ScaleDownConfig(generator_model=MISTRAL, load_in_4bit=True)
    settings = [settings for settings, _ in card_table.answering_ways(config, QUESTION, torch.bfloat16)]
    assert settings[0] == {} and not any(card_table.FOR_ANSWERING in each for each in settings)


def test_the_table_in_the_guide_is_what_the_command_says(tmp_path):
    guide, file = GUIDE.read_text(encoding="utf-8"), tmp_path / "memory.json"
    command = next(line for line in guide.splitlines() if line.startswith("python -m scaledown.evaluation.cost"))
    assert cost.main([*command.split()[3:], "--output_file", str(file)]) == 0

    found = json.loads(file.read_text())["cards"]
    for size in card_table.CARDS:
        _, _, trains, training_size, answers, answering_size, _ = next(
            line for line in guide.splitlines() if line.startswith(f"| {size} GB |")).split("|")
        ways = found[str(size)]
        assert float(training_size) == pytest.approx(ways["trains"]["bytes"] / card_table.GIGA, abs=0.06)
        assert float(answering_size) == pytest.approx(ways["answers"]["bytes"] / card_table.GIGA, abs=0.06)
        # The row of 24 GB has the flags of the row above it, but for the number of micro-batches.
        told = ways["trains"]["flags"] if size != 24 else ways["trains"]["flags"][-1:]
        assert all(flag in trains for flag in told) and all(flag in answers for flag in ways["answers"]["flags"])

    # A T4 trains in float16; it answers in float32, few questions together.
    ways = {}
    for dtype in ("float16", "float32"):
        assert cost.main([*command.split()[3:], "--dtype", dtype, "--output_file", str(file)]) == 0
        ways[dtype] = json.loads(file.read_text())["cards"]["16"]
    _, _, trains, training_size, answers, answering_size, _ = next(
        line for line in guide.splitlines() if line.startswith("| T4 (16 GB) |")).split("|")
    assert float(training_size) == pytest.approx(ways["float16"]["trains"]["bytes"] / card_table.GIGA, abs=0.06)
    assert all(flag in trains for flag in ways["float16"]["trains"]["flags"]) and ways["float32"]["answers"] is None
    tokens = TokenCounts(query_tokens=128, document_tokens=128, num_documents=10, memory_tokens=8, prompt_tokens=308,
                         new_tokens=128)
    empty = EmptyModel.of(ScaleDownConfig(generator_model=MISTRAL, load_in_4bit=True), torch.float32)
    need = answering_need(empty, 4, tokens)
    assert "`batch_size=4`" in answers and float(answering_size) == pytest.approx(need.peak / card_table.GIGA, abs=0.06)


@pytest.mark.parametrize(("flags", "named"), [
    (["--batch_size", "8"], "--batch_size belongs to --training"),
    (["--training", "--measure_flops"], "--measure_flops does not go with --training"),
    (["--training", "--batch_size", "3", "--gradient_accumulation_steps", "2"], "--gradient_accumulation_steps")])
def test_mistakes_are_told(flags, named, capsys):
    assert cost.main(flags) == 2
    assert named in capsys.readouterr().err


def check(monkeypatch, free, device="cuda", **settings):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80_000_000_000))
    config = ScaleDownConfig(generator_model=MISTRAL)
    machine_check.check_machine(config, TrainingConfig(**settings), list(synthetic_records(2)), torch.device(device),
                                "bfloat16")


def test_what_cannot_fit_is_refused_with_flags_that_would(monkeypatch):
    with pytest.raises(ValueError, match=r"43\.1 GB before any activations, and 42\.0 GB are free; by the estimate "
                                         r"this would fit: --gradient_checkpointing --optimizer adamw_8bit "
                                         r"--gradient_accumulation_steps \d+ "):
        check(monkeypatch, 42_000_000_000)
    with pytest.raises(ValueError, match="no flags would fit: take a smaller --generator_model"):
        check(monkeypatch, 4_000_000_000)
    check(monkeypatch, 44_000_000_000)
    check(monkeypatch, 4_000_000_000, device="cpu")
    check(monkeypatch, 4_000_000_000, shard=True)


def test_the_refusal_comes_before_anything_is_loaded_or_written(monkeypatch, tmp_path, capsys):
    write_records(tmp_path / "data.json", list(synthetic_records(2)))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 1000))
    monkeypatch.setattr(devices, "resolve_device", lambda name: torch.device("cuda"))
    assert train.main(["--train_data", str(tmp_path / "data.json"), "--dtype", "bfloat16", "--generator_model",
                       tiny.generator_folder(tmp_path / "generator"), "--output_dir", str(tmp_path / "run")]) == 2
    assert "not enough memory on cuda" in capsys.readouterr().err and not (tmp_path / "run").exists()
