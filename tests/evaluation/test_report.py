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

from scaledown.data.storage import run_information
from scaledown.evaluation.cost.question_cost import mean_text_tokens, model_cost
from scaledown.evaluation.evaluator import SystemResult, evaluate_system
from scaledown.evaluation.evaluator.timing import time_systems
from scaledown.evaluation.figures.colours import TEXT_CONTRAST, contrast
from scaledown.evaluation.figures.plots import FIGURES
from scaledown.evaluation.figures.style import Figures
from scaledown.evaluation.metrics import METRICS, score_answer, summarise
from scaledown.evaluation.report import before_after, html_page, report_page, run_results
from scaledown.evaluation.report.markdown_text import anchor, escape, sample
from scaledown.evaluation.report.paired import compare, sign_test_p
from scaledown.evaluation.report.run_results import RunResults, metrics_report, write_numbers, write_page
from scaledown.evaluation.systems import BASELINES, SCALEDOWN
from scaledown.files import write_json

FILES = {"before_after_comparison.png", "training_curves.png", "speed_comparison.png", "metrics_report.json",
         "before_training_results.json", "after_training_results.json", "baseline_results.json", "report.md",
         "report.html", "memory.png"}
MEMORY = {"query": "find name0", "answer": "value0", "tokens": ["name0", "=", "<b>value0"], "answer_tokens": [2, 2],
          "similarity": [[0.1, 0.2, 0.9]], "nearest": [[{"token": "<b>|", "cosine": 0.9}, {"token": " ", "cosine": 0.2},
                                                        {"token": "word", "cosine": 0.1}]]}
HOSTILE = ("$5 or $x_1$ and $\\frac{1}{$", "a_b^c *d* __e__ ~~f~~ # g", "\\ \\alpha \\| | ||", "` `` ``` ````",
           "<script>x</script>", "&amp; &lt; & <", "[x](y) ![z](a.png)", "https://example.org/a_b_c", "- 1. + item",
           "北京 🎉 👩\u200d👧", "مرحبا שלום", "\u202eabc")
STAGES = {"before_training": MEMORY, "after_training": MEMORY}
HISTORY = [{"step": 1, "loss": 2.0, "learning_rate_generator": 1e-4}, {"step": 2, "loss": 1.0},
           {"step": 2, "train_loss": 1.5, "train_runtime": 150.0}]
SETTINGS = dataclasses.asdict(EVALUATION) | {"generator_model": "embedded", "compressor_type": "n_layers",
                                             "train_data": "my data.json", "batch_size": 8, "resume": False}


@pytest.fixture(scope="module")
def results() -> RunResults:
    """A run as train_with_evaluation.py makes it, with the stand-in model."""
    records = make_records(12)
    before = evaluate_system(FakeModel(is_trained=False), SCALEDOWN, records, EVALUATION, seed=3, progress=False)
    model = FakeModel()
    after, *baselines = (evaluate_system(model, system, records, EVALUATION, seed=3, progress=False)
                         for system in (SCALEDOWN, *BASELINES))
    text_tokens = mean_text_tokens(records, lambda text: len(text.split()), model.config)
    run = run_information.run_information(3, model.device, ["train.py", "--train_data", "my data.json"], SETTINGS)
    run["records"] = {"training": 64, "evaluation": 12}
    return RunResults(before, after, {result.system: result for result in baselines},
                      time_systems(model, (SCALEDOWN, *BASELINES), records, EVALUATION, progress=False),
                      model_cost(model, (after, *baselines), text_tokens), HISTORY, run,
                      notes=("The compressor started as a copy.",), memory=STAGES)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, results: RunResults) -> Path:
    """The folder of a report that was written once, for the tests that only read it."""
    folder = tmp_path_factory.mktemp("written") / "new" / "folder"
    write_report(folder, results)
    return folder


@pytest.fixture
def plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that take no time: for the tests of the page's text."""
    monkeypatch.setattr(run_results, "FIGURES", [
        dataclasses.replace(figure, plot=lambda path, *data, narrow=False: path.write_bytes(b"PNG"))
        for figure in FIGURES])


