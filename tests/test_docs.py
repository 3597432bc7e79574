"""The docs are true: what a reader is told to type runs, shows what they say, and what is pointed at exists.

The guides are walked in one folder, in the order in which a reader takes them. What needs a hub or minutes gets flags
(``SHORT``) by which it does the same with the model that ships; what cannot run here says why (``NOT_RUN``), and its
flags are checked by its parser.
"""

from __future__ import annotations

import itertools
import json
import re
import runpy
import shutil
from pathlib import Path

import guides
import pytest
import tiny
from guides import GUIDES, NOTEBOOK, ROOT, Step
from test_qa_datasets import squad_file

from scaledown.data.records import write_records
from scaledown.data.world.synthetic import synthetic_records
from scaledown.evaluation.cost import __main__ as cost
from scaledown.evaluation.cost import question_cost
from scaledown.settings import RETIRED

LOG = "LOG.md"
STEPS = list(itertools.chain.from_iterable(guides.steps(path) for path in GUIDES))
INLINE_STEPS = list(itertools.chain.from_iterable(guides.inline_steps(path) for path in GUIDES if path.name != LOG))
NOT_RUN = {  # The first that is found in a step's text, or is its file's name, says why it is not run here.
    LOG: "a log: commands of their day, hours of them",
    "test_training.py": "two minutes; tests/test_scripts.py runs it shortened",
    r"torchrun|accelerate": "several processes; tests/test_processes.py",
    "download_ms_marco": "needs the Hub; tests/data/test_prepare_dataset.py and tests/data/test_queries.py",
    "--dataset all": "all four datasets; tests/data/test_qa_datasets.py",
    "--device trainium": "needs a Trainium; tests/training/test_neuron.py",
    "pytest": "is what runs this",
    "vllm": "needs vLLM, in an environment of its own; tests/serving/test_vllm_itself.py",
    r"from integrations\.": "needs packages of their own; tests/test_integrations.py",
    r"localhost:8000|scaledown\.serve\b": "a service that runs beside it; tests/serving/test_service.py",
    r"scaledown\.demo\b|tests/demo": "a page that runs until it is ended; tests/demo/test_demo_browser.py",
    "lab.benchmark_service": "minutes; tests/lab/test_benchmark_service.py runs it shortened",
    r"lab/gpu_check": "needs a GPU; tests/lab/test_gpu_check.py rehearses it",
    r"smollm2|scaledown\.hub": "needs packages of 93 and 84 MB; tests/test_packaged.py",
    r"^(make|pip|source|ruff|git|bash setup_env\.sh|python -m notebook)\b": "not ours, or what runs this",
}
SHORT = (  # Flags behind those of the docs, for every command that matches; of a flag given twice the last counts.
    (r"^python train", "--generator_model embedded --max_steps 1 --batch_size 2 --gradient_accumulation_steps 1 "
                       "--answer_tokens 8 --device cpu"),
    (r"^python train_with_evaluation", "--eval_examples 2 --timed_queries 1 --max_new_tokens 2 "
                                       "--bootstrap_resamples 20"),
    (r"--train_data data\.json", "--output_dir data_run"),
    (r"^python train.*compressor_type (llm|modernbert)", "--mlp_width 256"),
    (r"pretrain_steps", "--pretrain_steps 1"),
    (r"pretrain_steps(?!.*pretrain_data)", "--pretrain_data small_real_dataset.json"),
    (r"^python prepare_small_real_dataset(?!.*--source)", "--source ../shared/data/squad"),
    (r"^python example_dataset_generation", "--num_examples 10"),
    (r"data\.prepare_dataset", "--num_synthetic_queries 3 --teacher_max_new_tokens 4"),
    (r"data\.reranking|evaluation\.pipelines", "--reranker_model RERANKER"),
    (r"evaluation\.(answering|robustness|pipelines)", "--eval_examples 2 --max_new_tokens 2 --bootstrap_resamples 10"),
    (r"evaluation\.needle", "--eval_examples 2 --max_new_tokens 2 --bootstrap_resamples 10 --timed_queries 1 "
                            "--lengths 128 256 --depths 0"),
    (r"evaluation\.answering.*--numeric", "--eval_examples 20"),
    (r"evaluation\.benchmark", "--preset tiny --rounds 1 --num_documents 2 --batch_size 1 --answer_tokens 2"),
)
VARIES = {  # Steps whose output in the guide is not compared with what comes here.
    "--source $DATA/squad": "the desk's SQuAD is a small one",
    "--output_dir rehearsal": "two questions, after one step",
    "--num_synthetic_queries 200": "fewer queries, and times of the machine",
}
WRITES = ("output_dir", "output_file", "work_dir")
"""The flags that say where a command writes."""
NOT_OURS = {"--no-deps", "--nproc_per_node", "--num_processes", "--config_file", "--cpu", "--logdir",
            "--enable", "--enforce", "--generation", "--lora", "--max", "--model", "--vllm"}
