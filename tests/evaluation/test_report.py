"""The report's files: their keys, their arithmetic, what they refuse to claim, and that none is left half-written."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from evaluation_fakes import EVALUATION, FakeModel, make_records

from scaledown import run_information
from scaledown.evaluation.cost.question_cost import mean_text_tokens, model_cost
from scaledown.evaluation.evaluator import SystemResult, evaluate_system
from scaledown.evaluation.figures.style import Figures
from scaledown.evaluation.metrics import METRICS, score_answer, summarise
from scaledown.evaluation.report import before_after, report_page
from scaledown.evaluation.report.before_after import (
    RunResults,
    improvements,
    metrics_report,
    write_json,
    write_numbers,
    write_page,
)
from scaledown.evaluation.systems import BASELINES, SCALEDOWN
from scaledown.evaluation.timing import time_systems

FILES = {"before_after_comparison.png", "training_curves.png", "speed_comparison.png", "metrics_report.json",
         "before_training_results.json", "after_training_results.json", "report.md", "report.html", "memory.png"}
MEMORY = {"query": "find name0", "answer": "value0", "tokens": ["name0", "=", "<b>value0"], "answer_tokens": [2, 2],
          "similarity": [[0.1, 0.2, 0.9]], "nearest": [[{"token": "<b>|", "cosine": 0.9}, {"token": " ", "cosine": 0.2},
                                                        {"token": "word", "cosine": 0.1}]]}
HOSTILE = ("$5 or $x_1$ and $\\frac{1}{$", "a_b^c *d* __e__ ~~f~~ # g", "\\ \\alpha \\| | ||", "` `` ``` ````",
           "<script>x</script>", "&amp; &lt; & <", "[x](y) ![z](a.png)", "https://example.org/a_b_c", "- 1. + item",
           "北京 🎉 👩\u200d👧", "مرحبا שלום", "\u202eabc")
HISTORY = [{"step": 1, "loss": 2.0, "learning_rate_generator": 1e-4}, {"step": 2, "loss": 1.0}]


@pytest.fixture(scope="module")
def results() -> RunResults:
    """A run as train_with_evaluation.py makes it, with the stand-in model."""
    records = make_records(12)
    before = evaluate_system(FakeModel(is_trained=False), SCALEDOWN, records, EVALUATION, seed=3, progress=False)
    model = FakeModel()
    after, *baselines = (evaluate_system(model, system, records, EVALUATION, seed=3, progress=False)
                         for system in (SCALEDOWN, *BASELINES))
    text_tokens = mean_text_tokens(records, lambda text: len(text.split()), model.config)
    run = run_information.run_information(3, model.device, ["train.py", "--train_data", "my data.json"],
                                          dataclasses.asdict(EVALUATION))
    return RunResults(before, after, {result.system: result for result in baselines},
                      time_systems(model, (SCALEDOWN, *BASELINES), records, EVALUATION, progress=False),
                      model_cost(model, (after, *baselines), text_tokens), HISTORY, run,
                      notes=("The compressor started as a copy.",))


def write_report(folder: Path, results: RunResults, memory: dict | None = MEMORY) -> dict:
    report = write_numbers(folder, results)
    write_page(Figures(folder), report, results, memory)
    return report


def with_answers(result: SystemResult, answers: list[str]) -> SystemResult:
    questions = tuple(dataclasses.replace(question, prediction=answer,
                                          scores=score_answer(answer, question.references))
                      for question, answer in zip(result.questions, answers, strict=True))
    return SystemResult(result.system, summarise([question.scores for question in questions], 200, 0), questions)


def test_every_file_is_written_and_nothing_else(tmp_path: Path, results: RunResults) -> None:
    folder = tmp_path / "new" / "folder"
    report = write_report(folder, results)
    assert {path.name for path in folder.iterdir()} == FILES
    assert json.loads((folder / "metrics_report.json").read_text()) == report
    before = json.loads((folder / "before_training_results.json").read_text())
    assert [question["id"] for question in before["questions"]] == [f"r{number}" for number in range(12)]
    page = (folder / "report.md").read_text()
    assert all(f"]({name})" in page for name in FILES if name.endswith(".png"))
    assert "- The compressor started as a copy." in page and "train.py --train_data 'my data.json'" in page


def test_without_an_answer_in_a_document_there_is_no_memory_to_show(tmp_path: Path, results: RunResults) -> None:
    write_report(tmp_path, results, memory=None)
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"memory.png"}
    assert "Inside the memory" not in (tmp_path / "report.html").read_text()


class Page(HTMLParser):
    """What a browser would find: the text, each table's rows of (label, cell), and the addresses asked for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts, self.rows, self.sources, self.tags = [], [], [], []
        self.is_in_cell = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append([values["data-label"], ""])
            self.is_in_cell = True

    def handle_endtag(self, tag):
        self.is_in_cell = self.is_in_cell and tag != "td"

    def handle_data(self, data):
        self.texts.append(data)
        if self.is_in_cell:
            self.rows[-1][-1][1] += data


