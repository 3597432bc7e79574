"""What every command answers at once: --help and mistakes, without loading what takes seconds; and how that reads."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys

import guides
import pytest

from scaledown import cli
from scaledown.cli import commands
from scaledown.settings import RETIRED

HEAVY = ("torch", "transformers", "datasets", "nltk", "sentence_transformers", "accelerate", "peft", "evaluate",
         "matplotlib", "pandas", "huggingface_hub", "gradio")
LOADED_FOR_NAMES = {"huggingface_hub"}
"""Asks the Hub whether there is such a model."""
MOST_LINES = 60
NAMES = sorted(guides.command_names())
READ_AHEAD = "scaledown.serving.read_ahead"
PIPELINE, RANKING, RERANKING = "scaledown.data.prepare_dataset", "scaledown.evaluation.ranking", (
    "scaledown.data.reranking")
TRAIN = ["train", "train_with_evaluation"]
CHECKPOINT = ["example_usage", "scaledown.models.merge", *(f"scaledown.evaluation.{name}" for name in (
    "answering", "calibration", "needle", "pipelines", "ranking", "robustness"))]
MISTAKES: list[tuple[list[str], list[str], str]] = [
    # commands, flags, words of the message
    (CHECKPOINT, ["--checkpoint", "./nowhere"], "nowhere"),
    (CHECKPOINT, ["--checkpoint", "PLAIN_MODEL"], "no ScaleDown checkpoint"),
    (["scaledown.evaluation.answering", "scaledown.evaluation.robustness", "scaledown.evaluation.pipelines", RANKING],
     ["--eval_data", "nowhere.json"], "nowhere.json"),
    (["scaledown.evaluation.answering", "scaledown.evaluation.robustness", "scaledown.evaluation.pipelines", RANKING],
     ["--eval_data", "BAD_RECORDS"], "documents"),
    (["scaledown.evaluation.calibration"], ["--checkpoint", "embedded", "--eval_data", "BAD_RECORDS"], "documents"),
    (["scaledown.evaluation.calibration"], ["--checkpoint", "embedded", "--recall", "2"], "--recall"),
    (["scaledown.evaluation.answering", RANKING, "scaledown.evaluation.pipelines", "scaledown.evaluation.robustness"],
     ["--eval_examples", "0"], "--eval_examples"),
    (["scaledown.evaluation.answering", RANKING, "scaledown.evaluation.pipelines", "scaledown.evaluation.robustness",
      "example_dataset_generation"], ["--seed", "-1"], "--seed"),
    ([RANKING], ["--run_file", "x", "--judged"], "give one"),
    ([RANKING, "scaledown.evaluation.answering", "scaledown.evaluation.pipelines", "scaledown.evaluation.cost"],
     ["--output_file", "."], "--output_file"),
    ([PIPELINE], ["--num_synthetic_queries", "2", "--output_file", "."], "--output_file .: Is a directory"),
    ([RERANKING], ["--train_data", "RECORDS", "--output_file", "PLAIN_MODEL"], "Is a directory; give a file in it"),
    (["prepare_small_real_dataset"], ["--source", "RECORDS", "--output_file", "PLAIN_MODEL"],
     "Is a directory; give a file in it"),
    (["example_dataset_generation"], ["--output_file", "PLAIN_MODEL"], "Is a directory; give a file in it"),
    (["scaledown.evaluation.pipelines"], ["--keep_documents", "0"], "--keep_documents"),
    (["scaledown.evaluation.needle"], ["--lengths", "512", "0"], "--lengths"),
    (["scaledown.evaluation.needle"], ["--depths", "2"], "--depths"),
    (["scaledown.evaluation.needle"], ["--keep_documents", "most"], "--keep_documents"),
    (["scaledown.evaluation.cost"], ["--num_documents", "-1"], "--num_documents"),
    (["scaledown.evaluation.benchmark"], ["inference", "--rounds", "0"], "--rounds"),
    (["scaledown.evaluation.benchmark"], ["inference", "--train_data", "x"], "--train_data belongs to training"),
    (["scaledown.evaluation.benchmark"], ["training", "--train_data", "BAD_RECORDS", "--output_dir", "OUTPUT"],
     "documents"),
    (["scaledown.models.merge"], ["--output_dir", "."], "not an empty folder"),
    ([READ_AHEAD], ["--checkpoint", "./nowhere", "--corpus", "RECORDS", "--store", "OUTPUT"], "nowhere"),
    ([READ_AHEAD], ["--checkpoint", "embedded", "--corpus", "RECORDS", "--store", "OUTPUT"], "reads the query before"),
    ([READ_AHEAD], ["--checkpoint", "embedded", "--corpus", "RECORDS", "--store", "PLAIN_MODEL"], "is no store"),
    ([READ_AHEAD], ["--checkpoint", "embedded", "--corpus", "RECORDS", "--store", "x", "--max_gib", "0"], "--max_gib"),
    (["scaledown.demo"], ["--checkpoint", "./nowhere"], "nowhere"),
    (["scaledown.demo"], ["--port", "70000"], "--port must be between"),
    (["scaledown.serve"], ["--checkpoint", "./nowhere"], "nowhere"),
    (["scaledown.serve"], ["--read_ahead", "PLAIN_MODEL"], "is no store"),
    (["scaledown.serve"], ["--vllm_url", "localhost"], "--vllm_url"),
    (TRAIN, ["--train_data", "nowhere.json"], "nowhere.json"),
    (TRAIN, ["--train_data", "BAD_RECORDS"], "documents"),
    (TRAIN, ["--train_data", "RECORDS", "--init_compressor", "./nowhere"], "--init_compressor"),
    (TRAIN, ["--train_data", "RECORDS", "--generator_model", "./nowhere"], "nowhere"),
    (TRAIN, ["--load_in_4bit", "--load_in_8bit"], "contradict"),
    (TRAIN, ["--resume", "--overwrite"], "give one of them"),
    (TRAIN, ["--resume", "--output_dir", "OUTPUT"], "no run in"),
    (TRAIN, ["--config", "nowhere.yaml"], "nowhere.yaml"),
    ([PIPELINE], ["--num_synthetic_queries", "0"], "--num_synthetic_queries"),
    ([PIPELINE], ["--queries_file", "nowhere.txt", "--corpus_path", "nowhere.jsonl"], "nowhere"),
    ([RERANKING], ["--train_data", "BAD_RECORDS", "--output_file", "x.json"], "documents"),
    (["prepare_small_real_dataset"], ["--source", "./nowhere"], "nowhere"),
    (["example_dataset_generation"], ["--num_examples", "0"], "--num_examples"),
    (["test_training"], ["--num_examples", "1"], "--num_examples"),
    (["lab.embedded"], ["--hidden_size", "30"], "--hidden_size"),
    (["lab.embedded.reranker"], ["--output_dir", "."], "not empty"),
    (["lab.smollm2"], ["--train_data", "nowhere.json"], "nowhere.json"),
    (["scaledown.hub"], ["no_such_model"], "smollm2, minilm"),
    (["lab.benchmark_retrieval"], ["--num_passages", "0"], "--num_passages"),
    (["lab.benchmark_read_ahead"], ["--checkpoint", "embedded", "--eval_data", "nowhere.json"], "nowhere.json"),
    (["lab.benchmark_service"], ["--broken_share", "0.6", "--cut_off_share", "0.6"], "some good requests"),
    (["lab.benchmark_store"], ["--num_documents", "0"], "--num_documents"),
    (["lab.gpu_check"], ["--stages", "no_such_stage"], "--stages"),
    (["lab.recall"], ["--source", "./nowhere", "--corpus_path", "RECORDS", "--generator_model", "embedded",
                      "--retriever_model", "embedded"], "nowhere"),
]
SCRIPT = """
import contextlib, io, json, sys
sys.path.insert(0, "tests")
import guides

