"""The cost command: table 1 from its flags, PyTorch's count beside ours, and what users get wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scaledown.evaluation.cost import __main__ as cost
from scaledown.evaluation.cost.known_shapes import KNOWN_NAMES, config_of

MISTRAL, QWEN, SMALL = "mistralai/Mistral-7B-Instruct-v0.2", "Qwen/Qwen2-7B-Instruct", {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100}


def report(tmp_path: Path, *flags: str) -> dict:
    file = tmp_path / "cost.json"
    assert cost.main([*flags, "--output_file", str(file)]) == 0
    return json.loads(file.read_text())


@pytest.mark.parametrize(("generator", "num_layers", "compress", "total", "text"), [
    (MISTRAL, 5, 3.04, 6.53, 20.33), (MISTRAL, 8, 4.87, 8.36, 20.33), (QWEN, 8, 5.07, 8.25, 18.94),
    (MISTRAL, None, 2.66, 6.15, 20.33), (QWEN, None, 2.65, 5.83, 18.94)])
def test_the_papers_convention_gives_table_1_within_4_percent(
        tmp_path: Path, generator: str, num_layers: int | None, compress: float, total: float, text: float) -> None:
    kind = ["--num_layers", str(num_layers)] if num_layers else ["--compressor_type", "llm"]
    found = report(tmp_path, "--generator_model", generator, *kind)
    assert found["scaledown"]["flops_paper_convention"]["compress"] / 1e12 == pytest.approx(compress, rel=0.04)
    assert found["scaledown"]["flops_paper_convention"]["total"] / 1e12 == pytest.approx(total, rel=0.04)
    assert found["full_text"]["flops_paper_convention"]["total"] / 1e12 == pytest.approx(text, rel=0.04)


def test_the_query_counted_sharing_it_pays(tmp_path: Path) -> None:
    eight = report(tmp_path)
    # Weights alone 4.60; attention's scores are the rest.
    assert eight["scaledown"]["flops"]["compress"] == pytest.approx(4.635e12, rel=0.001)
    assert eight["scaledown"]["flops"]["total"] <= 8.2e12
    assert eight["full_text"]["flops"]["total"] / eight["scaledown"]["flops"]["total"] >= 2.5
    assert eight["naive_compressor"]["flops"]["compress"] == pytest.approx(9.21e12, rel=0.01)
    five = report(tmp_path, "--num_layers", "5")["scaledown"]["flops"]["compress"]
    assert five == pytest.approx(2.6749e12, rel=0.001)


def check_counts(tmp_path: Path, generator: dict, *flags: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(generator))
    found = report(tmp_path, "--generator_model", str(config), "--measure_flops", "--document_tokens", "16",
                   "--query_tokens", "8", "--num_memory_tokens", "2", "--answer_tokens", "4", *flags)
    for system in ("full_text", "scaledown"):
        for phase, counted in found[system]["flops_measured"].items():
            # Above ours by the half of an attention square that a causal mask hides, which at this size is much.
            assert found[system]["flops"][phase] * 0.999 <= counted <= found[system]["flops"][phase] * 1.4


@pytest.mark.parametrize("flags", [
    (), ("--compressor_type", "modernbert"), ("--compressor_type", "llm", "--compressor_model", "embedded")])
def test_pytorch_counts_about_the_same(tmp_path: Path, flags: tuple[str, ...]) -> None:
    check_counts(tmp_path, SMALL, *flags)


@pytest.mark.parametrize("family", ["gemma2", "gpt_neox", "starcoder2", "phi3"])
def test_any_family_has_a_cost(tmp_path: Path, family: str) -> None:
    heads = {"num_key_value_heads": 4} if family == "gpt_neox" else {"head_dim": 16}
    check_counts(tmp_path, SMALL | {"model_type": family, "pad_token_id": 0} | heads)


def test_known_shapes_are_whole() -> None:
    assert all(config_of(name).hidden_size for name in KNOWN_NAMES)


@pytest.mark.parametrize(("flags", "named"), [
    (["--num_layers", "99"], "--num_layers 99"), (["--answer_tokens", "0"], "--answer_tokens"),
    (["--num_documents", "-1", "--query_tokens", "-2"], "--query_tokens"),
    (["--num_memory_tokens", "0"], "--num_memory_tokens"),
    (["--output_file", f"{__file__}/x.json"], "--output_file"), (["--output_file", "."], "Is a directory"),
    (["--compressor_type", "modernbert", "--num_layers", "2"], "--num_layers")])
def test_mistakes_are_told(flags: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cost.main(flags) == 2
    assert named in capsys.readouterr().err


def test_a_broken_config_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    for text in ("{", "{}", '{"model_type": "nothing"}'):
        config.write_text(text)
        assert cost.main(["--generator_model", str(config)]) == 2
        assert str(config) in capsys.readouterr().err