def test_the_html_page_is_one_file_with_the_same_content(tmp_path: Path, results: RunResults) -> None:
    write_report(tmp_path, results)
    html, markdown = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    page = Page(html)
    pictures = re.findall(r"\]\((\w+\.png)\)", markdown)
    assert len(pictures) == 4 and [base64.b64decode(source.removeprefix("data:image/png;base64,"))
                                   for source in page.sources] == [(tmp_path / name).read_bytes() for name in pictures]
    # On a phone they fit the width; a tap, which needs something that takes the focus, makes one larger.
    assert html.count('tabindex="0"') == 4 and "img:focus" in html and "min-width" not in html.partition("@media")[0]
    assert "http" not in html and not {"script", "link", "b", "iframe"} & set(page.tags)
    rows = [line for line in markdown.split("\n") if line.startswith("| ")]
    assert len(page.rows) == len([row for row in rows if not row.startswith("| ---")])
    assert [["embedding", "1"], ["nearest word, cosine", "<b>| 0.90"], ["second", "(space) 0.20"],
            ["third", "word 0.10"]] in page.rows
    assert [["question", "find name0"], ["accepted answers", "value0"], ["before training", "✗ (nothing)"],
            ["after training", "✓ value0"], ["full text", "✓ value0"]] in page.rows
    for heading in re.findall(r"^#+ (.*)$", markdown, re.MULTILINE):
        assert heading in page.texts


def test_metrics_report_has_the_contracts_keys(results: RunResults) -> None:
    report = json.loads(json.dumps(metrics_report(results), allow_nan=False))
    for summary in (report["before_training"], report["after_training"], *report["baselines"].values()):
        for metric in METRICS:
            low, high = summary[f"{metric}_ci95"]
            assert 0 <= low <= summary[f"{metric}_avg"] <= high <= 1
    assert set(report["baselines"]) == {"no_documents", "full_text", "truncated_text"}
    assert set(report["improvements"]) == {"absolute", "absolute_ci95", "relative"}
    for times in (report["speed_statistics"], report["baselines"]["full_text"]["times"]):
        for phase in ("compress", "prefill", "decode", "total"):
            assert set(times[phase]) == {"median_ms", "p10_ms", "p90_ms", "mean_ms"}
    assert set(report["cost"]["scaledown"]["flops"]) == {"compress", "prefill", "decode", "total"}
    assert report["run"]["n"] == 12 and report["run"]["seed"] == 3
    assert report["run"]["versions"]["torch"] == torch.__version__


def test_speedup_is_full_texts_median_over_scaledowns(results: RunResults) -> None:
    slow = results.latencies["full_text"]
    slow = dataclasses.replace(slow, total=dataclasses.replace(slow.total, median_ms=30.0))
    fast = dataclasses.replace(slow, total=dataclasses.replace(slow.total, median_ms=12.0))
    for median_ms, expected in ((12.0, 2.5), (0.0, None)):
        fast = dataclasses.replace(fast, total=dataclasses.replace(fast.total, median_ms=median_ms))
        changed = dataclasses.replace(results, latencies=results.latencies | {"full_text": slow, "scaledown": fast})
        assert metrics_report(changed)["speed_statistics"]["speedup_over_full_text"] == expected