for name, argv, code, words in json.load(sys.stdin):
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            ended = guides.module(name).main(argv)
        except SystemExit as end:
            ended = end.code
    message = told.getvalue()
    ok = ended == code and words in message and "Traceback" not in message
    print(json.dumps([name, argv, ok, message[-300:], sorted(set(HEAVY) & set(sys.modules))]))
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Files and folders that the flags above name in capitals."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "bad.json").write_text('[{"query": "q", "documents": 3, "answer": "a"}]')
    records = [{"query": "q", "documents": ["d"], "answer": "a"}]
    for name in ("good.json", "good_eval.json"):
        (folder / name).write_text(json.dumps(records))
    (folder / "plain").mkdir()
    (folder / "plain" / "config.json").write_text('{"model_type": "llama"}')
    return {"BAD_RECORDS": folder / "bad.json", "RECORDS": folder / "good.json", "PLAIN_MODEL": folder / "plain",
            "OUTPUT": folder / "output"}


def test_help_and_mistakes_load_nothing_that_takes_seconds(places):
    """All in one process, which is one start of Python: who loads something is the first that names it."""
    cases = []
    for name in NAMES:
        cases += [(name, ["--help"], 0, "usage: "), (name, ["--no_such_flag"], 2, "unknown flag --no_such_flag")]
    for names, flags, words in MISTAKES:
        argv = [str(places.get(flag, flag)) for flag in flags]
        cases += [(name, argv, 2, words) for name in names]

    code = f"HEAVY = {HEAVY!r}\n{SCRIPT}"
    ended = subprocess.run([sys.executable, "-c", code], cwd=guides.ROOT, input=json.dumps(cases), capture_output=True,
                           text=True)
    assert ended.returncode == 0, ended.stderr
    results = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(results) == len(cases) > 90 and len(NAMES) >= 20
    wrong = [result[:4] for result in results if not result[2]]
    assert not wrong, wrong
    heavy = [result for result in results if set(result[4]) - LOADED_FOR_NAMES]
    assert not heavy, heavy[0]


