"""``report.md``: figures, tables and some answers on one page, with notes on what they show and what they do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from scaledown.evaluation.evaluator import SystemResult
from scaledown.evaluation.figures.plots import FIGURES
from scaledown.evaluation.figures.style import one_line, printable
from scaledown.evaluation.metrics import METRICS, interval_text
from scaledown.evaluation.systems import LABELS_OF_TRAINING
from scaledown.evaluation.timing import PHASES

NUM_SAMPLES = 8
SAMPLE_CHARACTERS = 160

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|~$&-])")


def escape(text: str) -> str:
    """Return ``text`` as one line with markdown's signs escaped, so that a table cell shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def sample(text: str) -> str:
    """Return :func:`escape` of ``text``, cut if it is long."""
    line = one_line(text)
    return escape(line if len(line) <= SAMPLE_CHARACTERS else line[:SAMPLE_CHARACTERS].rstrip() + "…")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a markdown table; cells are used as they are."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _summaries(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    baselines = report["baselines"]
    return {"no_documents": baselines["no_documents"], "truncated_text": baselines["truncated_text"],
            "before_training": report["before_training"], "scaledown": report["after_training"],
            "full_text": baselines["full_text"]}


def _quality_table(report: Mapping[str, Any]) -> str:
    rows = []
    for name, summary in _summaries(report).items():
        cells = [f"{summary[f'{metric}_avg']:.3f} {interval_text(summary[f'{metric}_ci95'])}" for metric in METRICS]
        rows.append([LABELS_OF_TRAINING[name], *cells, f"{summary['mean_prompt_tokens']:.1f}"])

    return table(["", *(metric.name for metric in METRICS.values()), "prompt tokens"], rows)


def _verdict(difference: float, ends: Sequence[float]) -> str:
    low, high = ends
    if low > 0:
        return "a gain"
    if high < 0:
        return "a loss"
    # The interval holds 0: either direction is possible.
    return "no gain is claimed: the interval holds 0" if difference else "no change"


def _change_table(report: Mapping[str, Any]) -> str:
    changes = report["improvements"]
    rows = []
    for metric in METRICS:
        key = f"{metric}_avg"
        difference, ends, relative = (changes[kind][key] for kind in ("absolute", "absolute_ci95", "relative"))
        share = "from 0" if relative is None else f"{relative:+.1%}"  # no share of nothing
        change = f"{difference:+.3f} {interval_text(ends)}"
        rows.append([METRICS[metric].name, change, share, _verdict(difference, ends)])

    return table(["after training − before", "absolute", "relative", "so"], rows)


def _against_baselines(report: Mapping[str, Any]) -> list[str]:
    """Return one line for each baseline: above, below, or not told apart."""
    after = report["after_training"]
    low, high = after["exact_match_ci95"]

    lines = []
    for name, baseline in report["baselines"].items():
        baseline_low, baseline_high = baseline["exact_match_ci95"]
        # Intervals that do not overlap are a strict test, which misses some real differences.
        if low > baseline_high:
            verdict = "ScaleDown's interval is above it."
        elif high < baseline_low:
            verdict = "ScaleDown's interval is below it."
        else:
            verdict = "the intervals overlap, so this run does not tell the two apart."
        lines.append(f"- {LABELS_OF_TRAINING[name]}: {baseline['exact_match_avg']:.3f} against ScaleDown's "
                     f"{after['exact_match_avg']:.3f} exact match; {verdict}")

    return lines


def _quality_notes(report: Mapping[str, Any]) -> list[str]:
    num_questions = report["run"]["n"]
    lines = ["Brackets are 95% bootstrap intervals: how far the mean would move with other questions of the same kind. "
             "They cover neither another training seed nor another kind of question."]

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
    times |= {name: report["baselines"][name]["times"] for name in ("full_text", "truncated_text", "no_documents")}

    rows = []
    for name, system in times.items():
        cells = []
        for phase in (*PHASES, "total"):
            time = system[phase]
            cells.append(f"{time['median_ms']:.1f} ({time['p10_ms']:.1f} to {time['p90_ms']:.1f})")
        cells += [f"{system['mean_prompt_tokens']:.1f}", f"{system['mean_new_tokens']:.1f}"]
        rows.append([LABELS_OF_TRAINING[name], *cells])

    return table(["ms a query: median (p10 to p90)", *PHASES, "total", "prompt tokens", "new tokens"], rows)


def _speed_notes(report: Mapping[str, Any]) -> str:
    speed = report["speed_statistics"]
    speedup = speed["speedup_over_full_text"]  # None on a clock that is too coarse
    ratio = "" if speedup is None else f"The median query is {speedup:.2f} times as fast as with full text. "
    return (f"{ratio}{speed['num_queries']} questions, one at a time, systems in turn after a warm-up, on "
            f"{escape(report['run']['device'])}. Decoding time follows the answer's length (new tokens), so a system "
            "that says less looks faster.")