TRIALS = {"how the demo's N-Layers compressor starts", "better training, in short trials"}
"""Sections of the log whose code of the day was not kept."""
OTHER_PROGRAMS = {"curl", "vllm", "pip", "bash", "git", "cd", "make", "source", "ruff", "pytest"}
OTHER_MODULES = {"pip", "pytest", "notebook", "zipfile"}


def why_not_run(step: Step) -> str | None:
    return next((why for pattern, why in NOT_RUN.items() if pattern == step.file or re.search(pattern, step.text)),
                None)


def to_run() -> list[Step]:
    """What is walked: a command that several guides have runs once, where it first stands."""
    found: list[Step] = []
    for step in STEPS:
        if not why_not_run(step) and (step.is_python or step.text not in {each.text for each in found}):
            found.append(step)
    return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A reader's folder, with the files beside it that the guides name, in small."""
    desk = tmp_path_factory.mktemp("reader") / "project"
    desk.mkdir()
    squad_file(desk.parent / "shared" / "data" / "squad" / "dev-v1.1.json")
    write_records(desk / "data.json", list(synthetic_records(6)))
    shutil.copy(ROOT / "LICENSE", desk / "texts.txt")
    tiny.cross_encoder_folder(desk / "RERANKER")
    beir_folder(desk / "BEIR_FOLDER")
    return desk


def beir_folder(folder: Path) -> None:
    (folder / "qrels").mkdir(parents=True)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n", encoding="utf-8")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "Who sings?"}), encoding="utf-8")
    (folder / "corpus.jsonl").write_text("\n".join(
        json.dumps({"_id": name, "title": "", "text": text})
        for name, text in (("a", "Ada sings."), ("b", "Bob is old."))), encoding="utf-8")


@pytest.fixture(scope="module")
def memory():
    """What earlier steps left: the shell's settings, and each guide's Python names."""
    return {"shell": {}, "python": {}}


@pytest.mark.slow
@pytest.mark.parametrize("step", to_run(), ids=lambda step: step.name)
def test_what_a_reader_types_runs_and_shows_what_the_guide_says(step, desk, memory, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    is_silent = False
    if step.is_python:
        exec(compile(step.text, step.file, "exec"), memory["python"].setdefault(step.file, {}))
    elif setting := re.fullmatch(r"([A-Z_]+)=(\S+)", step.text):
        memory["shell"]["$" + setting[1]] = setting[2]
    else:
        paths = run(step, memory["shell"])
        check_written(paths)
        # A command that writes nothing says something.
        is_silent = not paths
    shown = capsys.readouterr().out
    assert shown.strip() or not is_silent, f"{step.text}: no outcome"
    if not any(pattern in step.text for pattern in VARIES):
        wanted = ".*".join(re.escape(line).replace(re.escape("..."), ".*") for line in step.output.splitlines())
        assert re.search(wanted, shown, re.DOTALL), f"the guide says\n{step.output}\nbut it is\n{shown}"


def run(step: Step, settings: dict[str, str]) -> list[Path]:
    """Run a command; return the files and folders that it was to write."""
    text = step.text
    for name, value in settings.items():
        text = text.replace(name, value)
    for pattern, flags in SHORT:
        if re.search(pattern, step.text):
            text += " " + flags
    name, arguments = guides.program(text)
    assert guides.module(name).main(arguments) == 0, f"{step.file}: {text}"
    return written(name, arguments)


def written(name: str, arguments: list[str]) -> list[Path]:
    """Where a command writes, by its flags and their defaults."""
    args = vars(guides.module(name).build_parser().parse_args(arguments))
    return [Path(args[flag]) for flag in WRITES if args.get(flag)]


def check_written(paths: list[Path]) -> None:
    """Each is there, and holds something: a folder some file, and a file of records or settings what can be read."""
    for path in paths:
        assert path.exists(), f"{path} was to be written"
        for file in [path] if path.is_file() else path.rglob("*.json"):
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
        assert path.is_file() or any(path.iterdir()), f"{path} is empty"


@pytest.mark.parametrize("step", dict.fromkeys([
    *(step for step in STEPS if not step.is_python), *guides.notebook_steps(), *INLINE_STEPS]),
    ids=lambda step: step.name)
def test_a_command_is_one_that_its_program_takes(step, capsys):
    found = guides.program(step.text)
    if found is None:  # A setting of the shell alone has no words.
        said = guides.words(step.text)
        known = OTHER_MODULES if said[:2] == ["python", "-m"] else OTHER_PROGRAMS
        assert not said or said[2 * (known is OTHER_MODULES)] in known, f"nothing here checks {step.text!r}"
        return
    name, arguments = found
    if step.file == LOG:
        # A command of its day may have settings that are gone.
        for flag in [word for word in arguments if word.removeprefix("--") in RETIRED]:
            place = arguments.index(flag)
            del arguments[place:place + 2]
    try:
        guides.module(name).build_parser().parse_args(arguments)
    except SystemExit:
        # Named in a sentence, a command may leave out what it must have.
        fault = capsys.readouterr().err
        assert not arguments and "are required" in fault, f"{step.file}: {step.text}: {fault}"


def test_reasons_and_short_flags_are_for_commands_that_are_there():
    texts = [*(step.text for step in STEPS), *(path.name for path in GUIDES)]
    for pattern in [*NOT_RUN, *(pattern for pattern, _ in SHORT), *map(re.escape, VARIES)]:
        assert any(re.search(pattern, text) for text in texts), f"no command is like {pattern!r} any more"


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_python_in_a_guide_is_python(path):
    for step in guides.steps(path):
        if step.is_python:
            compile(step.text, path.name, "exec")


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", guides.prose(path)):
        place, _, heading = target.partition("#")
        file = path.parent / place if place else path
        if not re.match(r"[a-z]+:", target) and (not file.exists() or (heading and heading not in headings(file))):
            missing.append(target)
    assert not missing, f"{path.name} points at what is not there: {missing}"


def headings(path: Path) -> set[str]:
    """The names by which a page's headings are linked to, as code hosts make them."""
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-")
            for line in re.findall(r"^#+ (.*)$", guides.prose(path), re.MULTILINE)}


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_every_path_of_the_project_that_is_named_exists(path):
    named = re.findall(r"(?<![\w/.$])((?:scaledown|lab|tests|docs|configs)/[\w/.-]+\w|\w+\.ipynb)", guides.prose(path))
    for code in guides.inline_code(path):
        named += re.findall(r"^\w+\.(?:py|sh|toml)$", code)
    missing = [name for name in named if not (ROOT / name).exists() and not any(ROOT.glob(f"scaledown/**/{name}"))
               and not any(ROOT.glob(f"tests/**/{name}"))]
    assert not missing, f"{path.name} names what is not there: {missing}"


