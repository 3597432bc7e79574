from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from scaledown import hub
from scaledown.hub import connection

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_that(monkeypatch, answer):
    """Put ``answer`` (an info, or an exception) where the Hub's would be; return the list of what was asked."""
    asked = []

    def repo_info(self, name, **options):
        asked.append((name, options))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", repo_info)
    return asked


def info(*files: str, gated: object = False) -> SimpleNamespace:
    return SimpleNamespace(sha=COMMIT, gated=gated, siblings=[SimpleNamespace(rfilename=file) for file in files])


def http_error(cls: type[Exception], code: int | None = None) -> Exception:
    fault = cls.__new__(cls)
    Exception.__init__(fault, "from the server")
    if code is not None:
        fault.response = SimpleNamespace(status_code=code)
    return fault


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill_cache(cache: Path, name: str, *files: str) -> Path:
    repo = cache / ("models--" + name.replace("/", "--"))
    folder = repo / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    for file in files:
        (folder / file).write_text("{}")
    return folder


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory) -> Path:
    from transformers import BertConfig, BertTokenizer

    folder = tmp_path_factory.mktemp("tiny model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    BertConfig(vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(folder)
    return folder


def test_a_local_folder_is_itself_and_nothing_is_asked(monkeypatch, tiny_folder):
    asked = hub_that(monkeypatch, info())
    assert hub.locate(str(tiny_folder)) == str(tiny_folder)
    assert hub.resolve_revision(str(tiny_folder), None) is None
    assert asked == []


def test_embedded_is_the_folder_that_ships(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "EMBEDDED_FOLDER", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert hub.locate("embedded") == str(tmp_path)
    assert hub.resolve_revision("embedded", "main") is None


def test_a_missing_embedded_generator_says_how_to_rebuild_it(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "EMBEDDED_FOLDER", tmp_path)
    with pytest.raises(ValueError, match="python -m lab.embedded"):
        hub.locate("embedded")


@pytest.mark.parametrize(("name", "message"), [
    ("{here}", "no config.json"), ("{here}/file", "is a file"), ("{here}/absent", "no such folder"),
    ("./absent", "no such folder"), ("~/absent folder", "no such folder"), ("~nobody-at-all/x", "no such folder"),
    ("a/b/c", "OWNER/NAME"), ("", "OWNER/NAME"), ("two words", "OWNER/NAME"), ("x" * 5000, "OWNER/NAME"),
])
def test_names_that_can_be_nothing_are_refused(tmp_path, name, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=message):
        hub.locate(name.format(here=tmp_path))


def test_a_model_on_the_hub_is_its_id(monkeypatch):
    asked = hub_that(monkeypatch, info("config.json", "model.safetensors"))
    assert hub.locate("owner/name", "v1") == "owner/name"
    assert asked[0][0] == "owner/name"
    assert asked[0][1]["revision"] == "v1"
    assert hub.resolve_revision("owner/name", "v1") == COMMIT


def test_a_commit_is_its_own_revision_without_asking(monkeypatch):
    asked = hub_that(monkeypatch, info())
    assert hub.resolve_revision("owner/name", COMMIT) == COMMIT
    assert asked == []


@pytest.mark.parametrize(("answer", "message"), [
    (http_error(errors.RepositoryNotFoundError), "no model of that name; or it is private: then log in .* token="),
    (http_error(errors.GatedRepoError), "accept at https://[^ ]*/owner/name, then log in .*hf auth login.* token="),
    (http_error(errors.HfHubHTTPError, 401), "the Hub refuses the token: .* log in with"),
    (http_error(errors.HfHubHTTPError, 403), "the Hub refuses the token"),
    (http_error(errors.RevisionNotFoundError), "no revision 'main'"),
    (http_error(errors.HfHubHTTPError), r"cannot be reached \(from the server\)"),
    (errors.OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE"),
    (errors.HTTPError("Name or service not known"), "cannot be reached"),
    (ConnectionResetError(), "cannot be reached"),
    (info("README.md"), "no config.json on the Hub"),
])
def test_every_refusal_says_why_and_what_works(monkeypatch, cache, answer, message):
    hub_that(monkeypatch, answer)
    for ask in (hub.locate, hub.resolve_revision, hub.load_config, hub.load_tokenizer):
        with pytest.raises(ValueError, match=message) as fault:
            ask("owner/name", "main")
        assert "--generator_model embedded" in str(fault.value)


def test_a_gated_model_needs_access_not_only_existence(monkeypatch, cache):
    def refuse(self, name, **options):
        raise http_error(errors.GatedRepoError)

    hub_that(monkeypatch, info("config.json", gated="manual"))
    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", refuse)
    with pytest.raises(ValueError, match="authors ask for consent"):
        hub.locate("owner/name")


def test_a_dataset_out_of_reach_names_source(monkeypatch):
    hub_that(monkeypatch, errors.OfflineModeIsEnabled("offline"))
    with pytest.raises(ValueError, match=r"dataset 'owner/name'.*--source"):
        hub.locate("owner/name", kind="dataset")


def test_a_dataset_on_the_hub_is_its_id(monkeypatch):
    asked = hub_that(monkeypatch, info("data.parquet"))
    assert hub.locate("owner/name", kind="dataset") == "owner/name"
    assert asked[0][1]["repo_type"] == "dataset"


@pytest.mark.parametrize("weights", [["model.safetensors"], ["model.safetensors.index.json", "a.safetensors"]])
def test_offline_a_whole_model_comes_from_the_cache(cache, weights):
    folder = fill_cache(cache, "owner/name", "config.json", "tokenizer.json", *weights)
    if "a.safetensors" in weights:
        (folder / weights[0]).write_text(json.dumps({"weight_map": {"layer": "a.safetensors"}}))
    assert hub.locate("owner/name") == str(folder)
    assert hub.resolve_revision("owner/name", None) == COMMIT


@pytest.mark.parametrize("files", [
    ["config.json"], ["config.json", "tokenizer.json"], ["config.json", "model.safetensors"],
    ["config.json", "tokenizer.json", "model.safetensors.index.json"],
])
def test_offline_half_a_model_in_the_cache_is_not_used(cache, files):
    folder = fill_cache(cache, "owner/name", *files)
    if files[-1].endswith("index.json"):
        (folder / files[-1]).write_text(json.dumps({"weight_map": {"layer": "a.safetensors"}}))
    with pytest.raises(ValueError, match="not in the local cache"):
        hub.locate("owner/name")


@pytest.mark.parametrize(("left_out", "is_whole"), [
    (None, True), ("generator_files.json", True), ("generator.safetensors", False), ("compressor.safetensors", False),
    ("tokenizer/tokenizer.json", False),
])
def test_offline_a_whole_checkpoint_comes_from_the_cache(cache, left_out, is_whole):
    from scaledown import ScaleDownModel

    folder = fill_cache(cache, "owner/checkpoint")
    shutil.copytree(hub.SHIPPED_CHECKPOINTS["embedded"], folder, dirs_exist_ok=True)
    if left_out is not None:
        (folder / left_out).unlink()
    if is_whole:
        hub.check_checkpoint("owner/checkpoint")
        assert ScaleDownModel.from_pretrained("owner/checkpoint").config.generator_model == "embedded"
    else:
        with pytest.raises(ValueError, match="not in the local cache"):
            hub.check_checkpoint("owner/checkpoint")


def test_offline_a_checkpoint_that_reads_text_needs_no_compressor(cache):
    folder = fill_cache(cache, "owner/text", "generator.safetensors")
    (folder / "config.json").write_text('{"compressor_type": "none"}')
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    assert hub.locate("owner/text") == str(folder)


def test_a_server_that_never_answers_is_given_up_soon(monkeypatch, cache):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.3)
        start = time.monotonic()
        with pytest.raises(ValueError, match="cannot be reached"):
            hub.locate("owner/name")
        assert time.monotonic() - start < 5


def test_a_name_server_that_never_answers_is_given_up_soon(monkeypatch, cache):
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(connection, "ask", lambda *args: time.sleep(2))
    with pytest.raises(ValueError, match="did not answer within"):
        hub.locate("owner/name")


def test_tokenizer_and_config_load_from_a_folder(tiny_folder):
    assert hub.load_config(str(tiny_folder)).hidden_size == 8
    assert hub.load_tokenizer(str(tiny_folder))("hello world", add_special_tokens=False)["input_ids"] == [5, 6]


@pytest.mark.parametrize(("text", "load"), [
    ("{}", hub.load_config), ('{"model_type": "no-such-type"}', hub.load_config), ("{ broken", hub.load_config),
    ('{"model_type": "bert"}', hub.load_tokenizer),
])
def test_a_folder_that_is_no_model_is_a_users_mistake(tmp_path, text, load):
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "tokenizer.json").write_text("{ broken")
    with pytest.raises(ValueError, match="cannot be read"):
        load(str(tmp_path))


def test_a_model_of_sentence_transformers_needs_no_config_of_transformers(monkeypatch, tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    assert hub.locate(str(tmp_path)) == str(tmp_path)
    hub_that(monkeypatch, info("modules.json", "0_StaticEmbedding/model.safetensors"))
    assert hub.locate("org/static") == "org/static"
