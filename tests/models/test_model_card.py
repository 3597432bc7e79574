"""A checkpoint's card says what huggingface_hub and a reader want to know: bases, licence, data, results, use."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from huggingface_hub import HfApi, ModelCard, ModelCardData

from scaledown import hub
from scaledown.config import ScaleDownConfig
from scaledown.hub import connection
from scaledown.models.loading import checkpoint, model_card
from scaledown.models.loading.training_progress import Average, Results, TrainingProgress
from scaledown.models.model import ScaleDownModel

CONFIG = ScaleDownConfig("me/base", generator_revision="abc", num_layers=3, num_memory_tokens=4)
RESULTS = Results("squad_eval.json", 1500, (
    Average(model_card.THIS, "exact match", 0.881234, 0.84, 0.92), Average(model_card.THIS, "ROUGE-L", 0.9, 0.87, 0.93),
    Average("full text", "exact match", 0.93, 0.9, 0.96)))


UNTRAINED = TrainingProgress()


def card(config: ScaleDownConfig = CONFIG, progress: TrainingProgress = UNTRAINED, **licence: str) -> ModelCard:
    return ModelCard(model_card.card(config, progress, 3456, licence))


def test_the_header_names_bases_task_and_tags() -> None:
    data = card(license="mit").data
    assert (data.library_name, data.pipeline_tag, data.base_model, data.license) == (
        "scaledown", "question-answering", "me/base", "mit")
    assert {"oscar", "rag"} <= set(data.tags) and "reranking" not in data.tags
    other = dataclasses.replace(CONFIG, num_layers=None, compressor_type="llm", compressor_model="you/small",
                                compressor_revision="def", enable_reranking=True)
    data = card(other).data
    assert data.base_model == ["me/base", "you/small"] and "reranking" in data.tags and data.license is None
    same = dataclasses.replace(other, compressor_model="me/base", compressor_revision="abc")
    assert card(same).data.base_model == "me/base"


def test_results_are_a_table_for_readers_and_figures_for_the_hub() -> None:
    found = card(progress=TrainingProgress(9, 0, 0, ("a.json", "b.json"), RESULTS))
    assert "| this checkpoint | 0.88 [0.84, 0.92] | 0.90 [0.87, 0.93] |\n| full text | 0.93 [0.90, 0.96] |  |" in (
        found.text)
    assert "On 1,500 questions of squad_eval.json, with 95% intervals" in found.text
    assert "Data: a.json, then b.json." in found.text
    # The baselines' are not the model's.
    figures = [(result.metric_type, result.metric_value, result.dataset_name) for result in found.data.eval_results]
    assert figures == [("exact_match", 0.8812, "squad_eval.json"), ("rouge-l", 0.9, "squad_eval.json")]
    assert card().data.eval_results is None and "intervals" not in card().text


def test_the_lines_of_use_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    code = re.search(r"```python\n(.*?)```", card().text, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    exec(code.replace(model_card.PLACE, "embedded"), {})
    assert capsys.readouterr().out.strip()


def test_the_licence_is_the_generators() -> None:
    assert "licence is mit." in card(license="mit").text
    own = {"license": "other", "license_name": "llama3", "license_link": "https://example.org"}
    assert "licence is llama3." in card(**own).text and card(**own).data.to_dict().items() >= own.items()
    assert "licence is not known here" in card().text


@pytest.fixture(autouse=True)
def asked_anew():
    hub.licence.cache_clear()
    yield
    hub.licence.cache_clear()


@pytest.mark.parametrize(("text", "licence"), [
    ("---\nlicense: mit\n---\n# Hi", {"license": "mit"}),
    ("---\nlicense: other\nlicense_name: mine\ntags: [a]\n---\n", {"license": "other", "license_name": "mine"}),
    ("---\nlicense: [mit, x]\n---\n", {}), ("---\nlicense: {\n---\n", {}), ("---\n- 3\n---\n", {}), ("# Hi", {}),
    (None, {})])
def test_the_licence_of_a_folder_is_in_its_card(text: str | None, licence: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert hub.licence(str(tmp_path)) == licence


def test_the_licence_of_what_ships_and_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.licence("embedded") == hub.licence("smollm2") == {"license": "apache-2.0"}
    asked = []

    def ask(name: str, revision: str | None, kind: str, token: str | None) -> SimpleNamespace | str:
        asked.append((name, revision, kind))
        cards = {"me/base": ModelCardData(license="mit"), "me/bare": None}
        return SimpleNamespace(card_data=cards[name]) if name in cards else "the Hub does not answer."

    monkeypatch.setattr(connection, "ask", ask)
    assert hub.licence("me/base", "abc") == hub.licence("me/base", "abc") == {"license": "mit"}
    assert hub.licence("me/bare") == hub.licence("me/none") == {}
    # Once for each, however many checkpoints a training writes.
    assert asked == [("me/base", "abc", "model"), ("me/bare", None, "model"), ("me/none", None, "model")]


def test_a_checkpoint_keeps_its_results_until_it_is_trained_further(tmp_path: Path) -> None:
    generator = tiny.generator_folder(tmp_path / "generator")
    model = ScaleDownModel(ScaleDownConfig(generator, num_memory_tokens=2))
    model.progress = TrainingProgress(1, 0, 0, ("a.json",), RESULTS)
    model.save_pretrained(tmp_path / "one")
    again = ScaleDownModel.from_pretrained(tmp_path / "one")
    assert again.progress == model.progress
    again.save_pretrained(tmp_path / "two")
    assert len(ModelCard.load(tmp_path / "two" / "README.md").data.eval_results) == 2

    # Into the folder of the old results, and with the same number of steps.
    again.progress = again.progress.after(0, 0)
    assert again.progress.results == RESULTS
    again.progress = again.progress.after(1, 0)
    again.save_pretrained(tmp_path / "two")
    assert ModelCard.load(tmp_path / "two" / "README.md").data.eval_results is None
    assert model.progress.with_new_head().results is None


def test_names_of_files_lose_their_folders(tmp_path: Path) -> None:
    (tmp_path / "data.json").touch()
    progress = TrainingProgress().on(None, str(tmp_path / "data.json"), "owner/texts").on("owner/texts")
    assert progress.train_data == ("data.json", "owner/texts")


def test_what_is_uploaded_says_how_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **options: None)
    monkeypatch.setattr(HfApi, "file_exists", lambda self, repo_id, name: False)
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, folder_path, **options: sent.append(
        (folder_path / model_card.FILE).read_text()))
    (tmp_path / model_card.FILE).write_text(card().content)
    checkpoint.upload(tmp_path, "me/new")
    assert 'from_pretrained("me/new")' in sent[0] and model_card.PLACE not in sent[0]