def write_report(folder: Path, results: RunResults) -> dict:
    report = write_numbers(folder, results)
    write_page(Figures(folder), report, results)
    return report


def with_answers(result: SystemResult, answers: list[str]) -> SystemResult:
    questions = tuple(dataclasses.replace(question, prediction=answer,
                                          scores=score_answer(answer, question.references))
                      for question, answer in zip(result.questions, answers, strict=True))
    return SystemResult(result.system, summarise([question.scores for question in questions], 200, 0), questions)


def test_every_file_is_written_and_nothing_else(written: Path, results: RunResults) -> None:
    folder = written
    assert {path.name for path in folder.iterdir()} == FILES
    assert json.loads((folder / "metrics_report.json").read_text()) == metrics_report(results)
    before = json.loads((folder / "before_training_results.json").read_text())
    assert [question["id"] for question in before["questions"]] == [f"r{number}" for number in range(12)]
    page = (folder / "report.md").read_text()
    assert all(f"]({name})" in page for name in FILES if name.endswith(".png"))
    assert "- The compressor started as a copy." in page and "train.py --train_data 'my data.json'" in page


def test_each_baselines_answers_are_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(model, system, *rest):
        if system is SCALEDOWN:
            raise KeyboardInterrupt
        result = evaluate_system(model, system, *rest, progress=False)
        answers[system.name] = result.to_dict()
        return result

    answers: dict[str, dict] = {}
    monkeypatch.setattr(before_after, "evaluate_system", evaluate)
    with pytest.raises(KeyboardInterrupt):
        before_after.measure_before(FakeModel(), make_records(3), EVALUATION, 0, tmp_path)
    written = json.loads((tmp_path / "baseline_results.json").read_text())
    assert list(written) == [system.name for system in BASELINES] and written == json.loads(json.dumps(answers))
    assert all(question["prediction"] for question in written["full_text"]["questions"])


@pytest.mark.usefixtures("plain_figures")
def test_without_an_answer_in_a_document_there_is_no_memory_to_show(tmp_path: Path, results: RunResults) -> None:
    write_report(tmp_path, dataclasses.replace(results, memory={}))
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"memory.png"}
    assert "Inside the memory" not in (tmp_path / "report.html").read_text()