def test_every_flag_that_is_named_is_one_of_a_command():
    flags = itertools.chain.from_iterable(parser._option_string_actions for parser in guides.parsers())
    known = {*flags, *NOT_OURS}
    for path in GUIDES:
        if path.name == LOG:
            continue
        named = set()
        for code in guides.inline_code(path):
            named.update(re.findall(r"(?<!\S)--[a-z]\w+", code))
        assert not named - known, path.name


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_every_table_of_figures_says_where_they_come_from(path):
    silent = []
    for table in guides.figures_without_source(path, is_log=path.name == LOG):
        if not any(name in table for name in TRIALS):
            silent.append(table)
    assert not silent, f"{path.name}: name the command near these, or say that it is an estimate: {silent}"


def test_a_table_of_figures_without_its_command_is_found(tmp_path):
    table, path = "| a | b |\n|---|---|\n| fast | 1.5x |\n", tmp_path / "guide.md"
    for before, number in (("As said.", 1), ("By `python train.py --seed 1`:", 0), ("An estimate.", 0),
                           ("By `python train.py --seed 1`.\n\nOne.\n\nTwo.", 1)):
        path.write_text(f"# Title\n\n{before}\n\n{table}\nAfter.\n\nMore.\n", encoding="utf-8")
        assert len(list(guides.figures_without_source(path, is_log=False))) == number, before


def test_the_api_page_is_what_the_docstrings_say():
    made = runpy.run_path(str(ROOT / ".ci" / "api"), run_name="api")["page"]()
    assert (ROOT / "docs" / "API.md").read_text(encoding="utf-8") == made, "run make api"


def test_the_table_of_costs_is_what_the_command_prints():
    text = (ROOT / "docs" / "IMPLEMENTATION_SUMMARY.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)` \| (\d+) \|(.+)\|$", text, re.MULTILINE)
    assert len(rows) >= 4
    for name, layers, cells in rows:
        full, ours, naive, *_ = question_cost.costs(cost.build_parser().parse_args(
            ["--generator_model", name, "--num_layers", layers]))
        computed = [ours.paper_convention.total, full.flops.total, ours.flops.compress, ours.flops.total,
                    naive.flops.total]
        assert [float(cell) for cell in cells.split("|")[1:6]] == [round(value / 1e12, 2) for value in computed], name


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_no_guide_names_a_folder_of_one_machine(path):
    assert not re.search(r"(?<![\w.~}])/(?:root|home|Users|opt|mnt|work)" + r"/\w", path.read_text(encoding="utf-8"))


def test_the_readme_stays_within_three_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 142


def test_steps_are_found_at_all():
    assert {"README.md", "CONTRIBUTING.md", "SERVING.md"} <= {step.file for step in STEPS}
    assert len(to_run()) > 25 and any(step.file == NOTEBOOK.name for step in guides.notebook_steps())
    launched = ("A=1 torchrun --nproc_per_node 2 train.py --seed 1",
                "accelerate launch -m scaledown.data.prepare_dataset --dry_run", "python -m pytest tests/test_docs.py")
    assert [guides.program(text) for text in launched] == [
        ("train", ["--seed", "1"]), ("scaledown.data.prepare_dataset", ["--dry_run"]), None]
