"""Nobody else's code runs, and no key or token is written down."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import tiny
import tiny_encoders
import torch
from chat_server import chat_server, completion
from picklescan.scanner import SafetyLevel, scan_directory_path

import train
from scaledown.config import ScaleDownConfig, TrainingConfig
from scaledown.data.pipeline.retrieval import qdrant
from scaledown.data.pipeline.retrieval.searcher import RetrievalConfig
from scaledown.data.pipeline.retrieval.vectors import load_encoder
from scaledown.data.pipeline.teacher import TeacherConfig, load_teacher
from scaledown.data.prepare_dataset import __main__ as prepare_dataset
from scaledown.data.records import write_records
from scaledown.data.reranking.cross_encoder import Reranker, RerankerConfig
from scaledown.data.world.synthetic import synthetic_records
from scaledown.hub import connection
from scaledown.models.loading import checkpoint, generator_files
from scaledown.models.loading.build import resolve
from scaledown.models.model import ScaleDownModel
from scaledown.training import run

SECRETS = {"HF_TOKEN": "hf_nobodyshallread", "OPENAI_API_KEY": "sk-nobodyshallread",
           "QDRANT_API_KEY": "qd-nobodyshallread", "WANDB_API_KEY": "wb-nobodyshallread"}
COMMIT = "0123456789" * 4
TINY = {"num_memory_tokens": 2, "compression_rate": 8}


class Trap:
    """A pickle that makes a file where it is read by code that trusts it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def secrets(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def holds_a_secret(*places) -> list[str]:
    """Files under ``places`` (folders, or texts) with a secret in them."""
    files = []
    for place in places:
        if isinstance(place, Path):
            files += [path for path in place.rglob("*") if path.is_file()]
    assert files
    contents = {str(path): path.read_bytes() for path in files}
    contents |= {place: place.encode() for place in places if isinstance(place, str)}
    return [name for name, content in contents.items() if b"nobodyshallread" in content]


def doubtful_names(folder: Path) -> set[str]:
    """What pickles in ``folder`` would call and picklescan does not know as harmless."""
    scan = scan_directory_path(str(folder))
    # The states of the optimizer, of its schedule and of random numbers, at least.
    assert scan.scanned_files >= 3 and not scan.scan_err
    return {f"{found.module} {found.name}" for found in scan.globals if found.safety is not SafetyLevel.Innocuous}


def test_a_training_run_writes_down_no_key(secrets, tmp_path, capsys):
    write_records(tmp_path / "data.json", list(synthetic_records(4, seed=1)))
    generator = tiny.generator_folder(tmp_path / "generator")
    assert train.main(["--train_data", str(tmp_path / "data.json"), "--generator_model", generator, "--device", "cpu",
                       "--num_memory_tokens", "2", "--compression_rate", "8", "--batch_size", "2", "--max_steps", "2",
                       "--save_steps", "1", "--output_dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert (tmp_path / "out" / "config.json").exists()
    assert not holds_a_secret(tmp_path, said.out, said.err)


def test_pickles_of_a_run_name_no_code_that_could_do_harm(tmp_path):
    write_records(tmp_path / "data.json", list(synthetic_records(4, seed=1)))
    generator, out = tiny.generator_folder(tmp_path / "generator"), tmp_path / "out"
    assert train.main(["--train_data", str(tmp_path / "data.json"), "--generator_model", generator, "--device", "cpu",
                       "--num_memory_tokens", "2", "--compression_rate", "8", "--batch_size", "2", "--max_steps", "2",
                       "--save_steps", "1", "--output_dir", str(out)]) == 0
    assert doubtful_names(out) == {"_codecs encode"}                        # NumPy writes bytes by it

    (out / "weights.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert "pathlib Path.touch" in doubtful_names(out)


def test_a_pipeline_run_sends_the_teacher_its_key_and_writes_it_nowhere(secrets, tmp_path, capsys):
    with chat_server(lambda body, times: completion("an answer")) as asked:
        assert prepare_dataset.main(["--num_synthetic_queries", "4", "--teacher_url", asked.url, "--teacher_model",
                                     "served", "--output_file", str(tmp_path / "out.json")]) == 0
        assert {headers["Authorization"] for _, headers in asked.requests} == {f"Bearer {SECRETS['OPENAI_API_KEY']}"}
    said = capsys.readouterr()
    assert not holds_a_secret(tmp_path, said.out, said.err)


@pytest.mark.parametrize("url", [
    "http://me:nobodyshallread@host:8000/v1", "ftp://me:nobodyshallread@host/v1", "http://me:nobodyshallread@[/v1",
    "me://nobodyshallread@host:8000", "http://host:8000/v1?key=nobodyshallread"])
@pytest.mark.parametrize("flags", [["--teacher_url"], ["--retriever", "dense", "--index_url"]], ids=lambda x: x[-1])
def test_an_address_with_a_secret_is_refused_and_not_repeated(flags, url, tmp_path, capsys):
    assert prepare_dataset.main(["--num_synthetic_queries", "4", *flags, url, "--output_file",
                                 str(tmp_path / "out.json")]) == 2
    message = capsys.readouterr().err
    assert f"{flags[-1]} must hold no login" in message and "_API_KEY" in message and "nobodyshallread" not in message
    assert not list(tmp_path.iterdir())


def test_a_vector_server_gets_its_key_from_the_environment(secrets, monkeypatch):
    given = []
    monkeypatch.setattr("qdrant_client.QdrantClient.__init__", lambda self, **settings: given.append(settings))
    monkeypatch.setattr("qdrant_client.QdrantClient.get_collections", lambda self: None)
    qdrant._connect("https://host:6333")
    assert [settings["api_key"] for settings in given] == [SECRETS["QDRANT_API_KEY"]]


def loads(kind: str, folder: str) -> None:
    """Load the model in ``folder`` as a command does that names it."""
    if kind == "generator":
        ScaleDownModel(ScaleDownConfig(generator_model=folder, **TINY))
    elif kind == "teacher":
        load_teacher(TeacherConfig(teacher_model=folder))
    elif kind == "reranker":
        Reranker(RerankerConfig(reranker_model=folder))
    else:
        load_encoder(RetrievalConfig(retriever="dense", retriever_model=folder))


def made(kind: str, folder: Path) -> str:
    makers = {"reranker": tiny_encoders.cross_encoder, "encoder": tiny_encoders.dense}
    return makers.get(kind, tiny.generator_folder)(folder)


KINDS = ("generator", "teacher", "reranker", "encoder")


@pytest.mark.parametrize("kind", KINDS)
def test_code_that_comes_with_a_model_is_not_run(kind, tmp_path):
    folder, trap = Path(made(kind, tmp_path / "model")), tmp_path / "sprung"
    for path in folder.glob("*/config.json") if not (folder / "config.json").exists() else [folder / "config.json"]:
        names = {"AutoConfig": "foreign.Config", "AutoModel": "foreign.Model"}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "foreign", "auto_map": names}))
        (path.parent / "foreign.py").write_text(f"open({str(trap)!r}, 'w')\n")
    with pytest.raises(ValueError, match="trust_remote_code"):
        loads(kind, str(folder))
    assert not trap.exists()


def test_a_checkpoint_of_the_hub_does_not_consent_to_code_for_its_user(tmp_path, monkeypatch):
    """The code of its generator is run if the user says so, or looked through a folder and gave that."""
    checkpoint_folder, generator, trap = tmp_path / "checkpoint", tmp_path / "generator", tmp_path / "sprung"
    ScaleDownModel(ScaleDownConfig(tiny.generator_folder(generator), trust_remote_code=True, **TINY)).save_pretrained(
        checkpoint_folder)
    values = json.loads((generator / "config.json").read_text()) | {"model_type": "foreign"}
    (generator / "config.json").write_text(json.dumps(values | {"auto_map": {"AutoConfig": "foreign.Config"}}))
    (generator / "foreign.py").write_text(f"open({str(trap)!r}, 'w')\n")

    monkeypatch.setattr(checkpoint, "find", lambda name, revision: checkpoint_folder)
    # It would notice that the generator's folder is not as it was in training.
    monkeypatch.setattr(generator_files, "check", lambda folder, config, files: None)
    with pytest.raises(ValueError, match="trust_remote_code=True to from_pretrained; .* hf download me/model"):
        ScaleDownModel.from_pretrained("me/model")
    assert not trap.exists()
    with pytest.raises(ValueError):
        ScaleDownModel.from_pretrained("me/model", trust_remote_code=True)
    assert trap.exists()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_pickle_in_place_of_weights_is_not_run(kind, tmp_path):
    folder, trap = Path(made(kind, tmp_path / "model")), tmp_path / "sprung"
    for path in list(folder.rglob("*.safetensors")):
        path.unlink()
        torch.save({"weight": Trap(trap)}, path.with_name("pytorch_model.bin"))
    with pytest.raises(ValueError, match="safetensors"):
        loads(kind, str(folder))
    assert not trap.exists()


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A model, its training and records, and the checkpoint of step 1."""
    folder, records = tmp_path_factory.mktemp("interrupted"), list(synthetic_records(4, seed=1))
    config = ScaleDownConfig(generator_model=tiny.generator_folder(folder / "generator"), **TINY)
    model, training = run.build_model(config, "cpu", seed=1), TrainingConfig(batch_size=2, max_steps=2, save_steps=1)
    run.train(model, training, records, folder / "run")
    return model, training, records, folder / "run" / "checkpoint-1"


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_in_a_checkpoints_state_is_not_run(interrupted, name, tmp_path):
    """The Trainer's own files are read as tensors and plain values alone."""
    model, training, records, checkpoint = interrupted
    shutil.copytree(checkpoint, tmp_path / checkpoint.name)
    assert (tmp_path / checkpoint.name / name).exists()
    torch.save(Trap(tmp_path / "sprung"), tmp_path / checkpoint.name / name)
    with pytest.raises(pickle.UnpicklingError, match="[Ww]eights"):
        run.train(model, training, records, tmp_path / "resumed", resume_from=tmp_path / checkpoint.name)
    assert not (tmp_path / "sprung").exists()


def test_a_run_records_the_commits_of_what_it_downloads(monkeypatch):
    answer = type("Info", (), {"sha": COMMIT})()
    monkeypatch.setattr(connection, "ask_in_time", lambda name, revision, kind: answer)
    config = resolve(ScaleDownConfig(generator_model="me/generator", generator_revision="main",
                                     compressor_type="modernbert", compressor_model="me/encoder"), 24)
    assert (config.generator_revision, config.compressor_revision) == (COMMIT, COMMIT)