class Page(HTMLParser):
    """What a browser would find: the text, each table's rows of (heading, cell), and the addresses asked for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts, self.rows, self.sources, self.narrow, self.tags, self.ids, self.links = [], [], [], [], [], [], []
        self.headings: list[str] = []
        self.cell = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.sources += [values["src"]] if "src" in values else []
        self.narrow += [values["srcset"]] if "srcset" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.ids += [values["id"]] if "id" in values else []
        if tag == "table":
            self.headings = []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = tag
            if tag == "th":
                self.headings.append("")
            else:
                self.rows[-1].append([self.headings[len(self.rows[-1])], ""])

    def handle_endtag(self, tag):
        if tag == self.cell:
            self.cell = ""

    def handle_data(self, data):
        self.texts.append(data)
        if self.cell == "th":
            self.headings[-1] += data
        elif self.cell:
            self.rows[-1][-1][1] += data


def test_the_html_page_is_one_file_with_the_same_content(written: Path) -> None:
    html, markdown = (written / "report.html").read_text(), (written / "report.md").read_text()
    page = Page(html)
    pictures = re.findall(r"\]\((\w+\.png)\)", markdown)
    assert len(pictures) == 4 and [base64.b64decode(source.removeprefix("data:image/png;base64,"))
                                   for source in page.sources] == [(written / name).read_bytes() for name in pictures]
    assert "http" not in html and not {"script", "link", "b", "iframe"} & set(page.tags)
    rows = [line for line in markdown.split("\n") if line.startswith("| ")]
    assert len(page.rows) == len([row for row in rows if not row.startswith("| ---")])
    assert [["embedding", "1"], ["nearest entry of the vocabulary, cosine", "<b>| 0.90"], ["second", "(space) 0.20"],
            ["third", "word 0.10"]] in page.rows
    assert [["question", "find name0"], ["accepted answers", "value0"], ["before training", "✗ (nothing)"],
            ["after training", "✓ value0"], ["full text", "✓ value0"]] in page.rows
    for heading in re.findall(r"^#+ (.*)$", markdown, re.MULTILINE):
        assert heading in page.texts


def test_the_contents_lead_to_every_section(written: Path) -> None:
    page, markdown = Page((written / "report.html").read_text()), (written / "report.md").read_text()
    sections = re.findall(r"^## (.*)$", markdown, re.MULTILINE)
    assert [link.removeprefix("#") for link in page.links] == [anchor(section) for section in sections]
    assert len(sections) >= 6 and {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert anchor("Inside the memory: what's there?") == "inside-the-memory-whats-there"


def test_a_phone_gets_narrow_pictures_and_tables_that_scroll(written: Path) -> None:
    html = (written / "report.html").read_text()
    page = Page(html)
    assert len(page.narrow) == len(page.sources) == 4
    for wide, narrow in zip(page.sources, page.narrow, strict=True):
        (wide_width, wide_height), (narrow_width, narrow_height) = size(wide), size(narrow)
        assert narrow_width < wide_width / 2 and narrow_height / narrow_width > wide_height / wide_width
    assert html.count('<div class="table"') == page.tags.count("table") and "position: sticky" in html


def size(source: str) -> tuple[int, int]:
    """Return width and height of an embedded PNG, which stand in its first chunk."""
    head = base64.b64decode(source.removeprefix("data:image/png;base64,"))[16:24]
    return int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")


@pytest.mark.parametrize("colours", [html_page.LIGHT, html_page.DARK])
def test_text_of_the_page_can_be_read_by_day_and_by_night(colours: dict[str, str]) -> None:
    for name in ("text", "quiet", "link"):
        assert contrast(colours[name], colours["page"]) >= TEXT_CONTRAST, name
    assert contrast(colours["text"], colours["code"]) >= TEXT_CONTRAST
    assert "prefers-color-scheme: dark" in html_page.html_page("# x", Path())


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
    changes = metrics_report(dataclasses.replace(results, before=before, after=after))["improvements"]
    assert changes["absolute"]["exact_match_avg"] == pytest.approx(0.5)
    assert changes["relative"]["exact_match_avg"] == pytest.approx(2.0)
    low, high = changes["absolute_ci95"]["exact_match_avg"]
    assert 0.1 < low < 0.5 < high < 0.9


def test_no_relative_change_from_zero(results: RunResults) -> None:
    changes = metrics_report(results)["improvements"]
    assert changes["absolute"]["exact_match_avg"] == 1 and changes["relative"]["exact_match_avg"] is None


def test_the_sign_tests_p_by_hand() -> None:
    assert sign_test_p(0, 0) == 1
    assert sign_test_p(5, 5) == pytest.approx(1)
    assert sign_test_p(6, 0) == sign_test_p(0, 6) == pytest.approx(2 / 2**6)
    assert sign_test_p(8, 1) == pytest.approx(2 * (1 + 9) / 2**9)


def test_a_paired_difference_is_found_that_intervals_would_miss(results: RunResults) -> None:
    """Of 12 questions 3 are easy and 3 hard for both; on the others one is always right."""
    one = with_answers(results.after, [f"value{number}" for number in range(9)] + ["x"] * 3)
    other = with_answers(results.after, [f"value{number}" for number in range(3)] + ["x"] * 9)
    test = compare(one, other, 400, seed=0)["exact_match"]
    assert (test.num_better, test.num_worse, test.verdict) == (6, 0, "better") and test.p_value == 2 / 2**6
    back = compare(other, one, 400, seed=0)["exact_match"]
    assert back.verdict == "worse" and back.difference == -test.difference == -0.5
    low, high = one.averages["exact_match_ci95"][0], other.averages["exact_match_ci95"][1]
    assert low <= high, "their own intervals meet"


def test_few_differing_questions_show_nothing(results: RunResults) -> None:
    """Five against none: the bootstrap's interval excludes 0, but chance alone does that once in 16 times."""
    one = with_answers(results.after, [f"value{number}" for number in range(5)] + ["x"] * 7)
    other = with_answers(results.after, ["x"] * 12)
    test = compare(one, other, 2000, seed=0)["exact_match"]
    assert test.ci95[0] > 0 and test.p_value == 2 / 2**5 and test.verdict == "no difference shown"
    same = compare(one, one, 100, seed=0)
    assert {test.verdict for test in same.values()} == {"no difference shown"}
    assert [test.p_value for test in same.values()] == [1, 1, 1, 1]


