"""``report.md``: figures, tables and some answers on one page, with notes on what they show and what they do not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scaledown.evaluation.evaluator import SystemResult
from scaledown.evaluation.evaluator.timing import PHASES, evenly_spaced
from scaledown.evaluation.figures.plots import FIGURES
from scaledown.evaluation.figures.style import printable
from scaledown.evaluation.figures.text_tables import flops_unit, markdown_table, score, short
from scaledown.evaluation.metrics import METRICS, interval_text
from scaledown.evaluation.report.headline import difference_text, facts, headline, p_text
from scaledown.evaluation.report.markdown_text import anchor, escape, sample, unbroken
from scaledown.evaluation.report.paired import SIGNIFICANT
from scaledown.evaluation.systems import LABELS_OF_TRAINING

if TYPE_CHECKING:
    from scaledown.evaluation.report.run_results import RunResults

NUM_SAMPLES = 8
MEBI = 2**20
TIMED = ("scaledown", "full_text", "truncated_text", "no_documents")
SMALLEST_BASE = 0.01
"""The smallest average before training of which a change is told as a share."""


def _summaries(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    baselines = report["baselines"]
    return {"no_documents": baselines["no_documents"], "truncated_text": baselines["truncated_text"],
            "before_training": report["before_training"], "scaledown": report["after_training"],
            "full_text": baselines["full_text"]}


def _quality_table(report: Mapping[str, Any]) -> str:
    rows = []
    for name, summary in _summaries(report).items():
        cells = []
        for metric in METRICS:
            mean, ends = summary[f"{metric}_avg"], summary[f"{metric}_ci95"]
            cells.append(unbroken(f"{score(mean)} {interval_text(ends)}"))
        rows.append([LABELS_OF_TRAINING[name], *cells, f"{summary['mean_prompt_tokens']:.1f}"])

    return markdown_table(["mean [95%]", *(metric.name for metric in METRICS.values()), "prompt tokens"], rows)


def _change_table(report: Mapping[str, Any]) -> str:
    tests, relative = report["paired_tests"]["before_training"], report["improvements"]["relative"]
    rows = []
    for metric, test in tests.items():
        share, base = relative[f"{metric}_avg"], report["before_training"][f"{metric}_avg"]
        # A share of next to nothing says nothing.
        change = f"{share:+.1%}" if share is not None and base >= SMALLEST_BASE else f"from {base:.3g}"
        rows.append([METRICS[metric].name, unbroken(difference_text(test)),
                     change, f"{test['num_better']}, {test['num_worse']}", p_text(test), test["verdict"]])

    return markdown_table(["after training − before", "difference [95%]", "relative", "questions: better, worse",
                           "p", "so after training is"], rows)


def _baseline_table(report: Mapping[str, Any]) -> str:
    rows = []
    for name in report["baselines"]:
        exact, overlap = (report["paired_tests"][name][metric] for metric in ("exact_match", "token_f1"))
        rows.append([LABELS_OF_TRAINING[name], unbroken(difference_text(exact)),
                     f"{exact['num_better']}, {exact['num_worse']}", p_text(exact), exact["verdict"],
                     unbroken(difference_text(overlap)), p_text(overlap), overlap["verdict"]])

    return markdown_table(["ScaleDown after training − ...", "exact match [95%]", "right: only it, only the other",
                           "p", "so it is", "token F1 [95%]", "p", "so it is"], rows)


def _quality_notes(report: Mapping[str, Any]) -> list[str]:
    num_questions = report["run"]["n"]
    lines = ["Brackets are 95% bootstrap intervals: how far the mean would move with other questions of the same kind. "
             "They cover neither another training seed nor another kind of question. Differences are paired: each "
             "question is compared with itself. p is of the exact sign test, which for metrics that are right or wrong "
             "is McNemar's. A result is called better or worse only if the interval excludes 0 and p is below "
             f"{SIGNIFICANT}."]

    averages = []
    for summary in _summaries(report).values():
        averages += [summary[f"{metric}_avg"] for metric in METRICS]
    if any(average in (0.0, 1.0) for average in averages):
        # With no miss in n questions the miss rate is below 3 / n at 95% confidence: (1 - 3 / n)^n is about 0.05.
        lines.append(f"An average of exactly 0 or 1 has an interval of no width, which is not certainty: with "
                     f"{num_questions} questions a true rate {min(1.0, 3 / num_questions):.1%} away is still "
                     "plausible (rule of three).")
    return lines


def _speed_table(report: Mapping[str, Any]) -> str:
    times = {"scaledown": report["speed_statistics"]}
    times |= {name: report["baselines"][name]["times"] for name in TIMED[1:]}

    rows = []
    for name, system in times.items():
        cells = []
        for phase in ("total", *PHASES):
            time = system[phase]
            spread = f"({short(time['p10_ms'])} to {short(time['p90_ms'])})"
            is_real = phase != "compress" or name == "scaledown"  # text is not compressed
            cells.append(unbroken(f"{short(time['median_ms'])} {spread}") if is_real else "none")
        cells += [f"{system['mean_prompt_tokens']:.1f}", f"{system['mean_new_tokens']:.1f}"]
        rows.append([LABELS_OF_TRAINING[name], *cells])

    return markdown_table(["ms a query: median (p10 to p90)", "total", *PHASES, "prompt tokens", "new tokens"], rows)


def _speed_notes(report: Mapping[str, Any]) -> str:
    speed = report["speed_statistics"]
    speedup = speed["speedup_over_full_text"]  # None on a clock that is too coarse
    ratio = "" if speedup is None else f"The median query has {speedup:.2f} times the speed of full text's. "
    return (f"{ratio}{speed['num_queries']} questions, one at a time, systems in turn after a warm-up, on "
            f"{escape(report['run']['device'])}. Medians of phases do not sum to the median of whole queries. Decoding "
            "time follows the answer's length (new tokens), so a system that says less looks faster.")


def _cost_table(report: Mapping[str, Any]) -> str:
    systems = {name: report["cost"][name] for name in TIMED}
    # The unit of the figure beside it.
    scale, prefix = flops_unit(max(system["flops"]["total"] for system in systems.values()))

    rows = []
    for name, system in systems.items():
        flops = [short(system["flops"][phase] / scale) for phase in ("total", *PHASES)]
        rows.append([LABELS_OF_TRAINING[name], *flops, short(system["flops_paper_convention"]["total"] / scale),
                     short(system["key_value_bytes"] / MEBI)])

    return markdown_table([f"{prefix}FLOPs a query", "total", *PHASES, "total by the paper's convention",
                           "key-value cache, MiB"], rows)


def _cost_notes(report: Mapping[str, Any]) -> str:
    parameters = report["cost"]["parameters"]
    return (f"Worked out from shapes and mean token counts, not measured. Parameters: generator "
            f"{parameters['generator']:,}, compressor {parameters['compressor']:,}, trained {parameters['trained']:,}. "
            "The paper's convention (arXiv:2504.07109, table 1) leaves out attention, adapters and the query that the "
            "compressor reads; the other columns count them.")


def _sample_table(before: SystemResult, after: SystemResult, full_text: SystemResult) -> str:
    """Return a table of evenly spaced questions: chosen by place, not by how well they were answered."""
    answered = list(zip(before.questions, after.questions, full_text.questions, strict=True))

    rows = []
    for old, new, full in evenly_spaced(answered, NUM_SAMPLES):
        rows.append([sample(new.query), sample("; ".join(new.references)), _answer(old), _answer(new), _answer(full)])

    return markdown_table(["question", "accepted answers", "before training", "after training", "full text"], rows)


def _answer(question: Any) -> str:
    mark = "✓" if question.scores.exact_match else "✗"
    return f"{mark} {sample(question.prediction) or '(nothing)'}"


def _run_list(report: Mapping[str, Any]) -> list[str]:
    run = report["run"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items() if version)
    command = printable(run["command_line"])
    # A code block ends at the next fence of its length, so ours is longer than any in the command.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    return [f"- {run['n']} evaluation questions, seed {run['seed']}",
            f"- commit {run['commit'] or 'unknown'}", f"- {versions}", "", fence, command, fence]


def _figures(section: str, left_out: Mapping[str, str], shown: bool = True) -> list[str]:
    """Return the markdown that shows the figures of a section, or the reasons why they were left out."""
    lines = []
    for figure in FIGURES:
        if figure.section != section:
            continue
        if figure.file in left_out:
            lines.append(f"The figure {escape(figure.file)} is left out: {escape(left_out[figure.file])}")
        elif shown:
            lines.append(f"![{figure.alternative}]({figure.file})")
    return lines


def _memory_blocks(memory: Mapping[str, Mapping[str, Any]], left_out: Mapping[str, str]) -> list[str]:
    """Return one document's memory as figure and table; nothing if no document could be shown."""
    section = "Inside the memory"
    figures = _figures(section, left_out, shown=bool(memory))
    if not figures:
        return []
    if not memory:
        return [f"## {section}", *figures]  # which say why they are missing

    after = memory["after_training"]
    rows = []
    for number, nearest in enumerate(after["nearest"], 1):
        cells = [f"{escape(near['token']) or '(space)'} {near['cosine']:.2f}" for near in nearest]
        rows.append([str(number), *cells])

    return [f"## {section}", *figures, f"- Question: {sample(after['query'])}\n- Accepted: {sample(after['answer'])}",
            "The document is the first one that holds its answer word for word, whether it was answered or not. The "
            "table is of its memory after training.",
            markdown_table(["embedding", "nearest entry of the vocabulary, cosine", "second", "third"], rows)]