def _cost_table(report: Mapping[str, Any]) -> str:
    rows = []
    for name in ("scaledown", "full_text", "truncated_text", "no_documents"):
        system = report["cost"][name]
        gflops = [f"{system['flops'][phase] / 1e9:.4g}" for phase in (*PHASES, "total")]
        rows.append([LABELS_OF_TRAINING[name], *gflops, f"{system['flops_paper_convention']['total'] / 1e9:.4g}",
                     f"{system['key_value_bytes'] / 2**20:.3g}"])

    return table(["GFLOPs a query", *PHASES, "total", "total by the paper's convention", "key-value cache, MiB"], rows)


def _cost_notes(report: Mapping[str, Any]) -> str:
    parameters = report["cost"]["parameters"]
    return (f"Worked out from shapes and mean token counts, not measured. Parameters: generator "
            f"{parameters['generator']:,}, compressor {parameters['compressor']:,}, trained {parameters['trained']:,}. "
            "The paper's convention (arXiv:2504.07109, table 1) leaves out attention, adapters and the query that the "
            "compressor reads; the other columns count them.")


def _sample_table(before: SystemResult, after: SystemResult, full_text: SystemResult) -> str:
    """Return a table of evenly spaced questions: chosen by place, not by how well they were answered."""
    step = max(1, len(after.questions) // NUM_SAMPLES)
    answered = list(zip(before.questions, after.questions, full_text.questions, strict=True))

    rows = []
    for old, new, full in answered[::step][:NUM_SAMPLES]:
        rows.append([sample(new.query), sample("; ".join(new.references)), _answer(old), _answer(new), _answer(full)])

    return table(["question", "accepted answers", "before training", "after training", "full text"], rows)


def _answer(question: Any) -> str:
    mark = "✓" if question.scores.exact_match else "✗"
    return f"{mark} {sample(question.prediction) or '(nothing)'}"


def _run_list(report: Mapping[str, Any]) -> list[str]:
    run = report["run"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items() if version)
    command = printable(run["command_line"])
    # A code block ends at the next fence of its length, so ours is longer than any in the command.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    return [f"- {run['n']} evaluation questions, seed {run['seed']}", f"- {escape(run['device'])}",
            f"- commit {run['commit'] or 'unknown'}", f"- {versions}", "", fence, command, fence]


def _figure(name: str, alternative: str, left_out: Mapping[str, str]) -> str:
    """Return the markdown that shows a figure, or the reason why it was left out."""
    if name in left_out:
        return f"The figure {escape(name)} is left out: {escape(left_out[name])}"
    return f"![{alternative}]({name})"


def _figures(section: str, left_out: Mapping[str, str]) -> list[str]:
    """Return the figures of one section of the page."""
    return [_figure(figure.file, figure.alternative, left_out) for figure in FIGURES if figure.section == section]


def _memory_blocks(memory: Mapping[str, Any] | None, left_out: Mapping[str, str]) -> list[str]:
    """Return one document's memory as figure and table; nothing if no document could be shown."""
    if memory is None and "memory.png" not in left_out:
        return []

    blocks = ["## Inside the memory", _figure("memory.png", "Heat map of one document's memory", left_out)]
    if memory is None:
        return blocks  # which say why the figure is missing

    rows = []
    for number, nearest in enumerate(memory["nearest"], 1):
        cells = [f"{escape(near['token']) or '(space)'} {near['cosine']:.2f}" for near in nearest]
        rows.append([str(number), *cells])

    return [*blocks, f"- Question: {sample(memory['query'])}\n- Accepted: {sample(memory['answer'])}",
            "The document is the first one that holds its answer word for word, whether it was answered or not.",
            table(["embedding", "nearest word, cosine", "second", "third"], rows)]


def report_page(report: Mapping[str, Any], before: SystemResult, after: SystemResult,
                full_text: SystemResult, memory: Mapping[str, Any] | None = None,
                left_out: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the page, from the content of ``metrics_report.json``, the answers and one document's memory.

    ``left_out`` has the reasons why figures are missing, by file name.
    """
    # Blocks of markdown, with a blank line between them; empty ones are dropped.
    blocks = ["# ScaleDown: before and after training", "\n".join(f"- {escape(note)}" for note in report["notes"]),
              "## Answers", *_figures("Answers", left_out),
              _quality_table(report), _change_table(report), "\n".join(_against_baselines(report)),
              " ".join(_quality_notes(report)), "## Some answers",
              "Evenly spaced over the evaluation questions, not chosen. ✓ is an exact match.",
              _sample_table(before, after, full_text), *_memory_blocks(memory, left_out),
              "## Speed", *_figures("Speed", left_out),
              _speed_table(report), _speed_notes(report), "## Cost", _cost_table(report), _cost_notes(report),
              "## Training", *_figures("Training", left_out),
              "## Run", "\n".join(_run_list(report))]
    return "\n\n".join(block for block in blocks if block) + "\n"