def test_improvements_by_hand(results: RunResults) -> None:
    before = with_answers(results.after, ["value0", "value1", "value2"] + ["x"] * 9)
    after = with_answers(results.after, [f"value{number}" for number in range(9)] + ["x"] * 3)
    changes = improvements(before, after, 400, seed=0)
    assert changes["absolute"]["exact_match_avg"] == pytest.approx(0.5)
    assert changes["relative"]["exact_match_avg"] == pytest.approx(2.0)
    low, high = changes["absolute_ci95"]["exact_match_avg"]
    assert 0.1 < low < 0.5 < high < 0.9


def test_no_relative_change_from_zero(results: RunResults) -> None:
    changes = improvements(results.before, results.after, 100, seed=0)
    assert changes["absolute"]["exact_match_avg"] == 1 and changes["relative"]["exact_match_avg"] is None


def page_of(results: RunResults, before: list[str], after: list[str]) -> str:
    changed = dataclasses.replace(results, before=with_answers(results.before, before),
                                  after=with_answers(results.after, after))
    return report_page.report_page(metrics_report(changed), changed.before, changed.after,
                                   changed.baselines["full_text"])


def test_the_page_claims_no_more_than_the_intervals_do(results: RunResults) -> None:
    right, wrong = [f"value{number}" for number in range(12)], ["x"] * 12
    assert page_of(results, wrong, right).count("| a gain |") == 4
    assert page_of(results, right, wrong).count("| a loss |") == 4
    mixed = page_of(results, wrong, right[:1] + wrong[1:])
    assert mixed.count("no gain is claimed: the interval holds 0") == 4
    assert "the intervals overlap, so this run does not tell the two apart" in mixed
    assert "rule of three" in mixed
    assert page_of(results, wrong, wrong).count("| no change |") == 4


def test_sample_answers_stand_side_by_side(results: RunResults) -> None:
    page = page_of(results, ["x|y"] * 12, [f"value{number}" for number in range(12)])
    assert "| find name0 | value0 | ✗ x\\|y | ✓ value0 | ✓ value0 |" in page
    rows = [line for line in page.split("\n") if line.startswith("| find name")]
    assert len(rows) == report_page.NUM_SAMPLES


def test_every_table_row_has_its_headers_columns(results: RunResults) -> None:
    page = page_of(results, ["a|b\n# c `d`"] * 12, ["\\|<b>"] * 12)
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        columns = [len(re.findall(r"(?<!\\)\|", row)) for row in block.strip().split("\n")]
        assert len(set(columns)) == 1 and len(columns) > 2, block


@pytest.mark.parametrize(("text", "expected"), [
    ("a|b", "a\\|b"), ("*x* _y_ `z`", "\\*x\\* \\_y\\_ \\`z\\`"), ("two\n\nlines\t", "two lines"),
    ("a\\|b", "a\\\\\\|b"),
    ("<b>[x](y)", "\\<b\\>\\[x\\]\\(y\\)"), ("w" * 200, "w" * 160 + "…"), ("", ""), ("&amp;", "\\&amp;")])
def test_markdown_is_escaped(text: str, expected: str) -> None:
    assert report_page.sample(text) == expected


def test_a_long_path_is_not_cut() -> None:
    assert report_page.escape("w" * 200) == "w" * 200


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_data_stands_on_the_page_as_it_is(tmp_path: Path, results: RunResults, text: str) -> None:
    questions = tuple(dataclasses.replace(question, query=text, references=(text,), prediction=text)
                      for question in results.after.questions)
    after = dataclasses.replace(results.after, questions=questions)
    run = results.run | {"device": text, "command_line": f"train.py --output_dir '{text}'"}
    write_report(tmp_path, dataclasses.replace(results, after=after, run=run, notes=(text,)),
                 MEMORY | {"query": text, "answer": text, "nearest": [[{"token": text, "cosine": 0.5}] * 3]})
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    row = next(row for row in page.rows if row and row[0][0] == "question")
    assert [row[0][1], row[1][1], row[3][1]] == [text, text, f"{row[3][1][0]} {text}"]
    shown = "".join(page.texts)
    for line in (f"Question: {text}\n", f"Accepted: {text}\n", f"{text} 0.50", f"--output_dir '{text}'\n"):
        assert line in shown
    assert page.texts.count(text) == 2 + 2 * report_page.NUM_SAMPLES, "note, device, questions and their answers"
    assert not {"script", "em", "strong", "a", "s"} & set(page.tags) and page.tags.count("code") == 1