def _contents(blocks: Sequence[str]) -> str:
    headings = [block.removeprefix("## ") for block in blocks if block.startswith("## ")]
    return "Contents: " + " · ".join(f"[{heading}](#{anchor(heading)})" for heading in headings)


def report_page(report: Mapping[str, Any], results: RunResults,
                left_out: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the page.

    Args:
        report: the content of ``metrics_report.json``.
        results: the measurements in it, for the answers and one document's memory.
        left_out: the reasons why figures are missing, by file name.
    """
    # Blocks of markdown, with a blank line between them; empty ones are dropped.
    top = ["# ScaleDown: before and after training", headline(report),
           "\n".join([*facts(report), *(f"- {escape(note)}" for note in report["notes"])])]
    sections = ["## Answers", *_figures("Answers", left_out), _quality_table(report), _change_table(report),
                _baseline_table(report), " ".join(_quality_notes(report)), "## Some answers",
                "Evenly spaced over the evaluation questions, not chosen. ✓ is an exact match.",
                _sample_table(results.before, results.after, results.baselines["full_text"]),
                "## Training", *_figures("Training", left_out), *_memory_blocks(results.memory, left_out),
                "## Speed", *_figures("Speed", left_out), _speed_table(report), _speed_notes(report),
                "## Cost", _cost_table(report), _cost_notes(report), "## Run", "\n".join(_run_list(report))]
    return "\n\n".join(block for block in [*top, _contents(sections), *sections] if block) + "\n"