def test_every_command_with_a_mistake_of_its_own_is_tried():
    tried = set(itertools.chain.from_iterable(names for names, _, _ in MISTAKES))
    assert set(NAMES) - tried <= {"scaledown", "lab.embedded.compressors"}


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_a_screen_or_two_and_has_two_examples_that_parse(name, narrow):
    text = guides.module(name).build_parser().format_help()
    assert len(text.splitlines()) <= MOST_LINES
    examples = re.findall(r"^    ((?:python|torchrun) .*)$", text, re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        program, arguments = guides.program(example)
        if program == name:
            guides.module(name).build_parser().parse_args(arguments)


@pytest.mark.parametrize("name", NAMES)
def test_usage_names_flags_that_there_are_and_all_that_must_be_given(name, narrow):
    parser = guides.module(name).build_parser()
    usage = parser.format_usage()
    assert len(usage.splitlines()) <= 6
    named = set(re.findall(r"--\w+", usage))
    assert named - {"--FLAG"} <= parser.flags.keys()
    required = {flag for flag, action in parser.flags.items() if action.required}
    assert required <= named
    # These two take names alone.
    if name not in ("scaledown", "scaledown.hub"):
        assert named - {"--FLAG"}


@pytest.mark.parametrize("name", NAMES)
def test_no_flag_can_be_shortened_and_every_flag_has_a_help(name):
    parser = guides.module(name).build_parser()
    assert isinstance(parser, cli.Parser) and not parser.allow_abbrev
    silent = [flag for flag, action in parser.flags.items() if not action.help and not flag.startswith("--no-")]
    assert not silent


def error_of(name, argv, capsys):
    with pytest.raises(SystemExit) as end:
        guides.module(name).main(argv)
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("name", "argv", "message"), [
    ("train", "--trainn_data x", "unknown flag --trainn_data: did you mean --train_data?"),
    ("train", "--train-data=x", "unknown flag --train-data: did you mean --train_data?"),
    ("train", "--train x", "unknown flag --train: did you mean --train_data?"),
    ("train", "--quantum 3", "unknown flag --quantum; --help_all shows those there are"),
    ("scaledown.evaluation.cost", "--quantum 3", "unknown flag --quantum; --help shows those there are"),
    ("scaledown.evaluation.calibration", "--chekpoint x", "unknown flag --chekpoint: did you mean --checkpoint?"),
    (RANKING, "--data x --num_queries 3", "--data is now called --eval_data; --num_queries is now called "
                                          "--eval_examples"),
    ("train", "--data x", "--data is now called --eval_data"),
    ("train", "--pad_to_max", "--pad_to_max is gone: batches have one shape if the device needs it"),
    ("train", "--distill_logits 1", "--distill_logits is gone: every run is now as with its default, 0.0"),
    ("train", "--device cpuu", "argument --device: expected one of auto, gpu, cuda, cpu, mps, trainium, got 'cpuu': "
                               "did you mean cpu?"),
    ("train", "--device quantum", "argument --device: expected one of auto, gpu, cuda, cpu, mps, trainium, got "
                                  "'quantum'"),
    (PIPELINE, "--last_stage teach", "argument --last_stage: expected one of queries, passages, index, retrieval, "
                                     "reranking, teacher, records, got 'teach': did you mean teacher?"),
    ("train", "--seed x", "argument --seed: expected a whole number, got 'x'"),
    ("train", "--num_epochs x", "argument --num_epochs: expected a number, got 'x'"),
    ("train", "--train_memory_tokens 1 b", "argument --train_memory_tokens: expected a whole number, got 'b'"),
    (RANKING, "--seed 1.5", "argument --seed: expected a whole number, got '1.5'"),
    ("example_usage", "some/folder", "unexpected some/folder: a value stands behind its flag; --help shows the flags"),
])
def test_a_mistake_is_told_in_plain_words(name, argv, message, capsys):
    assert error_of(name, shlex.split(argv), capsys).endswith(f"error: {message}")


