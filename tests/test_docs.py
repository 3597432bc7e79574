"""The docs are true: commands are taken by their parsers, the quick ones run, and what is pointed at exists."""

from __future__ import annotations

import importlib
import re

import pytest
from doc_commands import FENCE, GUIDES, NOTEBOOK, ROOT, commands, parser_of, program
from test_qa_datasets import squad_file

COMMANDS = list(dict.fromkeys(commands()))
OTHER_PROGRAMS = {"pip", "bash", "git", "cd", "make", "source", "curl", "ruff", "docker", "export"}
OTHER_MODULES = {"pytest", "pip", "venv", "notebook"}
SHORT = ("--max_steps 1 --batch_size 2 --eval_examples 2 --timed_queries 1 --max_new_tokens 4 "
         "--bootstrap_resamples 20 --overwrite").split()
RUN = {  # In this order, in one folder, as a reader would; with flags that make the long ones short.
    "python example_usage.py": [],
    "python example_dataset_generation.py --num_examples 1000": ["--num_examples", "20"],
    "python train.py --preset demo --train_data synthetic_train_data.json": ["--max_steps", "1", "--batch_size", "2"],
    "python example_usage.py checkpoints/final": [],
    "python prepare_small_real_dataset.py --dataset squad --source $DATA/squad/dev-v1.1.json --num_examples 500": [],
    "python train_with_evaluation.py --train_data small_real_dataset.json --generator_model embedded --max_steps 60":
        SHORT,
    "python -m scaledown.evaluation.cost --generator_model Qwen/Qwen2.5-0.5B-Instruct --num_documents 5": [],
    "python -m scaledown.data.prepare_dataset --num_synthetic_queries 200 --teacher_model embedded":
        ["--num_synthetic_queries", "3"],
    "python example_dataset_generation.py --ranking": ["--num_examples", "4", "--output_file", "ranking.json"],
}
TO_COME = {"PLATFORMS.md", "RELIABILITY.md", "SERVING.md"}
"""Guides that other parts of the project bring; a link to one may wait for it."""


def named(command):
    return f"{command.file}: {command.text}"


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_a_command_is_one_that_its_program_takes(command, capsys):
    words = command.words
    found = program(words)
    if found is None:  # A setting of the shell alone has no words.
        known = OTHER_MODULES if words[:2] == ["python", "-m"] else OTHER_PROGRAMS
        assert not words or words[2 * (known is OTHER_MODULES)] in known, f"nothing here checks {command.text!r}"
        return
    module, arguments = found
    try:
        parser_of(module).parse_args(arguments)
    except SystemExit:
        pytest.fail(f"{command.file}: {command.text}: {capsys.readouterr().err}")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    squad_file(folder / "data" / "squad" / "dev-v1.1.json")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("text", RUN)
def test_a_quick_command_runs(text, desk, monkeypatch):
    known = [command for command in COMMANDS if command.text.removeprefix("bash setup_env.sh ") == text]
    assert known, "it is not in the docs any more"
    module, arguments = program(known[0].words)
    arguments = [word.replace("$DATA", str(desk / "data")) for word in arguments]
    monkeypatch.chdir(desk)
    assert importlib.import_module(module).main([*arguments, *RUN[text]]) == 0


def prose(path):
    return FENCE.sub("", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        place, _, heading = target.partition("#")
        if re.match(r"[a-z]+:", target) or place.rpartition("/")[2] in TO_COME:
            continue
        file = path.parent / place if place else path
        if not file.exists() or (heading and heading not in headings(file)):
            missing.append(target)
    assert not missing, f"{path.name} points at what is not there: {missing}"


def headings(path):
    """The names by which a page's headings are linked to, as code hosts make them."""
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-")
            for line in re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)}


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_every_path_of_the_project_that_is_named_exists(path):
    named_paths = re.findall(r"(?<![\w/.$])((?:scaledown|tests|docs)/[\w/.-]+\w|\w+\.ipynb)", prose(path))
    missing = [name for name in named_paths
               if not (ROOT / name).exists() and name.rpartition("/")[2] not in TO_COME]
    assert not missing, f"{path.name} names what is not there: {missing}"


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_no_guide_names_a_folder_of_one_machine(path):
    assert not re.search(r"(?<![\w.~}])/(?:root|home|Users|opt|mnt|work)" + r"/\w", path.read_text(encoding="utf-8"))


def test_the_readme_stays_within_three_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_commands_are_found_at_all():
    files = {command.file for command in COMMANDS}
    assert {"README.md", "CONTRIBUTING.md", NOTEBOOK.name} <= files and len(COMMANDS) > 40