def test_few_questions_show_no_difference_in_any_metric(results: RunResults) -> None:
    """One question has an interval of no width, and two or three of a kind say little more."""
    for num_questions in (1, 2, 3):
        one = dataclasses.replace(results.after, questions=results.after.questions[:num_questions])
        right = with_answers(one, [f"value{number}" for number in range(num_questions)])
        wrong = with_answers(one, ["x"] * num_questions)
        tests = compare(right, wrong, 400, seed=0)
        assert {test.p_value for test in tests.values()} == {2 / 2**num_questions}
        assert {test.ci95 for test in tests.values()} == {(1.0, 1.0)}
        assert {test.verdict for test in tests.values()} == {"no difference shown"}


def test_only_the_same_questions_are_compared(results: RunResults) -> None:
    fewer = dataclasses.replace(results.before, questions=results.before.questions[1:])
    with pytest.raises(ValueError, match="did not answer the same questions"):
        compare(results.after, fewer, 10, seed=0)


def test_the_report_holds_the_paired_tests(results: RunResults) -> None:
    tests = json.loads(json.dumps(metrics_report(results), allow_nan=False))["paired_tests"]
    assert set(tests) == {"before_training", "no_documents", "truncated_text", "full_text"}
    for by_metric in tests.values():
        assert list(by_metric) == list(METRICS)
    assert tests["before_training"]["exact_match"]["verdict"] == "better"
    assert tests["full_text"]["exact_match"] == {"difference": 0.0, "ci95": [0.0, 0.0], "num_better": 0, "num_worse": 0,
                                                 "p_value": 1.0, "verdict": "no difference shown"}


def page_of(results: RunResults, before: list[str], after: list[str]) -> str:
    changed = dataclasses.replace(results, before=with_answers(results.before, before),
                                  after=with_answers(results.after, after))
    return report_page.report_page(metrics_report(changed), changed)


def test_the_page_claims_no_more_than_the_tests_do(results: RunResults) -> None:
    right, wrong = [f"value{number}" for number in range(12)], ["x"] * 12

    def verdicts(page: str) -> list[str]:
        rows = re.findall(r"^\| (?:exact match|token F1|ROUGE-L|accuracy) \|.*\| (.*) \|$", page, re.MULTILINE)
        assert len(rows) == 4
        return rows

    assert set(verdicts(page_of(results, wrong, right))) == {"better"}
    assert set(verdicts(page_of(results, right, wrong))) == {"worse"}
    mixed = page_of(results, wrong, right[:1] + wrong[1:])
    assert set(verdicts(mixed)) == {"no difference shown"} and "rule of three" in mixed
    assert set(verdicts(page_of(results, wrong, wrong))) == {"no difference shown"}


def test_the_first_lines_say_what_was_trained_on_what(results: RunResults) -> None:
    report = metrics_report(results)
    first = report_page.report_page(report, results).partition("\nContents: ")[0]
    for words in ("Exact match is 0.000 before training and 1.000 after it, on 12 questions: better (+1.000",
                  "Full text reaches 1.000; against it ScaleDown: no difference shown (0.000 [0.000, 0.000]).",
                  "becomes 8 memory tokens", "- Generator: embedded, 3 layers", "- Compressor: n\\_layers, 2 layers",
                  "2 steps of 8 records in 2 min", "64 records of my data.json (epochs: 0.25)",
                  "- Machine: CPU", f"started {escape(results.run['started'])}", "- The compressor started as a copy."):
        assert words in first, words
    tokens = report["cost"]["mean_text_tokens"]["document_tokens"]
    assert f"A document of {tokens:.1f} tokens on average" in first
    assert f"compression rate {tokens / 8:.1f}" in first