def test_long_lists_of_choices_stay_a_line():
    assert cli.values.listed([f"choice_{number}" for number in range(40)]).endswith("and 33 more (see --help)")


def test_a_flag_that_is_gone_belongs_to_no_command():
    known = set()
    for parser in guides.parsers():
        known |= {flag.removeprefix("--") for flag in parser.flags}
    assert not known & RETIRED.keys()


def test_the_list_of_commands_is_complete_and_fits_a_terminal(capsys):
    assert guides.module("scaledown").main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 110
    listed = {match[2] or match[1] for match in re.finditer(r"^  python (?:(\w+)\.py|-m (\S+)) ", "\n".join(lines),
                                                            re.MULTILINE)}
    assert listed == set(NAMES) - {"scaledown"}
    assert all(len(line.split(maxsplit=2)) == 3 for line in lines if line.startswith("  "))
    assert sum(map(len, commands.COMMANDS.values())) == len(listed)


def test_no_default_overwrites_a_file_of_the_project():
    """What a command writes by default is no file that ships."""
    tracked = subprocess.run(["git", "ls-files"], cwd=guides.ROOT, capture_output=True, text=True).stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout")
    taken = set(tracked)
    for path in tracked:
        taken |= {path.rsplit("/", depth)[0] for depth in range(1, path.count("/") + 1)}

    written = {}
    for name in NAMES:
        for flag, action in guides.module(name).build_parser().flags.items():
            if re.match(r"--(output|work|run_out)", flag) and action.default:
                written[f"{name} {flag}"] = re.sub(rf"^(\./|{re.escape(str(guides.ROOT))}/)", "", action.default)
    assert len(written) >= 10
    overwriting = {flag: path for flag, path in written.items() if path in taken}
    assert not overwriting


def test_one_flag_has_one_meaning_in_all_commands():
    """Types and values: where two commands have a flag of one name, what one takes the other takes, too."""
    kinds = {}
    for name in NAMES:
        for flag, action in guides.module(name).build_parser().flags.items():
            kinds.setdefault(flag, {}).setdefault((action.metavar, action.nargs == 0), []).append(name)
    different = {flag: kind for flag, kind in kinds.items() if len(kind) > 1}
    assert not different, different