def test_what_is_no_character_is_spelt_out_on_the_page(tmp_path: Path, results: RunResults) -> None:
    text = "a\x1b[31m\x00 half \ud83d"
    write_report(tmp_path, dataclasses.replace(results, notes=(text,)))
    assert "<li>a\\x1b[31m\\x00 half \\ud83d</li>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_command_of_several_lines_stays_one_block(tmp_path: Path, results: RunResults) -> None:
    command = "train.py --output_dir 'a  b\n```\n# x'"
    write_report(tmp_path, dataclasses.replace(results, run=results.run | {"command_line": command}))
    page = Page((tmp_path / "report.html").read_text())
    assert command + "\n" in page.texts and page.tags.count("h1") == 1


@pytest.mark.parametrize("name", ["before_after", "training_curves", "speed", "memory"])
def test_a_figure_that_fails_is_named_on_the_page(tmp_path: Path, results: RunResults, name: str,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no <font>")

    monkeypatch.setattr(f"scaledown.evaluation.report.before_after.plot_{name}", fail)
    write_report(tmp_path, results)
    missing, = FILES - {path.name for path in tmp_path.iterdir()}
    assert missing.startswith(name)
    page = Page((tmp_path / "report.html").read_text())
    assert f"The figure {missing} is left out: RuntimeError: no <font>" in page.texts
    assert len(page.sources) == 3 and f"]({missing})" not in (tmp_path / "report.md").read_text()


def test_the_numbers_are_on_disk_before_anything_is_drawn(tmp_path: Path, results: RunResults,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = FakeModel(), []
    model.processor = SimpleNamespace(tokenizer=lambda text, **settings: SimpleNamespace(input_ids=text.split()))

    def fail(*arguments: object) -> None:
        found.append({path.name for path in tmp_path.iterdir()})
        raise RuntimeError("out of luck")

    for name in ("results.plot_before_after", "results.plot_training_curves", "results.plot_speed",
                 "before_after.memory_of_one"):
        monkeypatch.setattr(f"scaledown.evaluation.report.{name}", fail)
    before = before_after.measure_before(model, make_records(4), EVALUATION, 3, tmp_path)
    report = before_after.measure_after(model, make_records(4), EVALUATION, 3, tmp_path, before, HISTORY, results.run)
    numbers = {name for name in FILES if name.endswith(".json")}
    assert found == [numbers] * 4 and json.loads((tmp_path / "metrics_report.json").read_text()) == report
    assert (tmp_path / "report.html").read_text().count("is left out: RuntimeError: out of luck") == 4


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"query": "北京 \ud800"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"query": "北京 \ud800"}
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(path, {"value": value})
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"] and "北京" in path.read_text(encoding="utf-8")


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"value": 1})

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("scaledown.files.os.replace", fail)
    with pytest.raises(ValueError, match=r"report.json: cannot be written \(disk full\)"):
        write_json(path, {"value": 2})
    assert json.loads(path.read_text()) == {"value": 1} and [each.name for each in tmp_path.iterdir()] == [path.name]


def test_commit_is_null_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*arguments: object, **settings: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(run_information.subprocess, "run", no_git)
    assert run_information.git_commit() is None

    def no_repository(*arguments: object, **settings: object) -> None:
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(run_information.subprocess, "run", no_repository)
    assert run_information.git_commit() is None


def test_commit_and_changes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
        return subprocess.run(("git", *who, *arguments), cwd=tmp_path, check=True, capture_output=True,
                              text=True).stdout.strip()

    monkeypatch.setattr(run_information, "__file__", str(tmp_path / "module.py"))
    (tmp_path / "module.py").write_text("one")
    for arguments in (("init",), ("add", "."), ("commit", "-m", "first"), ("tag", "-a", "v1", "-m", "v1")):
        git(*arguments)
    commit = git("rev-parse", "HEAD")
    assert run_information.git_commit() == commit
    (tmp_path / "module.py").write_text("two")
    assert run_information.git_commit() == f"{commit}-dirty"