def test_sample_answers_stand_side_by_side(results: RunResults) -> None:
    page = page_of(results, ["x|y"] * 12, [f"value{number}" for number in range(12)])
    assert "| find name0 | value0 | ✗ x\\|y | ✓ value0 | ✓ value0 |" in page
    rows = [line for line in page.split("\n") if line.startswith("| find name")]
    assert len(rows) == report_page.NUM_SAMPLES
    # Over all 12, not the first 8 of them.
    assert [row.split(" | ")[0] for row in rows] == [f"| find name{n}" for n in (0, 1, 3, 4, 6, 7, 9, 10)]


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
    assert sample(text) == expected


def test_a_long_path_is_not_cut() -> None:
    assert escape("w" * 200) == "w" * 200


@pytest.mark.usefixtures("plain_figures")
@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_data_stands_on_the_page_as_it_is(tmp_path: Path, results: RunResults, text: str) -> None:
    questions = tuple(dataclasses.replace(question, query=text, references=(text,), prediction=text)
                      for question in results.after.questions)
    after = dataclasses.replace(results.after, questions=questions)
    run = results.run | {"device": text, "command_line": f"train.py --output_dir '{text}'"}
    memory = MEMORY | {"query": text, "answer": text, "nearest": [[{"token": text, "cosine": 0.5}] * 3]}
    write_report(tmp_path, dataclasses.replace(results, after=after, run=run, notes=(text,),
                                               memory={"after_training": memory}))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    row = next(row for row in page.rows if row and row[0][0] == "question")
    assert [row[0][1], row[1][1], row[3][1]] == [text, text, f"{row[3][1][0]} {text}"]
    shown = "".join(page.texts)
    for line in (f"Question: {text}\n", f"Accepted: {text}\n", f"{text} 0.50", f"--output_dir '{text}'\n"):
        assert line in shown
    assert page.texts.count(text) == 1 + 2 * report_page.NUM_SAMPLES, "note, questions and their answers"
    assert f"Machine: {text}; started" in shown
    assert not {"script", "em", "strong", "s"} & set(page.tags) and page.tags.count("code") == 1
    assert all(link.startswith("#") for link in page.links)


@pytest.mark.usefixtures("plain_figures")
def test_what_is_no_character_is_spelt_out_on_the_page(tmp_path: Path, results: RunResults) -> None:
    text = "a\x1b[31m\x00 half \ud83d"
    write_report(tmp_path, dataclasses.replace(results, notes=(text,)))
    assert "<li>a\\x1b[31m\\x00 half \\ud83d</li>" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("plain_figures")
def test_a_command_of_several_lines_stays_one_block(tmp_path: Path, results: RunResults) -> None:
    command = "train.py --output_dir 'a  b\n```\n# x'"
    write_report(tmp_path, dataclasses.replace(results, run=results.run | {"command_line": command}))
    page = Page((tmp_path / "report.html").read_text())
    assert command + "\n" in page.texts and page.tags.count("h1") == 1


@pytest.mark.usefixtures("plain_figures")
@pytest.mark.parametrize("name", ["before_after", "training_curves", "speed", "memory"])
def test_a_figure_that_fails_is_named_on_the_page(tmp_path: Path, results: RunResults, name: str,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no <font>")

    monkeypatch.setattr(run_results, "FIGURES", [
        dataclasses.replace(figure, plot=fail) if figure.file.startswith(name) else figure
        for figure in run_results.FIGURES])
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

    monkeypatch.setattr(run_results, "FIGURES", [dataclasses.replace(figure, plot=fail) for figure in FIGURES])
    monkeypatch.setattr(before_after, "memory_of_one", fail)
    before = before_after.measure_before(model, make_records(4), EVALUATION, 3, tmp_path)
    found.clear()
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
